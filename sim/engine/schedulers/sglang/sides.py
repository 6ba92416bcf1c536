# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Prefill and decode side of a disaggregated deployment (``disaggregation/prefill.py``, ``disaggregation/decode.py``).

Prefill side: admission as ever with one output token; the KV of a computed prompt is held until it has been read. Decode side, in this order
on each pass (``process_decode_queue``): retracted requests come back from host memory; if none is left, waiting requests get memory
(``pop_preallocated``), then those whose KV has arrived are taken in; they join the running batch without a forward pass.

Assumed: handshake and copies to and from host memory take no time. One thing differs: upstream never polls transfers while a retracted
request waits, here it does once nothing runs (or nothing would ever happen again). Read from the source, not checked against recordings.
"""

from typing import Final

from sim.engine.hand_over import tell_at
from sim.engine.outline import outlined
from sim.engine.rows import without_pair
from sim.engine.schedulers.sglang.memory import release
from sim.engine.schedulers.sglang.state import CLIP_MAX_NEW, SglangState, ceil_page, total_len
from sim.engine.state import INF, free_slot, note_allocated, record_end
from sim.jit import inline
from sim.ledger import FAILED

ALONE: Final = 0
PREFILL_SIDE: Final = 1
DECODE_SIDE: Final = 2


# -- prefill side


@inline
def keep(s, slot):
    """The prompt is computed; its KV stays until somebody has read it."""
    s.k_slot[s.n_kept] = slot
    s.k_time[s.n_kept] = INF
    s.n_kept += 1


@outlined(SglangState)
def release_read(s):
    """``process_disagg_prefill_inflight_queue``: give up the KV that has been read by now; it stays in the cache."""
    m = 0
    s.horizon = INF
    for i in range(s.n_kept):
        slot, t = s.k_slot[i], s.k_time[i]
        if t <= s.now:
            release(s, slot, 1)
            free_slot(s, slot)
        else:
            s.k_slot[m] = slot
            s.k_time[m] = t
            tell_at(s, t)
            m += 1
    s.n_kept = m
    return 0


def release_kept(s, slot, t):
    """See `sim.engine.hand_over`; so with the others."""
    for i in range(s.n_kept):
        if s.k_slot[i] == slot:
            s.k_time[i] = t
    tell_at(s, t)


# -- decode side


@inline
def _fill(s, slot):
    """Tokens whose KV there is, or is to come."""
    return s.r_prompt[slot] + max(s.r_done[slot] - 1, 0)


@inline
def _allocatable(s, single):
    """``_allocatable_token_budgets``, without retracted requests."""
    active = s.n_run + s.n_transfer + s.n_ready
    return s.tree.free - max(s.num_reserved * active, single)


@inline
def _allocate(s, slot):
    n = _fill(s, slot)
    s.r_com[slot] = n
    s.r_alloc[slot] = n
    s.tree.free -= ceil_page(s, n)
    s.r_row[slot] = 1
    s.rows_free -= 1


@outlined(SglangState)
def _resume(s):
    """``resume_retracted_reqs``: in order, as long as they fit."""
    k = 0
    while k < s.n_out and s.rows_free > 0:
        slot = s.out_slot[k]
        if _fill(s, slot) + s.num_reserved > _allocatable(s, 0):
            break
        _allocate(s, slot)
        s.r_retracted[slot] = 0
        s.ready[s.n_ready] = slot
        s.n_ready += 1
        k += 1
    if k > 0:
        for i in range(k, s.n_out):
            s.out_slot[i - k] = s.out_slot[i]
        s.n_out -= k
    return 0


@outlined(SglangState)
def _preallocate(s):
    """``pop_preallocated``: memory for waiting requests, first come first served; ``stuck``: as it is, time alone changes nothing."""
    held = 0  # retractable tokens
    for i in range(s.n_run):
        held += total_len(s, s.run[i])
    single = 0
    for i in range(s.n_run):
        x = s.run[i]
        need = min(s.r_max_new[x] + 0, CLIP_MAX_NEW) + s.r_prompt[x] - held
        single = need if i == 0 else max(single, need)
    s.stuck = True
    while s.w_hi > s.w_lo:
        if s.rows_free <= 0 or s.n_transfer >= 2 * s.max_running:
            break
        slot = s.w_slot[s.w_lo]
        room = _allocatable(s, single)
        need = _fill(s, slot) + s.num_reserved
        if max(need, s.r_prompt[slot] + min(s.r_max_new[slot] + 0, CLIP_MAX_NEW) - held) > room:
            s.stuck = need > room + s.n_run * s.page
            break
        _allocate(s, slot)
        s.t_slot[s.n_transfer] = slot
        s.t_time[s.n_transfer] = INF
        s.n_transfer += 1
        s.w_lo += 1
        note_allocated(s, slot, s.now, s.r_prompt[slot] + 0)
    if s.w_hi == s.w_lo:
        s.stuck = False  # whoever comes next may get it
    return 0


@outlined(SglangState)
def _take_transferred(s):
    m = 0
    for i in range(s.n_transfer):
        slot, t = s.t_slot[i], s.t_time[i]
        if t <= s.now:
            s.ready[s.n_ready] = slot
            s.n_ready += 1
        else:
            s.t_slot[m] = slot
            s.t_time[m] = t
            m += 1
    s.n_transfer = m
    return 0


@outlined(SglangState)
def decode_queues(s):
    """``process_decode_queue``."""
    _resume(s)
    if s.n_out == 0:
        _preallocate(s)
    else:
        s.stuck = True
    if s.n_out == 0 or s.n_run == 0:
        _take_transferred(s)
    s.horizon = INF
    for i in range(s.n_transfer):
        if s.t_time[i] > s.now:
            tell_at(s, s.t_time[i])
    return 0


def kv_arrived(s, slot, t, delivered):
    """The first token comes with it and is given out when the request is taken in."""
    for i in range(s.n_transfer):
        if s.t_slot[i] == slot:
            s.t_time[i] = t
    tell_at(s, t)


def drop_remote(s, slot, t):
    """The prefill side has refused it."""
    s.n_transfer = without_pair(s.t_slot, s.t_time, s.n_transfer, slot)
    release(s, slot, 0)
    record_end(s, slot, t, FAILED)
    free_slot(s, slot)
    tell_at(s, t)
