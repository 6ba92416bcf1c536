"""What a reader of benchmark results is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from sim.study.bench._document import Document
from sim.study.bench._run import Run


class BenchParams(BaseModel):
    """A reader has no settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Bench:
    """Reads what one tool writes. Subclasses are registered with ``@register("bench")`` and carry ``name`` and ``title``.

    `fits` looks at a parsed file and says whether it is of this tool; it must not raise. `runs` reads it and raises `DataError` naming the key
    that cannot be used. A run in which nothing was served, or that does not say enough, is returned with `Run.refused`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Params: ClassVar[type[BaseModel]] = BenchParams
    beside: ClassVar[tuple[str, ...]] = ()
    """Patterns of files that tell the same run again: not read when they lie beside a file of this reader."""

    def __init__(self, params: object = None) -> None:
        self.params = params or self.Params()

    def fits(self, document: Document) -> bool:
        """Whether the file is of this tool."""
        raise NotImplementedError

    def runs(self, document: Document) -> Iterator[Run]:
        """The runs in a file."""
        raise NotImplementedError

    def told_by(self, folder: Path) -> Iterator[Path]:
        """Files of a folder that are left aside because this reader's file is there."""
        for pattern in self.beside:
            yield from folder.glob(pattern)
