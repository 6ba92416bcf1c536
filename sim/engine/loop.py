"""The step loop that all schedulers share, and the door through which requests come in. Compiled once per scheduler.

An engine at time ``until`` has completed every step that ends at or before it and taken every decision strictly before it: an arrival at
the very time of a step boundary is seen by the decision taken at that boundary.
"""

from math import inf

import numpy as np

from sim.cost.features import DECODE_CTX, DECODE_ROWS, DECODE_TOKENS, LORA_LOADS, LORA_READS, PREFILL_TOKENS, TOKENS
from sim.cost.step import not_taken, stage_time, step_time
from sim.engine.adapters import count_adapters
from sim.engine.contract import BATCH, NOTHING, apply_steady, complete, enqueue, grow, plan, steady_steps
from sim.engine.encoders import count_images
from sim.engine.state import (
    compact_spans,
    grow_columns,
    put_spans,
    record_gap,
    record_gauges,
    record_step,
    record_unseen,
    reserve,
)
from sim.engine.token_times import note_tokens
from sim.jit import flat, inline, kernel
from sim.ledger import PART_OTHER

NAN = np.nan
SURE = 0.75  # safety on the outlook: step times may fall by a quarter within a run before it is no lower bound


@flat
def next_arrival(s):
    """When the next request of the inbox comes; inf: there is none."""
    if s.in_len == 0:
        return inf
    return s.front_ready if s.front_n == s.in_len else s.r_arrival[s.in_slot[s.in_head]]


@inline
def stalled(s, dt):
    """What loading and saving KV adds to a step of ``dt``. Layer by layer, each waits for its own KV: the slower of the two sets the pace."""
    more = s.stall
    s.stall = 0.0
    if s.stall_layers > 0:
        more = max(more - dt, 0.0) + min(more, dt) / s.stall_layers
    if dt == 0.0:
        return 0.0
    s.rec.parts[s.replica][PART_OTHER] += more
    s.stalled += more
    return more


@inline
def count_extras(s, p):
    """What adapters and images add to the sums of the batch just planned in place ``p``."""
    if s.any_lora:
        s.ad_clock += 1
        count_adapters(
            s.q_feat[p], s.q_rows[p], s.q_slot[p], s.q_tok[p], s.r_lora, s.ad_clock, s.ad_id, s.ad_last, s.ad_host_id, s.ad_host_last
        )  # fmt: skip
    if s.any_image:
        count_images(
            s.q_feat[p], s.q_rows[p], s.q_slot[p], s.q_tok[p], s.r_prompt, s.r_first_token, s.r_span, s.r_spans, s.sp_id, s.sp_len
        )  # fmt: skip


@flat
def _launch(s):
    """Start the batch just planned: it passes the pipeline stages one after the other."""
    p = (s.q_head + s.q_len) % s.q_rows.size
    count_extras(s, p)
    dt = step_time(s.cost, s.q_feat[p], s.rec.parts[s.replica])
    if s.stall > 0.0:
        dt += stalled(s, dt)
    stages = s.stage_free.size
    left = dt
    t = s.now
    for k in range(stages):
        t = max(t, s.stage_free[k])
        if k == 0:
            s.q_start[p] = t
        share = left
        if k < stages - 1:
            share = dt // stages if s.cost.kind == 0 else stage_time(s.cost, s.q_feat[p], dt, k)
        left -= share
        t += share
        s.stage_free[k] = t
    s.q_end[p] = t
    s.q_len += 1
    if s.q_feat[p, TOKENS] > s.rec.tokens_max:
        s.rec.tokens_max = s.q_feat[p, TOKENS]
    if dt > 0.0:
        record_step(s, s.q_start[p], t, s.q_feat[p, DECODE_TOKENS], s.q_feat[p, PREFILL_TOKENS])


@flat
def _run_steady(s, k, until):
    """Execute up to ``k`` unchanged decode steps that complete by ``until``; returns how many."""
    places = s.q_rows.size
    last = (s.q_head + s.q_len - 1 + places) % places  # the batch in flight (depth 2) or the one just completed (depth 1)
    feat = s.q_feat[last]
    feat[LORA_LOADS] = feat[LORA_READS] = 0.0
    rows = feat[DECODE_ROWS]
    parts = s.scratch
    total = s.rec.parts[s.replica]
    arrival = next_arrival(s)
    now = s.now
    start = now
    end = s.stage_free[0]
    done = 0
    while done < k and now < until and arrival > now:
        feat[DECODE_CTX] += rows
        for j in range(parts.size):
            parts[j] = 0.0
        next_start = max(now, end)
        next_end = next_start + step_time(s.cost, feat, parts)
        # this decision leads to the completion of its own batch (depth 1) or of the batch already in flight (depth 2)
        finish = next_end if s.depth == 1 else next_start
        if finish > until:
            feat[DECODE_CTX] -= rows
            not_taken(s.cost)
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
    return done, now


STOPPED = 0
PLANNED = 1
COMPLETED = 2
WOKEN = 3


@flat
def due(s):
    """When an engine that has taken its decisions goes on: at a completion, else at an arrival, its own alarm, or what it was told."""
    return s.q_end[s.q_head] if s.q_len > 0 else min(min(s.wake, s.horizon), next_arrival(s))


@flat
def out_of_reach(t, until, busy):
    """Whether what comes at ``t`` is not for now: steps that end at ``until`` are completed, whoever wakes then decides later."""
    return t > until or (t == until and not busy)


@flat
def go_to(s, t):
    """Let time go on to ``t``, where a decision is due."""
    record_gauges(s, t)
    s.now = t
    s.at_plan = True


@flat
def take_out(s):
    """The place of the first batch in flight, which is over."""
    p = s.q_head
    s.q_head = (p + 1) % s.q_rows.size
    s.q_len -= 1
    return p


@flat
def take_in(s):
    """Requests that have come by now go from the inbox to the scheduler."""
    while next_arrival(s) <= s.now:
        slot = s.in_slot[s.in_head]
        if s.front_n == s.in_len:
            s.r_arrival[slot] = s.front_ready
            s.front_n -= 1
        s.in_head = (s.in_head + 1) % s.in_slot.size
        s.in_len -= 1
        record_unseen(s, s.now - s.r_arrival[slot])
        s.r_taken[slot] = s.now
        enqueue(s, slot)


@inline
def event(s, until, steady):
    """One event of the engine: a decision, a completion, or waking up. STOPPED if the next one lies beyond ``until``."""
    if not s.at_plan:
        busy = s.q_len > 0
        t = max(s.now, due(s))
        if out_of_reach(t, until, busy):
            return STOPPED
        go_to(s, t)
        if busy:
            complete(s, take_out(s))
            if s.rec.tok_on:
                note_tokens(s)
            return COMPLETED
        s.wake = inf
        return WOKEN
    if s.now >= until:
        return STOPPED
    take_in(s)
    k = steady_steps(s) if steady else 0
    s.hint = k
    if k > 1:
        limit = until if s.horizon > until else np.nextafter(s.horizon, -inf)
        done, now = _run_steady(s, k, limit)
        if done > 0:
            record_gauges(s, now)
            s.now = now
            apply_steady(s, done)
            return COMPLETED
    code = plan(s)
    if code != NOTHING:
        _launch(s)
        if s.q_len < s.depth and (code == BATCH or s.more):
            return PLANNED
    s.at_plan = False
    return PLANNED


@kernel
def turn(s, until):
    """One event, for replays that look at every step: STOPPED, PLANNED, COMPLETED or WOKEN."""
    return event(s, until, False)


@inline
def outlook(s):
    """A time before which surely no request finishes here and nothing is watched: lazy fleets leave the engine alone until then."""
    if s.at_plan:
        return s.now
    if s.q_len > 0:
        p = s.q_head
        t = max(s.now, s.q_end[p])
        if s.hint > 1 and s.in_len == 0:  # whoever waits in the inbox may be gone sooner
            step = s.q_end[p] - s.q_start[p]
            if s.q_len > 1:  # the next one is shorter where the device has become faster
                last = (p + s.q_len - 1) % s.q_rows.size
                step = min(step, s.q_end[last] - s.q_start[last])
            if s.cost.scatter > 0:
                step = min(step, s.cost.scatter_base * s.cost.scatter_least)
            t = max(t, min(t + SURE * (s.hint - 1) * step, s.horizon))
        return t
    return min(min(s.wake, s.horizon), next_arrival(s))


@flat
def _pass_front(s, t):
    """A request sent at ``t`` passes the API server: one process, whose event loop works in rounds.

    A round takes all requests that have come, one after the other, before any of them goes on to the engine: a burst gets there at once, at
    the end of the round (vLLM `entrypoints/openai/serving_chat.py`, SGLang `managers/tokenizer_manager.py`: coroutines of one asyncio loop).
    """
    if t > s.front_open:
        first = s.in_head + s.in_len - s.front_n
        for j in range(s.front_n):
            s.r_arrival[s.in_slot[(first + j) % s.in_slot.size]] = s.front_ready
        s.front_open = max(t, s.front_ready)
        s.front_ready = s.front_open
        s.front_n = 0
    s.front_ready += s.front_serial
    s.front_n += 1


@inline
def accept(s, i, first_id, watch, columns, spans):
    """Hand row ``i`` of the columns to the engine. False, and nothing done, if there is no room: see `make_room`."""
    r = s.rec
    if s.n_free == 0 or r.promised == r.id.size:
        return False
    arrival, prompt, output, limit, priority, lora, out_content = columns
    span_off, span_id, span_start, span_len = spans
    k = span_off[i + 1] - span_off[i] if span_id.size > 0 else 0
    if s.sp_n + k > s.sp_id.size:
        return False
    s.n_free -= 1
    slot = s.free[s.n_free]
    s.live += 1
    s.r_id[slot] = first_id + i
    s.r_sent[slot] = arrival[i]
    s.r_arrival[slot] = arrival[i]
    s.r_taken[slot] = NAN
    if s.front_serial > 0.0:
        _pass_front(s, arrival[i])
    s.r_prompt[slot] = prompt[i]
    s.r_output[slot] = output[i]
    s.r_max[slot] = limit[i]
    s.r_priority[slot] = priority[i]
    s.r_lora[slot] = lora[i]
    if lora[i] > 0:
        s.any_lora = True
    s.r_out_content[slot] = out_content[i]
    s.r_watch[slot] = watch
    s.r_spans[slot] = 0
    if k > 0:
        put_spans(s, slot, span_id, span_start, span_len, span_off[i], span_off[i + 1])
    s.r_done[slot] = 0
    s.r_first_scheduled[slot] = NAN
    s.r_first_token[slot] = NAN
    s.r_last_token[slot] = NAN
    s.r_cached[slot] = 0
    s.r_preempt[slot] = 0
    s.in_slot[(s.in_head + s.in_len) % s.in_slot.size] = slot
    s.in_len += 1
    r.outstanding[s.replica] += 1
    r.promised += 1
    return True


@kernel
def make_room(s, spans):
    """Room for at least one more request with ``spans`` spans. Rare, hence not in the hot kernels: they never allocate."""
    if s.rec.promised == s.rec.id.size:
        reserve(s.rec)
    if s.n_free == 0:
        grow_columns(s)
        grow(s, s.n_slots)
    if s.sp_n + spans > s.sp_id.size:
        compact_spans(s, spans)


@kernel
def _submit(s, lo, hi, first_id, watch, columns, spans):
    for i in range(lo, hi):
        if not accept(s, i, first_id, watch, columns, spans):
            return i
    return hi


def submit(s, lo, hi, first_id, columns, spans, watch=0):
    """Hand rows [lo, hi) of a block to one engine, in order of arrival, not earlier than any request it already has (replays).

    ``columns``: arrival f8, prompt i4, output i4, limit i4, priority i4, lora i4, out_content i8. ``spans``: off i8[n+1], id, start, len i8.
    Ids are ``first_id + row``.
    """
    while lo < hi:
        lo = _submit(s, lo, hi, first_id, watch, columns, spans)
        if lo < hi:
            make_room(s, spans[0][lo + 1] - spans[0][lo] if spans[1].size else 0)
