"""What a trace reader is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from sim.workload.settings import Params
from sim.workload.table import RequestBlock


class TraceParams(Params):
    """A format without settings of its own."""


class Trace:
    """Reads one format. Subclasses are registered with ``@register("trace")`` and carry ``name`` and ``Params``.

    `read` returns every request of the file, arrivals in seconds from its first one. Anything in the file that cannot be used
    raises `DataError` with line, column and value; anything that it says and that is not modelled raises `NotModelledError`.
    """

    name: ClassVar[str]
    Params: ClassVar[type[Params]] = TraceParams

    def __init__(self, params: Any) -> None:
        self.params = params

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        raise NotImplementedError
