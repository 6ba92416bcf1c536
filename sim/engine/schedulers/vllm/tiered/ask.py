# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What is asked for: how much of a waiting request lies in the tiers beyond what the accelerator has, and the transfers that bring it.

Native: one load per request, beside other requests' steps; the request waits for it. LMCache: the step that takes the request in loads first; with
``enable_async_loading`` it loads from host memory only, into which disks and remote stores are read before, while the request waits.
*Source*: vLLM ``…/v1/offloading/scheduler.py: get_num_new_matched_tokens, update_state_after_alloc``; LMCache
``integration/vllm/vllm_v1_adapter.py``, ``v1/cache_engine.py: retrieve``, ``v1/storage_backend/storage_manager.py: async_lookup_and_prefetch``.
"""

import numpy as np

from sim.engine.hand_over import tell_at
from sim.engine.schedulers.vllm.memory import ZERO, keys_up_to
from sim.engine.schedulers.vllm.seam import LATER
from sim.engine.schedulers.vllm.state import KNOWN
from sim.engine.tiers.counts import ASKED, BLOCKS_READ, DEVICE, HIT, LATE, LOADS, LONGEST, PER_TIER, TIER, WAITED
from sim.engine.tiers.tier import READ, find_block, make_room_for, put_block_in, touch_entry, transfer
from sim.jit import inline


@inline
def _all_keys(s, slot):
    """Hashes of all whole blocks of a request in ``s.keys``; returns how many units they make."""
    n = np.int64(s.r_x[slot, KNOWN]) // s.block_size
    keys_up_to(s, slot, n)
    return n // s.unit


@inline
def _key(s, j):
    return s.keys[(j + 1) * s.unit - 1]


@inline
def _found_natively(s, slot, c):
    n = _all_keys(s, slot)
    t = s.cpu
    for j in range(n - 1, -1, -1):  # the first units are the ones used last
        e = find_block(t, _key(s, j))
        if e != 0:
            touch_entry(t, e)
    size = s.block_size * s.unit
    first = c // size
    end = first
    while end < n:
        e = find_block(t, _key(s, end))
        if e == 0:
            break
        if t.busy[e] > s.now:  # another request loads it: soon it will be on the accelerator
            return LATER
        end += 1
    ext = end * size - c
    if ext < size:
        return ZERO
    return LATER if s.in_n >= s.max_run else ext


@inline
def _look_up(s, slot):
    """Units from the first on that some medium has, each where it is found first (``s.found``)."""
    n = _all_keys(s, slot)
    hits = np.int64(0)
    while hits < n:
        key = _key(s, hits)
        e = find_block(s.cpu, key)
        k = 0
        if e != 0 and s.cpu.ready[e] <= s.now:
            touch_entry(s.cpu, e)
        else:
            k = 1
            e = find_block(s.disk, key)
            if e != 0 and s.disk.ready[e] <= s.now:
                touch_entry(s.disk, e)
            else:
                k = 2
                e = find_block(s.remote, key)
                if e == 0 or s.remote.ready[e] > s.now:
                    break
                touch_entry(s.remote, e)
                s.remote.busy[e] = max(s.remote.busy[e], s.now + s.remote.lease)
        s.found[hits] = k
        hits += 1
    s.n_found = hits


@inline
def _promote(s, key, there):
    """What came from disk or from afar stays in host memory, if there is room."""
    if s.keeps_cpu and s.cpu.total > 0 and find_block(s.cpu, key) == 0 and make_room_for(s.cpu, np.int64(1), s.now):
        put_block_in(s.cpu, key, there)


@inline
def _reads_from(s, first, reads):
    """How many of the units found from ``first`` on lie in each medium."""
    for j in range(first, s.n_found):
        reads[s.found[j]] += 1


@inline
def _read_in(s, reads, start):
    """Disks and remote stores are read one after the other; returns when all is in host memory."""
    t = start
    if reads[1] > 0:
        t = transfer(s.disk, READ, t, reads[1])
    if reads[2] > 0:
        t = transfer(s.remote, READ, t, reads[2])
    return t


@inline
def _fetch_ahead(s, slot, c):
    """``async_lookup_and_prefetch``: asked once; what is found comes into host memory and stays for the request. False: it is not there yet."""
    ahead = s.r_ahead
    if ahead[slot, 0] == 0.0:
        _look_up(s, slot)
        size = s.block_size * s.unit
        first = c // size
        reads = np.zeros(3, np.int64)
        _reads_from(s, first, reads)
        there = _read_in(s, reads, s.now)
        ahead[slot, 0] = max(there, 1e-300)
        if there > s.now:  # among what is on its way, so that the core looks again when it has come
            s.in_slot_x[s.in_n] = slot
            s.in_time[s.in_n] = there
            s.in_n += 1
            tell_at(s, there)
        ahead[slot, 1] = s.n_found
        for k in range(1, 3):
            s.tc[TIER + PER_TIER * k + BLOCKS_READ] += reads[k]
            ahead[slot, 1 + k] = reads[k] * size
        for j in range(first, s.n_found):
            if s.found[j] > 0:
                _promote(s, _key(s, j), ahead[slot, 0])
    if ahead[slot, 0] > s.now:
        return False
    s.n_found = np.int64(ahead[slot, 1])
    return True


@inline
def _found_by_lmcache(s, slot, c):
    if not s.ahead:
        _look_up(s, slot)
    elif not _fetch_ahead(s, slot, c):
        return LATER
    hits = s.n_found
    have = hits * s.block_size * s.unit
    if have == s.r_x[slot, KNOWN]:
        have -= 1  # one token is computed
    s.at_once = max(have - c, ZERO)
    return ZERO


def outside_tiered(s, slot, c):
    """See `sim.engine.schedulers.vllm.seam.outside`."""
    if s.r_preempt[slot] > 0 and not s.reloads:
        return ZERO
    if s.with_step:
        return _found_by_lmcache(s, slot, c)
    return _found_natively(s, slot, c)


@inline
def _starts(s):
    """When the step being planned begins to execute."""
    return max(s.now, s.stage_free[0])


@inline
def _count_load(s, wait):
    s.tc[LOADS] += 1.0
    s.tc[WAITED] += wait
    s.tc[LONGEST] = max(s.tc[LONGEST], wait)
    if wait > s.late:
        s.tc[LATE] += 1.0


def comes_at_tiered(s, slot, c, ext):
    """See `sim.engine.schedulers.vllm.seam.comes_at`: behind what is on the lane already, and behind the store of what is to be loaded."""
    size = s.block_size * s.unit
    first, end = c // size, (c + ext) // size
    t = s.cpu
    start = _starts(s)
    for j in range(first, end):
        start = max(start, t.ready[find_block(t, _key(s, j))])
    through = transfer(t, READ, start, end - first)
    for j in range(first, end):
        t.busy[find_block(t, _key(s, j))] = through
    s.tc[TIER + BLOCKS_READ] += end - first
    s.tc[TIER + HIT] += ext
    _count_load(s, through - s.now)
    return through


@inline
def _load_with_step(s, c):
    """LMCache: the step reads what lies on disks and afar, one after the other, then copies all of it to the accelerator."""
    size = s.block_size * s.unit
    first = c // size
    start = _starts(s)
    reads = np.zeros(3, np.int64)
    _reads_from(s, first, reads)
    rest = s.at_once
    for j in range(first, s.n_found):
        k = s.found[j]
        got = min(rest, (j + 1) * size - max(c, j * size))
        rest -= got
        s.tc[TIER + PER_TIER * k + HIT] += got
        if k > 0:
            _promote(s, _key(s, j), s.now)
    t = transfer(s.cpu, READ, _read_in(s, reads, start), s.n_found - first)
    for k in range(3):
        s.tc[TIER + PER_TIER * k + BLOCKS_READ] += reads[k]
    s.step_until = max(s.step_until, t)
    _count_load(s, t - start)


@inline
def _load_fetched(s, slot, c):
    """What was fetched before is copied to the accelerator; it was found where it came from."""
    ahead = s.r_ahead
    start = _starts(s)
    units = s.n_found - c // (s.block_size * s.unit)
    t = transfer(s.cpu, READ, start, units)
    rest = np.float64(s.at_once)
    for k in range(1, 3):
        got = min(rest, ahead[slot, 1 + k])
        rest -= got
        s.tc[TIER + PER_TIER * k + HIT] += got
    s.tc[TIER + HIT] += rest
    elsewhere = np.int64(ahead[slot, 2] + ahead[slot, 3]) // (s.block_size * s.unit)
    s.tc[TIER + BLOCKS_READ] += max(units - elsewhere, ZERO)
    s.step_until = max(s.step_until, t)
    _count_load(s, t - start)


@inline
def taken_in(s, slot, had):
    """A request whose prefix was looked up has its memory; ``had`` blocks were on the accelerator."""
    c = had * s.block_size
    s.tc[ASKED] += s.r_x[slot, KNOWN]
    s.tc[DEVICE] += c
    if s.at_once > 0:
        if s.ahead:
            _load_fetched(s, slot, c)
        else:
            _load_with_step(s, c)
    s.r_ahead[slot, 0] = 0.0
