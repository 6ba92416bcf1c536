"""What a trace reader is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from sim.document import Json, Table
from sim.errors import NotModelledError
from sim.guard import Guard
from sim.workload import answers
from sim.workload.settings import Params
from sim.workload.table import RequestBlock

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class TraceParams(Params):
    """A format without settings of its own."""


class TurnParams(Params):
    """Settings of formats that can say that a turn waits for the answer before it."""

    delays: Literal["wait", "after_arrival", "ignore"] = Field(
        default="wait",
        description="a turn with a delay is sent so long after the answer before it (wait), or after the arrival of the turn before it "
        "(after_arrival), or at its recorded time stamp (ignore)",
    )


@dataclass(frozen=True)
class Head:
    """What `Trace.fits` sees: the path, and of a file the keys of its first JSON object or the columns of its header.

    ``kind``: folder, json (one value over several lines or an array), jsonl, csv, or parquet.
    """

    path: Path
    kind: str
    keys: tuple[str, ...] = ()
    first: Json = None
    rows: tuple[Table, ...] = field(default=())


class Trace:
    """Reads one format. Subclasses are registered with ``@register("trace")`` and carry ``name``, ``Params`` and `fits`.

    `pieces` yields the requests of a file in order of arrival, in blocks, holding only a part of it where the format allows; `read` is all of
    them. Arrivals are seconds from the first one. Anything in the file that cannot be used raises `DataError` with line, column and value;
    anything that it says, that decides what happens and that is not modelled raises `NotModelledError`. What else is left out goes to
    ``notes``, once for each name.
    """

    name: ClassVar[str]
    Params: ClassVar[type[Params]] = TraceParams
    images: bool = False
    """Prompts hold images. May be set while reading."""
    timed: bool = True
    """The requests have arrival times; else all are 0 and the traffic must say when they arrive. May be set while reading."""
    holds: ClassVar[frozenset[str] | None] = None
    """What of a request besides its lengths `rows` writes (`_writing.HOLDS`); None: the format is only read."""
    ends_with: ClassVar[str] = ".jsonl"
    opening: ClassVar[str] = ""
    """What a written file begins with, has between two requests, and ends with."""
    between: ClassVar[str] = "\n"
    closing: ClassVar[str] = "\n"
    rank: ClassVar[int] = 0
    """Among several formats that fit a file the one with the highest rank is taken."""

    guards: ClassVar[Mapping[str, Guard]] = {
        "read": Guard(answers.one_block, lambda path: f"reading {path}", limited=True),
        "pieces": Guard(answers.one_block, lambda path: f"reading {path}", limited=True, each=True),
        "fits": Guard(limited=True),
        "rows": Guard(limited=True),
    }
    """How a reader of one's own is watched (`sim.guard`)."""

    def __init__(self, params: BaseModel | None = None) -> None:
        self.params: BaseModel = self.Params() if params is None else params
        self.notes: list[str] = []

    def fits(self, head: Head) -> bool:
        """Whether a file looks like this format, for ``format: auto``. Must not raise."""
        return False

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        yield self.read(path)

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        return RequestBlock.concat(list(self.pieces(path)))

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """The requests of a block as text, one by one; prompts that share content have ids of ``block_tokens`` where the format has such."""
        raise NotImplementedError

    def starts(self, block: RequestBlock, times: NDArray[np.float64]) -> RequestBlock:
        """The block of an untimed file when the traffic says when things begin: request k arrives at ``times[k]``."""
        block.arrival_s = times
        return block

    def beginnings(self, block: RequestBlock) -> int:
        """How many times `starts` needs."""
        return len(block)

    def note(self, text: str) -> None:
        """Say something about the file, once."""
        if text not in self.notes:
            self.notes.append(text)

    def unused(self, path: Path, names: Iterable[str], meaning: str = "") -> None:
        """Name columns that mean something and are not used."""
        left = sorted(names)
        if left:
            what = "column" if len(left) == 1 else "columns"
            self.note(f"{path.name}: {what} {', '.join(left)} not used{': ' + meaning if meaning else ''}")

    def refuse(self, path: Path, name: str, why: str, allowed: str = "") -> NotModelledError:
        """The error for something that the file says and that is not modelled."""
        return NotModelledError("traffic.trace.path", str(path), f"field {name!r}: {why}", allowed)
