# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Prompts or decodes: ``Scheduler::DecidePDPriority``, the stage policies, and when an idle thread looks again."""

import numpy as np

from sim.engine.outline import outlined
from sim.engine.schedulers.mindie.blocks import blocks_for, length
from sim.engine.schedulers.mindie.predict import predict_decode, predict_prefill
from sim.engine.schedulers.mindie.state import (
    CAP,
    COMP,
    DECODE,
    LATENCY,
    MIXED,
    PND,
    PREFILL,
    ROLE_D,
    ROLE_P,
    THROUGHPUT,
    MindieState,
)
from sim.engine.state import INF
from sim.jit import inline

F = np.float32


@inline
def _prefill_is_due(s):
    """``ShouldImmediatePrefill``: a full batch (only with a raised delay), or the oldest has waited long enough."""
    if s.w_len == 0:
        return False
    if s.long_delay and s.w_len >= s.mpb:
        return True
    return s.now - s.r_arrival[s.w_slot[s.w_head]] >= s.delay


@outlined(MindieState)
def _least_laxity(s):
    """``LatencyStagePolicy``: the phase that can least afford to wait, by predicted durations; 32-bit numbers, as there."""
    if s.n_run == 0:
        return PREFILL
    if s.w_len == 0 or s.mpb == 0:
        return DECODE
    x = s.x
    tokens = 0
    for i in range(min(s.w_len, s.mb)):
        slot = s.w_slot[(s.w_head + i) % s.w_slot.size]
        tokens += np.int64(s.r_prompt[slot]) + s.r_done[slot] - x[slot, COMP]
    blocks = 0
    n = min(s.n_run, s.mb)
    for i in range(n):
        e = np.int64(s.run[i])
        if e >= 0:
            blocks += x[e, CAP] // s.block_size
        else:
            blocks += s.r_count[-1 - e] if s.caching else -1 - e
    rows = n + min(s.n_swap, s.mb)
    for i in range(min(s.n_swap, s.mb)):
        blocks += blocks_for(s, length(s, s.swap[i]))
    wait = F(int((s.now - s.r_arrival[s.w_slot[s.w_head]]) / s.ms + 1e-6))
    prefill = F(0.0)
    target = F(s.prefill_target)
    if abs(target) >= F(1e-6):
        prefill = F(F(F(target - wait) - F(predict_prefill(s, tokens))) / target)
    decode = F(0.0)
    target = F(s.decode_target)
    if abs(target) >= F(1e-6):
        decode = F(F(target - F(predict_decode(s, rows, blocks))) / target)
    return PREFILL if prefill < decode else DECODE


@inline
def _throughput(s):
    """``TptStagePolicy``: prompts once the seats left empty have cost more than a pause of the running requests would."""
    if s.w_len == 0:
        s.waste = 0
        return DECODE
    if s.n_run <= s.mb:
        s.waste += s.decode_ms * (s.mb - s.n_run)
    if s.prefill_ms * s.n_run > s.waste:
        return DECODE
    s.waste = 0
    return PREFILL


@inline
def choose(s):
    """Mode of the round that begins now."""
    if s.chunked:
        return MIXED
    if s.role == ROLE_P:
        return PREFILL
    if s.role == ROLE_D or (s.empty and s.n_run > 0):
        return DECODE
    if s.policy == THROUGHPUT:
        return _throughput(s)
    if s.policy == LATENCY:
        return _least_laxity(s)
    if s.n_swap > 0 or not _prefill_is_due(s) or s.free_blocks < s.reserve:
        return DECODE
    return PREFILL


@outlined(MindieState)
def next_look(s):
    """After an empty round the thread sleeps a millisecond and looks again. 1: it looks now; 0: not yet, and ``s.wake`` is set.

    Looks of an idle engine that could only find nothing are skipped; they are counted when a later one is taken.
    """
    ms = s.ms
    base = s.poll_base
    k = s.poll + 1
    if base + k * ms < s.now:
        k += int((s.now - (base + k * ms)) / ms)
        while base + k * ms < s.now:
            k += 1
        while k > s.poll + 1 and base + (k - 1) * ms >= s.now:
            k -= 1
    if s.n_run == 0 and s.n_swap == 0:
        if s.w_len == 0:
            s.waste = 0
            s.wake = INF
            return 0
        waits = s.policy == 0 and not s.chunked and s.role == PND and not (s.dynamic and s.mpb == 0)
        if waits and not (s.long_delay and s.w_len >= s.mpb):
            first = s.r_arrival[s.w_slot[s.w_head]]
            due = int((first + s.delay - base) / ms)
            while base + due * ms - first < s.delay:
                due += 1
            while due > k and base + (due - 1) * ms - first >= s.delay:
                due -= 1
            k = max(k, due)
    if base + k * ms > s.now:
        s.wake = base + k * ms
        return 0
    s.empties += k - s.poll - 1
    s.poll = k
    return 1
