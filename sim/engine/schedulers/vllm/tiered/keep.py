# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What is kept: whole units that a step has computed are copied out of the accelerator.

Native offloading copies beside the steps that follow; LMCache within the step that computes them, and from host memory on to disk and remote store
beside others. *Source*: vLLM ``distributed/kv_transfer/kv_connector/v1/offloading/scheduler.py`` (``_get_reqs_to_store``), ``v1/kv_offload/cpu``;
LMCache ``v1/cache_engine.py: store``, ``v1/storage_backend/storage_manager.py: batched_put``.
"""

import numpy as np

from sim.engine.schedulers.vllm.state import ROW
from sim.engine.schedulers.vllm.tiered.state import more_pending
from sim.engine.tiers.counts import BLOCKS_SKIPPED, BLOCKS_WRITTEN, PER_TIER, TIER
from sim.engine.tiers.tier import WRITE, find_block, make_room_for, put_block_in, transfer
from sim.jit import inline, kernel


@inline
def _missing(s, t, first, end):
    """Units of the ring [first, end) that a tier does not have; those it has are protected from this store's evictions."""
    size = s.pe_key.size
    t.marks += 1
    n = np.int64(0)
    for i in range(first, end):
        e = find_block(t, s.pe_key[i % size])
        if e == 0:
            n += 1
        else:
            t.mark[e] = t.marks
    return n


@kernel
def _put(s, t, k, first, end, start, free):
    """Copy units [first, end) into tier ``k`` from ``start`` on; returns when they are there. ``free``: the step has waited for the copy already."""
    size = s.pe_key.size
    n = _missing(s, t, first, end)
    if n == 0:
        return start
    if n > t.total or not make_room_for(t, n, start):
        s.tc[TIER + PER_TIER * k + BLOCKS_SKIPPED] += n
        return start
    through = start if free else transfer(t, WRITE, start, n)
    s.tc[TIER + PER_TIER * k + BLOCKS_WRITTEN] += n
    for i in range(first, end):
        key = s.pe_key[i % size]
        if find_block(t, key) == 0:
            put_block_in(t, key, through)
    return through


@kernel
def store_units(s, upto):
    """Copy what the ring has up to ``upto``: computed by now. One store for each request."""
    size = s.pe_key.size
    while s.pe_first < upto:
        first = s.pe_first
        slot = s.pe_slot[first % size]
        end = first
        while end < upto and s.pe_slot[end % size] == slot:
            end += 1
        s.pe_first = end
        if not s.with_step:
            s.r_stored[slot] = max(s.r_stored[slot], _put(s, s.cpu, 0, first, end, s.now, False))
            continue
        if s.keeps_cpu:
            _put(s, s.cpu, 0, first, end, s.now, True)
        if s.disk.total > 0:
            _put(s, s.disk, 1, first, end, s.now, False)
        if s.remote.total > 0:
            _put(s, s.remote, 2, first, end, s.now, False)


@inline
def offer(s, slot, first, n):
    """Blocks [first, n) of a request are known by their hash: the units they complete are to be kept."""
    if not s.keeps_output:
        n = min(n, s.r_prompt[slot] // s.block_size)
    low, high = first // s.unit, n // s.unit
    if high <= low:
        return
    row = s.r_x[slot, ROW]
    for j in range(low, high):
        if s.pe_end - s.pe_first == s.pe_key.size:
            more_pending(s)
        at = s.pe_end % s.pe_key.size
        s.pe_key[at] = s.kv.e_key[s.held[row, (j + 1) * s.unit - 1]]
        s.pe_slot[at] = slot
        s.pe_end += 1
    if s.at_once_now and s.pe_end - s.pe_first == high - low:
        store_units(s, s.pe_end)


@inline
def saving(s, first):
    """Seconds in which the step being planned saves the units that it has put into the ring from ``first`` on."""
    size = s.pe_key.size
    n = np.int64(0)
    for i in range(first, s.pe_end):
        key = s.pe_key[i % size]
        if s.keeps_cpu:
            n += 1 if find_block(s.cpu, key) == 0 else 0
        elif s.disk.total > 0:
            n += 1 if find_block(s.disk, key) == 0 else 0
        else:
            n += 1 if find_block(s.remote, key) == 0 else 0
    return s.cpu.latency + n * s.cpu.rate[WRITE] if n > 0 else 0.0
