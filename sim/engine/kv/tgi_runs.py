# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Which blocks are where, for replays that compare block identities.

Only counts decide anything, so the allocator merely notes how blocks move between its lists (the free list, those of requests, those of
cached prompts), and only where ``k.track`` asks for it; `BlockLists` follows the notes in plain Python.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.engine.borrow import keep
from sim.engine.state import grown
from sim.jit import inline, kernel

if TYPE_CHECKING:
    from sim.engine.kv.tgi_blocks import TgiBlocks

# typed, as a plain constant makes Numba compile its callee once more for each value
FREE_LIST: Final = np.int64(0)
TEMP_LIST: Final = np.int64(2)
NOWHERE: Final = np.int64(-1)
ALL: Final = np.int64(-1)
COPY: Final = np.int64(-2)  # added to −count: copy instead of moving


@kernel
def _grow_notes(k):
    own = keep(k)
    own.notes = grown(k.notes, 2 * k.notes.size)


@inline
def move(k, of, n, to):
    """Note that the first ``n`` blocks (`ALL`; −2−n: a copy of n) of one list go to the end of another (`NOWHERE`: are forgotten)."""
    if k.notes.size < k.n_notes + 3:
        _grow_notes(k)
    k.notes[k.n_notes] = of
    k.notes[k.n_notes + 1] = n
    k.notes[k.n_notes + 2] = to
    k.n_notes += 3


@kernel
def clear_notes(k):
    """Forget the notes taken so far."""
    k.n_notes = 0


class BlockLists:
    """Lists of block runs [first block, count], kept up to date by the allocator's notes."""

    def __init__(self, total: int) -> None:
        self._lists: dict[int, deque[list[int]]] = {int(FREE_LIST): deque([[1, total]] if total > 0 else [])}

    def of(self, which: int) -> list[list[int]]:
        """Runs of a list."""
        return [list(run) for run in self._lists.get(which, ())]

    def follow(self, kv: "TgiBlocks") -> None:
        """Do what has been noted since the last call."""
        notes = kv.notes[: kv.n_notes].tolist()
        clear_notes(kv)
        for i in range(0, len(notes), 3):
            self._move(*notes[i : i + 3])

    def _move(self, of: int, n: int, to: int) -> None:
        source = self._lists.setdefault(of, deque())
        target = self._lists.setdefault(to, deque()) if to >= 0 else deque()
        if n <= COPY:
            source, n = deque(list(run) for run in source), int(COPY) - n
        left = sum(count for _, count in source) if n == ALL else n
        while left > 0:
            run = source[0]
            m = min(left, run[1])
            if target and target[-1][0] + target[-1][1] == run[0]:
                target[-1][1] += m
            else:
                target.append([run[0], m])
            if m == run[1]:
                source.popleft()
            else:
                run[0] += m
                run[1] -= m
            left -= m
