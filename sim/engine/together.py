"""Data-parallel ranks that step together: N schedulers, each with queue, KV pool and caches of its own, whose layers share experts.

Every step begins on all ranks of a replica at one time and lasts as long as the slowest needs, as collectives in every layer align them
(`sim.cost.together`). A rank without a batch runs a dummy one of a single token beside the others. All ranks decide at the same time and may
tell each other something before (`sim.engine.confer`).

How a replica stops depends on the engine. *interval* 0: the ranks know of each other at every step and stop with the last batch (SGLang,
MindIE). *interval* n: whether any rank has unfinished requests is asked on the first step of a wave and on every n-th, so dummy steps
go on for up to n steps after the last work; a new request wakes all ranks (vLLM ``v1/engine/core.py`` DPEngineCoreProc.run_busy_loop,
_has_global_unfinished_reqs). With asynchronous scheduling a dummy takes its place in the pipeline of batches like any other: its
worker waits for the others' at the start of the forward pass.

The same loop as `sim.engine.loop`, for one replica of several states, and made of the same parts; compiled only where it is used.
"""

from math import inf

import numpy as np

from sim.cost.features import DECODE_CTX, DECODE_ROWS, DECODE_TOKENS, LORA_LOADS, LORA_READS, N_FEATURES, PREFILL_TOKENS, TOKENS
from sim.cost.shared import SharedCost, together_time
from sim.cost.step import not_taken
from sim.engine.borrow import view
from sim.engine.confer import SAID, at_rest, confer, heed, unfinished
from sim.engine.contract import BATCH, NOTHING, apply_steady, clear_place, complete, next_place, plan, steady_steps
from sim.engine.loop import (
    COMPLETED,
    PLANNED,
    STOPPED,
    SURE,
    WOKEN,
    count_extras,
    due,
    go_to,
    next_arrival,
    out_of_reach,
    stalled,
    take_in,
    take_out,
)
from sim.engine.state import record_gap, record_gauges, record_step
from sim.engine.token_times import note_tokens
from sim.jit import b1, f8s, f8ss, i8, i8s, i8ss, inline, kernel, new, struct
from sim.ledger import N_PARTS, PART_COMMUNICATION


@struct
class Together:
    """What the ranks of one replica have in common: states ``first`` … ``first + ranks − 1`` of the group."""

    first: i8
    ranks: i8
    shared: SharedCost
    interval: i8  # steps between two finish detections; 0: at every step
    counter: i8  # steps of this wave
    running: b1  # a wave is under way: ranks without work run dummies
    dummies: i8  # steps in which no rank had work
    idle: i8ss  # [rank, place]: 1 where the place of the ring holds a dummy, or nothing
    codes: i8s
    said: f8ss
    feats: f8ss  # [rank, feature] of the step being timed
    parts: f8ss  # [rank, part] of it
    device: f8s


@kernel
def new_together(first, ranks, places, shared, interval):
    """A replica at rest. ``places``: of the ring of batches in flight."""
    g = new(Together)
    g.first = first
    g.ranks = ranks
    g.shared = shared
    g.interval = interval
    g.counter = 0
    g.running = False
    g.dummies = 0
    g.idle = np.zeros((ranks, places), np.int64)
    g.codes = np.zeros(ranks, np.int64)
    g.said = np.zeros((ranks, SAID))
    g.feats = np.zeros((ranks, N_FEATURES))
    g.parts = np.zeros((ranks, N_PARTS))
    g.device = np.zeros(ranks)
    return g


@inline
def _step_together(states, g, p):
    """Seconds of the step whose batches are in place ``p`` of every rank; what each spends them on is left in ``g.parts``."""
    for k in range(g.ranks):
        feat = view(states[g.first + k]).q_feat
        for j in range(N_FEATURES):
            g.feats[k, j] = feat[p, j]
    return together_time(view(states[g.first]).cost, g.shared, g.feats, g.device, g.parts)


@inline
def _spend(s, g, k):
    """Put the parts of a step to the account of rank ``k``."""
    for j in range(N_PARTS):
        s.rec.parts[s.replica, j] += g.parts[k, j]


@inline
def _stalled_together(states, g, dt):
    """As `sim.engine.loop.stalled`: all wait for the rank that loads or saves the longest."""
    more = 0.0
    for k in range(g.ranks):
        s = view(states[g.first + k])
        g.device[k] = stalled(s, dt) if s.stall > 0.0 else 0.0
        more = max(more, g.device[k])
    if more > 0.0:
        for k in range(g.ranks):
            g.parts[k, PART_COMMUNICATION] += more - g.device[k]
    return more


@inline
def _launch_together(states, g, working):
    """Start the batches just planned, with dummies beside them if there is work; without any, empty batches are over at once."""
    lead = view(states[g.first])
    p = next_place(lead)
    for k in range(g.ranks):
        s = view(states[g.first + k])
        g.idle[k, p] = 1 if g.codes[k] == NOTHING else 0
        if g.codes[k] == BATCH:
            count_extras(s, p)
        else:
            clear_place(s, p)
            if working:
                s.q_feat[p, TOKENS] = 1.0
    dt = 0.0
    start = max(lead.now, lead.stage_free[0])
    if working:
        dt = _step_together(states, g, p)
        dt += _stalled_together(states, g, dt)
    end = start + dt
    for k in range(g.ranks):
        s = view(states[g.first + k])
        s.q_start[p] = start
        s.q_end[p] = end
        s.stage_free[0] = end
        s.q_len += 1
        if dt > 0.0:
            _spend(s, g, k)
            if s.q_feat[p, TOKENS] > s.rec.tokens_max:
                s.rec.tokens_max = s.q_feat[p, TOKENS]
            record_step(s, start, end, s.q_feat[p, DECODE_TOKENS], s.q_feat[p, PREFILL_TOKENS])


@inline
def _steady_together(states, g):
    """For how many further decisions every rank with a batch would repeat it, and the others have nothing to do."""
    lead = view(states[g.first])
    if lead.q_len != lead.depth - 1 or not g.running:
        return 0
    places = lead.q_rows.size
    last = (lead.q_head + lead.q_len - 1 + places) % places
    k = 1 << 40
    busy = False
    for j in range(g.ranks):
        s = view(states[g.first + j])
        if g.idle[j, last] == 1:
            if not at_rest(s):
                return 0
        else:
            busy = True
            k = min(k, steady_steps(s))
            if k <= 1:
                return 0
    return k if busy else 0


@inline
def _run_together(states, g, k, until):
    """Execute up to ``k`` unchanged decode steps that complete by ``until``; returns how many, and the time of the last completion."""
    lead = view(states[g.first])
    places = lead.q_rows.size
    last = (lead.q_head + lead.q_len - 1 + places) % places
    arrival = inf
    for j in range(g.ranks):
        s = view(states[g.first + j])
        arrival = min(arrival, next_arrival(s))
        if s.horizon <= until:
            until = np.nextafter(s.horizon, -inf)
    now = lead.now
    start = now
    end = lead.stage_free[0]
    done = 0
    while done < k and now < until and arrival > now:
        for j in range(g.ranks):
            feat = view(states[g.first + j]).q_feat
            feat[last, DECODE_CTX] += feat[last, DECODE_ROWS]
            feat[last, LORA_LOADS] = feat[last, LORA_READS] = 0.0
        next_start = max(now, end)
        next_end = next_start + _step_together(states, g, last)
        finish = next_end if lead.depth == 1 else next_start
        if finish > until:
            for j in range(g.ranks):
                feat = view(states[g.first + j]).q_feat
                feat[last, DECODE_CTX] -= feat[last, DECODE_ROWS]
            not_taken(view(states[g.first]).cost)
            break
        start, end = next_start, next_end
        for j in range(g.ranks):
            s = view(states[g.first + j])
            rows = s.q_feat[last, DECODE_ROWS]
            _spend(s, g, j)
            record_step(s, start, end, rows, 0.0)
            if g.idle[j, last] == 0:
                record_gap(s.rec, finish - now, rows)
        now = finish
        done += 1
    if done > 0:
        g.counter += done
        for j in range(g.ranks):
            s = view(states[g.first + j])
            s.stage_free[0] = end
            s.q_start[last] = start
            s.q_end[last] = end
            record_gauges(s, now)
            s.now = now
            if g.idle[j, last] == 0:
                apply_steady(s, done)
    return done


@inline
def _finish_detection(states, g):
    """After a step: end the wave if it is time to ask and nobody has unfinished requests."""
    if g.running and g.interval > 0 and (g.counter == 1 or g.counter % g.interval == 0):
        for k in range(g.ranks):
            if unfinished(view(states[g.first + k])):
                return
        g.running = False
        g.counter = 0


@inline
def _due_together(states, g):
    """As `sim.engine.loop.due`: batches of all ranks end at one time, and whoever wakes wakes all."""
    t = due(view(states[g.first]))
    if view(states[g.first]).q_len == 0:
        for k in range(1, g.ranks):
            t = min(t, due(view(states[g.first + k])))
    return t


@inline
def event_together(states, g, until, steady):
    """One event of a replica, as `sim.engine.loop.event`: all ranks decide, complete or wake up."""
    lead = view(states[g.first])
    if not lead.at_plan:
        busy = lead.q_len > 0
        t = max(lead.now, _due_together(states, g))
        if out_of_reach(t, until, busy):
            return STOPPED
        for k in range(g.ranks):
            s = view(states[g.first + k])
            go_to(s, t)
            if busy:
                p = take_out(s)
                if g.idle[k, p] == 0:
                    complete(s, p)
                    if s.rec.tok_on:
                        note_tokens(s)
            else:
                s.wake = inf
        if busy:
            _finish_detection(states, g)
            return COMPLETED
        return WOKEN
    if lead.now >= until:
        return STOPPED
    for k in range(g.ranks):
        take_in(view(states[g.first + k]))
    lead.hint = _steady_together(states, g) if steady else 0
    if lead.hint > 1 and _run_together(states, g, lead.hint, until) > 0:
        return COMPLETED
    for k in range(g.ranks):
        for j in range(SAID):
            g.said[k, j] = 0.0
        confer(view(states[g.first + k]), g.said[k])
    working = again = place = False
    for k in range(g.ranks):
        s = view(states[g.first + k])
        heed(s, g.said, g.counter)
        code = plan(s)
        g.codes[k] = code
        if code == BATCH:
            again = working = True
        if code != NOTHING:
            place = True
    if g.interval > 0 and not working:
        working = g.running
        for k in range(g.ranks):
            if unfinished(view(states[g.first + k])):
                working = True
    g.running = working
    if working or place:
        _launch_together(states, g, working)
        if working:
            g.counter += 1
            if not again:
                g.dummies += 1
    if not working:
        for k in range(g.ranks):
            if g.codes[k] != NOTHING and view(states[g.first + k]).more:
                again = True
    more = again and lead.q_len < lead.depth
    for k in range(g.ranks):
        view(states[g.first + k]).at_plan = more
    return PLANNED


@inline
def outlook_together(states, g):
    """A time before which surely no request of the replica finishes and nothing is watched; see `sim.engine.loop.outlook`."""
    lead = view(states[g.first])
    if lead.at_plan:
        return lead.now
    t = _due_together(states, g)
    if lead.q_len > 0:
        p = lead.q_head
        t = max(lead.now, t)
        empty = True
        for k in range(g.ranks):
            if view(states[g.first + k]).in_len > 0:
                empty = False
        if lead.hint > 1 and empty:
            step = lead.q_end[p] - lead.q_start[p]
            if lead.cost.scatter > 0:
                step = min(step, lead.cost.scatter_base * lead.cost.scatter_least)
            until = t + SURE * (lead.hint - 1) * step
            for k in range(g.ranks):
                until = min(until, view(states[g.first + k]).horizon)
            t = max(t, until)
    return t
