"""From a table of requests, piece by piece, to blocks: what CSV formats have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from sim.ledger import Values
from sim.workload.table import Given, RequestBlock
from sim.workload.traces._base import Trace
from sim.workload.traces._columns import (
    LIMIT,
    LORA,
    PRIORITY,
    SESSION,
    Clock,
    Piece,
    Wanted,
    coded,
    csv_pieces,
    hash_spans,
    labels,
    split_ids,
    tokens,
    whole,
)

OPTIONAL: Wanted = {"priority": PRIORITY, "session": SESSION, "lora": LORA, "limit": LIMIT}
_WHOLE = 2**31 - 1


@dataclass
class Rows:
    """Makes blocks of pieces of one file: numbers requests through, keeps the clock, gives adapters their numbers."""

    trace: Trace
    path: Path
    clock: Clock = field(default_factory=Clock)
    first: int = 0
    adapters: dict[str, int] = field(default_factory=dict)
    harmless: tuple[str, ...] = ()
    """Columns that need no mention when they are not used."""

    def block(
        self,
        piece: Piece,
        arrival: NDArray[np.float64],
        prompt: Values,
        output: Values,
        keep: NDArray[np.bool_] | None = None,
        **columns: Unpack[Given],
    ) -> RequestBlock:
        """The requests of a piece; ``keep`` [n] leaves rows out."""
        for ours, read in (
            ("priority", self._priority),
            ("session", self._session),
            ("lora", self._lora),
            ("limit", self._limit),
        ):
            if ours in piece:
                columns |= read(piece, output)
        made = RequestBlock.of(arrival, prompt, output, self.first, **columns)
        self.first += len(made)
        self.trace.unused(self.path, [n for n in piece.unused if n not in self.harmless])
        return made if keep is None or keep.all() else made.where(keep)

    def _priority(self, piece: Piece, output: Values) -> Given:
        return {"priority": whole(piece.source, piece["priority"], -_WHOLE, _WHOLE)}

    def _session(self, piece: Piece, output: Values) -> Given:
        return {"session": labels(piece["session"].values)}

    def _lora(self, piece: Piece, output: Values) -> Given:
        code, names = coded(piece["lora"].values)
        number = np.zeros(len(names) + 1, np.int32)
        for k, value in enumerate(names):
            name = str(value)
            if name and name not in ("0", "base", "none", "None"):
                number[k] = self.adapters.setdefault(name, len(self.adapters) + 1)
        return {"lora": number[code]}

    def _limit(self, piece: Piece, output: Values) -> Given:
        return {"max_tokens": np.maximum(tokens(piece.source, piece["limit"]), output)}


def spans_of(piece: Piece, prompt: NDArray[np.int32], block_tokens: int) -> Given:
    """``{"spans": …}`` of a column of hash ids; empty without one."""
    if "hashes" not in piece:
        return {}
    ids, counts = split_ids(piece.source, piece["hashes"])
    return {"spans": hash_spans(piece.source, piece["hashes"].name, ids, counts, prompt, block_tokens)}


def plain_rows(
    trace: Trace, path: Path, wanted: Wanted, *, unit_s: float = 1.0, optional: Wanted | None = None, block_tokens: int = 512,
    harmless: tuple[str, ...] = (),
) -> Iterator[RequestBlock]:  # fmt: skip
    """Blocks of a CSV file whose rows are requests: ``arrival, prompt, output`` and what of `OPTIONAL` and ``hashes`` is there."""
    rows = Rows(trace, path, Clock(unit_s), harmless=harmless)
    more = {k: v for k, v in OPTIONAL.items() if k not in wanted} | dict(optional or {})
    for piece in csv_pieces(path, wanted, more, text=("hashes",)):
        prompt, output = tokens(piece.source, piece["prompt"]), tokens(piece.source, piece["output"])
        arrival = rows.clock.arrivals(piece.source, piece["arrival"]) if "arrival" in piece else np.zeros(len(prompt))
        yield rows.block(piece, arrival, prompt, output, **spans_of(piece, prompt, block_tokens))
