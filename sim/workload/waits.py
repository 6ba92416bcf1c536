"""Requests that wait for the answers to others: turns after turns, steps after tools, joins after fan-outs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Waits:
    """Who waits for whom in a block of ``n`` requests.

    A request with a ``wait_s`` is sent so many seconds after its client has the last of the answers to the requests that it names (by their
    ``out_content``); they come before it in the traffic. Its ``arrival_s`` is then that of the first request of its kind: never later than it can be.
    """

    wait_s: NDArray[np.float64]
    """f8[n]; NaN: it waits for nobody and is sent at its time."""
    awaited: NDArray[np.int32]
    """i4[n]: how many requests wait for the answer to this one."""
    off: NDArray[np.int64]
    """i8[n+1]: request i waits for ``key[off[i]:off[i+1]]``."""
    key: NDArray[np.int64]

    @classmethod
    def none(cls, n: int) -> Waits:
        """Nobody waits."""
        return cls(np.full(n, np.nan), np.zeros(n, np.int32), np.zeros(n + 1, np.int64), np.zeros(0, np.int64))

    @classmethod
    def concat(cls, parts: Sequence[Waits | None], rows: Sequence[int]) -> Waits | None:
        """Of blocks with so many ``rows``; None where nobody waits in any."""
        if all(p is None for p in parts):
            return None
        found = [cls.none(n) if p is None else p for p, n in zip(parts, rows, strict=True)]
        base = np.cumsum([0, *(len(p.key) for p in found)])
        off = np.concatenate([p.off[(i > 0) :] + at for i, (p, at) in enumerate(zip(found, base[:-1], strict=True))])
        joined = (np.concatenate([getattr(p, name) for p in found]) for name in ("wait_s", "awaited", "key"))
        wait, awaited, key = joined
        return cls(wait, awaited, off, key)

    def rows(self, lo: int, hi: int) -> Waits:
        """Of rows [lo, hi)."""
        a, b = self.off[lo], self.off[hi]
        return Waits(self.wait_s[lo:hi], self.awaited[lo:hi], self.off[lo : hi + 1] - a, self.key[a:b])

    def take(self, rows: NDArray[np.int64]) -> Waits:
        """Of the rows in that order."""
        count = np.diff(self.off)[rows]
        off = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        at = np.repeat(self.off[:-1][rows] - off[:-1], count) + np.arange(off[-1])
        return Waits(self.wait_s[rows], self.awaited[rows], off, self.key[at])

    def renamed(self, name: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Waits:
        """The same with other names of the requests."""
        return Waits(self.wait_s, self.awaited, self.off, name(self.key))
