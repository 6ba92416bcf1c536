"""The step loop that all schedulers share, and the door through which requests come in. Compiled once per scheduler.

An engine at time ``until`` has completed every step that ends at or before it and taken every decision strictly before it: an arrival at
the very time of a step boundary is seen by the decision taken at that boundary.
"""

from math import inf

import numpy as np

from sim.cost.features import DECODE_CTX, DECODE_ROWS, DECODE_TOKENS, PREFILL_TOKENS
from sim.cost.step import step_time
from sim.engine.contract import BATCH, NOTHING, apply_steady, complete, enqueue, grow, next_place, plan, steady_steps
from sim.engine.state import grow_columns, put_spans, record_gap, record_gauges, record_step
from sim.jit import inline, kernel

NAN = np.nan
_SURE = 0.75  # safety on the outlook: step times may fall by a quarter within a run before it is no lower bound


@inline
def _next_arrival(s):
    if s.in_len == 0:
        return inf
    return s.r_arrival[s.in_slot[s.in_head]]


@inline
def _ingest(s):
    while s.in_len > 0:
        slot = s.in_slot[s.in_head]
        if s.r_arrival[slot] > s.now:
            break
        s.in_head = (s.in_head + 1) % s.in_slot.size
        s.in_len -= 1
        enqueue(s, slot)


@inline
def _launch(s, p):
    """Start the batch in place ``p``: it passes the pipeline stages one after the other."""
    dt = step_time(s.cost, s.q_feat[p], s.rec.parts[s.replica])
    stages = s.stage_free.size
    t = s.now
    if stages == 1:
        t = max(t, s.stage_free[0])
        s.q_start[p] = t
        t += dt
        s.stage_free[0] = t
    else:
        share = dt // stages if s.cost.kind == 0 else dt / stages
        for k in range(stages):
            t = max(t, s.stage_free[k])
            if k == 0:
                s.q_start[p] = t
            t += share if k < stages - 1 else dt - share * (stages - 1)
            s.stage_free[k] = t
    s.q_end[p] = t
    if dt > 0.0:
        record_step(s, s.q_start[p], t, s.q_feat[p, DECODE_TOKENS], s.q_feat[p, PREFILL_TOKENS])
    s.q_len += 1


@inline
def _run_steady(s, k, until):
    """Execute up to ``k`` unchanged decode steps that complete by ``until``; returns how many."""
    places = s.q_rows.size
    last = (s.q_head + s.q_len - 1 + places) % places  # the batch in flight (depth 2) or the one just completed (depth 1)
    feat = s.q_feat[last]
    rows = feat[DECODE_ROWS]
    parts = s.scratch
    total = s.rec.parts[s.replica]
    arrival = _next_arrival(s)
    now = s.now
    start = now
    end = s.stage_free[0]
    done = 0
    while done < k and now < until and arrival > now:
        feat[DECODE_CTX] += rows
        parts[:] = 0.0
        next_start = max(now, end)
        next_end = next_start + step_time(s.cost, feat, parts)
        # this decision leads to the completion of its own batch (depth 1) or of the batch already in flight (depth 2)
        finish = next_end if s.depth == 1 else next_start
        if finish > until:
            feat[DECODE_CTX] -= rows
            break
        start, end = next_start, next_end
        for j in range(parts.size):
            total[j] += parts[j]
        record_step(s, start, end, rows, 0.0)
        record_gap(s.rec, finish - now, rows)
        now = finish
        done += 1
    if done > 0:
        s.stage_free[0] = end
        s.q_start[last] = start
        s.q_end[last] = end
        record_gauges(s, now)
        s.now = now
        apply_steady(s, done)
    return done


STOPPED = 0
PLANNED = 1
COMPLETED = 2
WOKEN = 3


@inline
def _turn(s, until, steady):
    """One event of the engine: a decision, a completion, or waking up. STOPPED if the next one lies beyond ``until``."""
    if s.at_plan:
        if s.now >= until:
            return STOPPED
        _ingest(s)
        k = steady_steps(s) if steady else 0
        s.hint = k
        if k > 1 and _run_steady(s, k, until) > 0:
            return COMPLETED
        code = plan(s)
        if code != NOTHING:
            _launch(s, next_place(s))
            if s.q_len < s.depth and (code == BATCH or s.more):
                return PLANNED
        s.at_plan = False
        return PLANNED
    if s.q_len > 0:
        p = s.q_head
        t = max(s.now, s.q_end[p])
        if t > until:
            return STOPPED
        record_gauges(s, t)
        s.now = t
        s.q_head = (p + 1) % s.q_rows.size
        s.q_len -= 1
        complete(s, p)
        s.at_plan = True
        return COMPLETED
    t = min(s.wake, _next_arrival(s))
    if t >= until:
        return STOPPED
    record_gauges(s, t)
    s.now = max(s.now, t)
    s.wake = inf
    s.at_plan = True
    return WOKEN


@kernel
def turn(s, until):
    """One event, for replays that look at every step: STOPPED, PLANNED, COMPLETED or WOKEN."""
    return _turn(s, until, False)


@kernel
def advance(s, until):
    """Run one engine up to ``until``. True if it stopped early because a watched request had an outcome at ``s.now``."""
    while True:
        if _turn(s, until, s.multi_step) == STOPPED:
            return False
        if s.rec.n_watched > 0:
            return True


@inline
def outlook(s):
    """A time before which surely no request finishes here and nothing is watched: lazy fleets leave the engine alone until then."""
    if s.at_plan:
        return s.now
    if s.q_len > 0:
        p = s.q_head
        t = max(s.now, s.q_end[p])
        if s.hint > 1:
            t += _SURE * (s.hint - 1) * (s.q_end[p] - s.q_start[p])
        return t
    return min(s.wake, _next_arrival(s))


@kernel
def submit(s, lo, hi, first_id, arrival, prompt, output, limit, priority, lora, out_content, watch, span_off, span_id, span_start, span_len):
    """Hand rows [lo, hi) of the arrays to one engine, in order of arrival, not earlier than any request it already has.

    Ids are ``first_id + row``. Returns the number of rows taken (all of them).
    """
    for i in range(lo, hi):
        if s.n_free == 0:
            grow_columns(s)
            grow(s, s.n_slots)
        s.n_free -= 1
        slot = s.free[s.n_free]
        s.live += 1
        s.r_id[slot] = first_id + i
        s.r_arrival[slot] = arrival[i]
        s.r_prompt[slot] = prompt[i]
        s.r_output[slot] = output[i]
        s.r_max[slot] = limit[i]
        s.r_priority[slot] = priority[i]
        s.r_lora[slot] = lora[i]
        s.r_out_content[slot] = out_content[i]
        s.r_watch[slot] = watch
        s.r_spans[slot] = 0
        if span_id.size > 0:
            put_spans(s, slot, span_id, span_start, span_len, span_off[i], span_off[i + 1])
        s.r_done[slot] = 0
        s.r_first_scheduled[slot] = NAN
        s.r_first_token[slot] = NAN
        s.r_last_token[slot] = NAN
        s.r_cached[slot] = 0
        s.r_preempt[slot] = 0
        _to_inbox(s, slot)
        s.rec.outstanding[s.replica] += 1
    return hi - lo


@inline
def _to_inbox(s, slot):
    n = s.in_slot.size
    if s.in_len == n:
        bigger = np.empty(2 * n, np.int32)
        for j in range(n):
            bigger[j] = s.in_slot[(s.in_head + j) % n]
        s.in_slot = bigger
        s.in_head = 0
        n *= 2
    s.in_slot[(s.in_head + s.in_len) % n] = slot
    s.in_len += 1
