# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""One tier: blocks by hash, least recently used first, and a lane of transfers in each direction.

It evicts what it must to take something in, unless `set_rules` says otherwise: a store that never evicts, or one that evicts a share of all it
has when it fills up, and keeps what was just read.
"""

from typing import Final

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.probing import close_gap
from sim.engine.state import grown
from sim.jit import f8, f8s, i4s, i8, i8s, inline, kernel, new, struct

READ: Final = 0  # towards the accelerator
WRITE: Final = 1
_FIRST: Final = 256


@struct
class Tier:
    """Entry 0 is the sentinel of the list, in which the front was used least recently. Keys are 64-bit hashes, never 0. Times in seconds."""

    total: i8  # blocks there is room for
    used: i8
    evicted: i8
    mask: i8
    key: i8s
    before: i4s
    after: i4s
    ready: f8s  # from when on its content is there
    busy: f8s  # until then a transfer reads it
    mark: i8s  # number of the last store that named it
    marks: i8
    n_spare: i8
    spare: i4s
    table: i4s  # open addressing, 0: empty
    lane: f8s  # [direction]: when it is free
    rate: f8s  # [direction]: seconds per block
    latency: f8
    high: i8  # blocks above which it evicts
    step: i8  # blocks it evicts at once, at least; −1: it never evicts
    lease: f8  # seconds for which what was read stays


@kernel
def new_tier(blocks, read_s, write_s, latency):
    """An empty tier for ``blocks``; a block takes ``read_s`` and ``write_s``, a transfer ``latency`` besides."""
    t = new(Tier)
    t.total = blocks
    t.rate = np.array([read_s, write_s])
    t.latency = latency
    t.lane = np.zeros(2)
    t.marks = 0
    t.evicted = 0
    set_rules(t, blocks, 0, 0.0)
    clear_tier(t)
    return t


@inline
def set_rules(t, high, step, lease):
    """When it evicts: above ``high`` blocks, at least ``step`` at once (−1: never), nothing that was read within ``lease`` seconds."""
    t.high = high
    t.step = step
    t.lease = lease


@kernel
def clear_tier(t):
    """Forget every block; transfers under way go on."""
    n = min(t.total + 1, _FIRST)
    t.used = 0
    t.key = np.zeros(n, np.int64)
    t.before = np.zeros(n, np.int32)
    t.after = np.zeros(n, np.int32)
    t.ready = np.zeros(n)
    t.busy = np.zeros(n)
    t.mark = np.zeros(n, np.int64)
    t.spare = np.empty(n, np.int32)
    for i in range(n - 1):
        t.spare[i] = n - 1 - i
    t.n_spare = n - 1
    size = 8
    while size < 2 * n:
        size *= 2
    t.mask = size - 1
    t.table = np.zeros(size, np.int32)


@kernel
def _more_entries(t):
    """Double the entries."""
    own = keep(t)
    old = t.key.size
    n = min(2 * old, t.total + 1)
    own.key = grown(t.key, n)
    own.before = grown(t.before, n)
    own.after = grown(t.after, n)
    own.ready = grown(t.ready, n)
    own.busy = grown(t.busy, n)
    own.mark = grown(t.mark, n)
    own.spare = np.empty(n, np.int32)
    for i in range(n - old):
        t.spare[i] = n - 1 - i
    t.n_spare = n - old
    size = t.table.size
    while size < 2 * n:
        size *= 2
    t.mask = size - 1
    own.table = np.zeros(size, np.int32)
    e = t.after[0]
    while e != 0:
        i = t.key[e] & t.mask
        while t.table[i] != 0:
            i = (i + 1) & t.mask
        t.table[i] = e
        e = t.after[e]


@inline
def find_block(t, key):
    """The entry with this hash, 0: none."""
    i = key & t.mask
    while True:
        e = t.table[i]
        if e == 0 or t.key[e] == key:
            return np.int64(e)
        i = (i + 1) & t.mask


@inline
def _link_last(t, e):
    last = t.before[0]
    t.after[last] = e
    t.before[e] = last
    t.after[e] = 0
    t.before[0] = e


@inline
def _unlink(t, e):
    a, b = t.before[e], t.after[e]
    t.after[a] = b
    t.before[b] = a


@inline
def touch_entry(t, e):
    """Used just now."""
    _unlink(t, e)
    _link_last(t, e)


@inline
def _forget(t, e):
    _unlink(t, e)
    mask = t.mask
    i = t.key[e] & mask
    while t.table[i] != e:
        i = (i + 1) & mask
    close_gap(t.table, t.key, i, 0)
    t.key[e] = 0
    t.spare[t.n_spare] = e
    t.n_spare += 1
    t.used -= 1
    t.evicted += 1


@kernel
def make_room_for(t, need, now):
    """Evict until ``need`` blocks fit (`set_rules`), those used least recently first; False, and nothing evicted, if too many are in use.

    Blocks on their way in or out stay, and so do those with the mark of the store under way (``t.marks``).
    """
    lack = need - (t.total - t.used)
    want = t.used + need - min(t.high, t.total)
    if want <= 0:
        return True
    if t.step < 0:
        return lack <= 0
    want = max(max(want, lack), t.step)
    found = 0
    e = t.after[0]
    while e != 0 and found < want:
        if t.ready[e] <= now and t.busy[e] <= now and t.mark[e] != t.marks:
            found += 1
        e = t.after[e]
    if found < lack:
        return False
    e = t.after[0]
    while found > 0:
        follower = t.after[e]
        if t.ready[e] <= now and t.busy[e] <= now and t.mark[e] != t.marks:
            _forget(t, e)
            found -= 1
        e = follower
    return True


@inline
def put_block_in(t, key, ready):
    """A new block, for which there is room, as the one used last; returns its entry."""
    if t.n_spare == 0:
        _more_entries(t)
    t.n_spare -= 1
    e = np.int64(t.spare[t.n_spare])
    t.key[e] = key
    t.ready[e] = ready
    t.busy[e] = 0.0
    t.mark[e] = t.marks
    i = key & t.mask
    while t.table[i] != 0:
        i = (i + 1) & t.mask
    t.table[i] = e
    _link_last(t, e)
    t.used += 1
    return e


@inline
def transfer(t, direction, start, blocks):
    """Queue ``blocks`` on a lane, not before ``start``; returns when they are through."""
    end = max(start, t.lane[direction]) + t.latency + blocks * t.rate[direction]
    t.lane[direction] = end
    return end
