"""Rows of a trace that wait for the answers to others, by the names that the file gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.workload.table import RequestBlock
from sim.workload.waits import Waits


@dataclass
class WaitingRows:
    """Grows row by row, in the order of the file; a row can wait only for rows above it."""

    starts: list[float] = field(default_factory=list)
    """When the first of those that a row waits for arrives: it cannot be sent before."""
    waits: list[float] = field(default_factory=list)
    parents: list[Sequence[int]] = field(default_factory=list)
    _named: dict[Any, int] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)

    def add(
        self, at: float | None, wait: float | None, session: int = -1, name: Any = None, wait_for: Sequence[Any] | None = None
    ) -> str:
        """A row that is sent ``at`` (s), or ``wait`` seconds after the answers to ``wait_for``, or else to the row of its session before it.

        Returns what is wrong with it; empty: nothing.
        """
        row = len(self.starts)
        after: list[int] = []
        for other in wait_for or ():
            if other not in self._named:
                return f"waits for {other!r}, which is no request above it"
            after.append(self._named[other])
        if not after and (wait is not None or at is None) and session >= 0 and session in self._last:
            after = [self._last[session]]
        if not after and at is None:
            return "has no time stamp, and nothing above it that it waits for"
        start = max(self.starts[k] for k in after) if after else at
        assert start is not None
        self.starts.append(start)
        self.waits.append(float("nan") if not after else (wait or 0.0))
        self.parents.append(after)
        if name is not None:
            self._named[name] = row
        if session >= 0:
            self._last[session] = row
        return ""

    def attach(self, block: RequestBlock) -> RequestBlock:
        """The rows of the file in one block, with who waits for whom."""
        off = np.concatenate([[0], np.cumsum([len(p) for p in self.parents])]).astype(np.int64)
        flat = np.array([k for p in self.parents for k in p], np.int64)
        block.arrival_s = np.array(self.starts)
        if len(flat):
            awaited = np.bincount(flat, minlength=len(block)).astype(np.int32)
            block.waits = Waits(np.array(self.waits), awaited, off, block.out_content[flat])
        return block
