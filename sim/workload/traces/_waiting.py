"""Rows of a trace that wait for the answers to others, by the names that the file gives them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.ledger import Values
from sim.workload.table import RequestBlock
from sim.workload.waits import Waits

_ALONE = "has no time stamp, and nothing above it that it waits for"


def _floats() -> array[float]:
    return array("d")


def _integers() -> array[int]:
    return array("q")


@dataclass
class WaitingRows:
    """Grows row by row, or piece by piece, in the order of the file; a row can wait only for rows above it."""

    starts: array[float] = field(default_factory=_floats)
    """When the first of those that a row waits for arrives: it cannot be sent before."""
    waits: array[float] = field(default_factory=_floats)
    counts: array[int] = field(default_factory=_integers)
    """For how many others each row waits; ``parents``: which, row after row."""
    parents: array[int] = field(default_factory=_integers)
    _named: dict[object, int] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)

    def add(
        self,
        at: float | None,
        wait: float | None,
        session: int = -1,
        name: object = None,
        wait_for: Sequence[object] | None = None,
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
            return _ALONE
        start = max(self.starts[k] for k in after) if after else at
        assert start is not None
        self.starts.append(start)
        self.waits.append(float("nan") if not after else (wait or 0.0))
        self.counts.append(len(after))
        self.parents.extend(after)
        if name is not None:
            self._named[name] = row
        if session >= 0:
            self._last[session] = row
        return ""

    def add_all(
        self, at: NDArray[np.float64], wait: NDArray[np.float64], session: NDArray[np.int64], names: Values | None = None
    ) -> tuple[int, str]:
        """Rows [n] of which none names others, as `add` would one by one; NaN: not given. Returns the first wrong one, and why (empty: none)."""
        first, n = len(self.starts), len(at)
        order = np.argsort(session, kind="stable")
        sorted_session = session[order]
        begins = np.flatnonzero(np.diff(sorted_session, prepend=sorted_session[:1] - 1))
        before = np.empty(n, np.int64)  # the row of the session before this one, of the whole file; −1: none
        before[order] = np.concatenate([[-1], first + order[:-1]])
        before[order[begins]] = [self._last.get(int(s), -1) for s in sorted_session[begins]]
        before[session < 0] = -1
        follows = (before >= 0) & (np.isnan(at) | ~np.isnan(wait))
        alone = ~follows & np.isnan(at)
        if alone.any():
            return int(np.argmax(alone)), _ALONE
        started = np.where(follows, np.nan, at)
        outside = follows & (before < first)
        started[outside] = np.frombuffer(self.starts)[before[outside]] if outside.any() else 0.0
        known = np.where(np.isnan(started[order]), 0, np.arange(n))  # a follower starts with the last one known in its session
        started = started[order][np.maximum.accumulate(known)][np.argsort(order, kind="stable")]
        self.starts.frombytes(started.tobytes())
        self.waits.frombytes(np.where(follows, np.nan_to_num(wait), np.nan).tobytes())
        self.counts.frombytes(follows.astype(np.int64).tobytes())
        self.parents.frombytes(before[follows].tobytes())
        ends = np.append(begins[1:], n) - 1
        self._last.update(zip(sorted_session[begins].tolist(), (first + order[ends]).tolist(), strict=True))
        self._last.pop(-1, None)
        if names is not None:
            self._named.update((name, first + k) for k, name in enumerate(names.tolist()) if name is not None)
        return -1, ""

    def attach(self, block: RequestBlock) -> RequestBlock:
        """The rows of the file in one block, with who waits for whom."""
        off = np.concatenate([[0], np.cumsum(np.array(self.counts, np.int64))]).astype(np.int64)
        flat = np.array(self.parents, np.int64)
        block.arrival_s = np.array(self.starts)
        if len(flat):
            awaited = np.bincount(flat, minlength=len(block)).astype(np.int32)
            block.waits = Waits(np.array(self.waits), awaited, off, block.out_content[flat])
        return block
