# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Lists of blocks as linked runs (first block, count): the free list, the blocks of requests, the blocks of cached prompts.

For replays that compare block identities. ``k`` is a `sim.engine.kv.tgi_blocks.TgiBlocks` with ``track``.
"""

from typing import Final

import numpy as np

from sim.engine.state import grown
from sim.jit import inline, kernel

# typed, as a plain constant makes Numba compile its callee once more for each value
FREE_LIST: Final = np.int64(0)
TEMP_LIST: Final = np.int64(2)
NOWHERE: Final = np.int64(-1)


@kernel
def grow_lists(k, n):
    """Room for ``n`` lists."""
    old = k.l_head.size
    if n > old:
        head = np.full(n, -1, np.int64)
        tail = np.full(n, -1, np.int64)
        for i in range(old):
            head[i] = k.l_head[i]
            tail[i] = k.l_tail[i]
        k.l_head = head
        k.l_tail = tail


@kernel
def _append(k, to, start, count):
    """Add blocks ``start`` … ``start + count − 1`` at the end, merged with the last run where they continue it."""
    tail = k.l_tail[to]
    if tail >= 0 and k.x_start[tail] + k.x_len[tail] == start:
        k.x_len[tail] += count
        return
    x = k.x_spare
    if x >= 0:
        k.x_spare = k.x_next[x]
    else:
        x = k.x_top
        if x == k.x_start.size:
            k.x_start = grown(k.x_start, 2 * x)
            k.x_len = grown(k.x_len, 2 * x)
            k.x_next = grown(k.x_next, 2 * x)
        k.x_top = x + 1
    k.x_start[x] = start
    k.x_len[x] = count
    k.x_next[x] = -1
    if tail >= 0:
        k.x_next[tail] = x
    else:
        k.l_head[to] = x
    k.l_tail[to] = x


@kernel
def move_front(k, of, n, to):
    """Move the first ``n`` blocks of one list to the end of another (``to`` < 0: drop them)."""
    while n > 0:
        x = k.l_head[of]
        m = min(n, k.x_len[x])
        start = k.x_start[x]
        if m == k.x_len[x]:
            k.l_head[of] = k.x_next[x]
            if k.l_head[of] < 0:
                k.l_tail[of] = -1
            k.x_next[x] = k.x_spare
            k.x_spare = x
        else:
            k.x_start[x] += m
            k.x_len[x] -= m
        if to >= 0:
            _append(k, to, start, m)
        n -= m


@kernel
def move_all(k, of, to):
    """Move everything to the end of another list."""
    while k.l_head[of] >= 0:
        move_front(k, of, k.x_len[k.l_head[of]], to)


@inline
def drop_front(k, of, n):
    """Forget the first ``n`` blocks of a list (they live on in another)."""
    move_front(k, of, n, NOWHERE)


@kernel
def copy_front(k, of, n, to):
    """Copy the first ``n`` blocks of one list to the end of another."""
    x = k.l_head[of]
    while n > 0:
        m = min(n, k.x_len[x])
        _append(k, to, k.x_start[x], m)
        n -= m
        x = k.x_next[x]
