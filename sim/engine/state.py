"""The state every serving process has: request columns, inbox, batches in flight, clock, recorder.

Struct of arrays; a *slot* is the row of one request while it is in flight. Columns grow by doubling and slots are reused, so memory
follows requests in flight. A scheduler declares ``class MyState(EngineState)`` with its own fields beside these.
"""

from math import inf
from typing import Final

import numpy as np

from sim.cost.features import N_FEATURES
from sim.cost.step import StepCost
from sim.engine.borrow import keep
from sim.engine.recorder import (
    Recorder,
    add_pools,
    flush_gaps,
    new_recorder,
    record_gap,
    record_gauges,
    record_step,
    record_unseen,
    reserve,
)
from sim.engine.rows import SlotColumns, fill_slots, grown, widen_slots, write_row
from sim.jit import b1, f8, f8s, f8ss, i4s, i4ss, i8, i8s, i8ss, inline
from sim.ledger import (
    ALLOCATED,
    CHUNK_DONE,
    ENDED,
    FINISHED,
    FIRST_TOKEN,
    GONE,
    HAND_OVER,
    IMAGE_CONTENT,
    N_PARTS,
    REMOTE_KV,
    WATCH_FINISH,
    WATCH_FIRST_TOKEN,
)

__all__ = [
    "INF",
    "NAN",
    "EngineState",
    "Recorder",
    "add_pools",
    "compact_spans",
    "emit",
    "first_scheduled",
    "flush_gaps",
    "free_slot",
    "grow_columns",
    "grown",
    "init_engine",
    "log_event",
    "new_recorder",
    "note_allocated",
    "note_chunk",
    "put_spans",
    "record_end",
    "record_gap",
    "record_gauges",
    "record_step",
    "record_unseen",
    "reserve",
]
"""With the recorder: what a scheduler needs stands in one place."""

NAN: Final = np.nan
INF: Final = inf


class EngineState(SlotColumns):
    """Fields common to all schedulers (a scheduler's own state derives from this and is the struct).

    Times in the unit of the cost model: seconds, or integer microseconds in conformance replays.
    """

    replica: i8
    rec: Recorder
    cost: StepCost
    # -- clock and loop
    now: f8  # time of the current decision
    at_plan: b1  # a decision is due at `now`; otherwise a completion or an arrival is awaited
    wake: f8  # when an idle scheduler wants to decide again without an arrival (inf: never)
    horizon: (
        f8  # when something told from outside takes effect: an idle scheduler decides then, strokes of equal steps end before
    )
    multi_step: b1  # advance unchanged decode steps in one stroke
    more: b1  # set by plan(): with a free place in the pipeline, plan again at once
    stall: f8  # seconds by which the batch just planned is longer, for KV that it loads or saves (`sim.engine.tiers`)
    stall_layers: i8  # 0: before or after it; else its KV is loaded layer by layer, so many of them, while it computes
    stalled: f8  # by how much steps were longer for that, since the start
    hint: i8  # steps after the current one in which surely nothing finishes (a lower bound, for lazy fleets)
    # -- the API server before the engine: see `loop.accept`
    front_serial: f8  # seconds per request, 0: requests reach the engine as they come
    front_open: f8  # when the latest round of its event loop began
    front_ready: f8  # when that round ends
    front_n: i8  # requests of that round, the last of the inbox; their `r_arrival` is not written yet
    # -- batches in flight, a ring of `depth` places
    depth: i8
    q_head: i8
    q_len: i8
    q_start: f8s
    q_end: f8s
    q_rows: i8s
    q_feat: f8ss  # [place, feature]
    q_slot: i4ss  # [place, row]
    q_tok: i4ss  # [place, row] new tokens
    q_aux: i4ss  # [place, row] the scheduler's own
    stage_free: f8s  # pipeline stages: when each is free
    # -- inbox: slots in order of arrival, a ring
    in_slot: i4s
    in_head: i8
    in_len: i8
    # -- request columns: `SlotColumns`
    n_slots: i8  # capacity
    n_free: i8
    free: i4s  # stack of free slots
    live: i8
    # -- span pool (bump allocation, compacted when it grows)
    sp_n: i8
    sp_live: i8
    sp_id: i8s
    sp_start: i8s
    sp_len: i8s
    # -- gauges for the recorder, set by the scheduler at the end of plan() and complete()
    g_running: i8
    g_waiting: i8
    g_kv_used: f8  # blocks (or tokens) in use
    g_kv_total: f8
    g_blocked: b1  # the head of the queue waits for KV memory
    n_pools: i8  # 0: there is one
    g_pools: f8s  # in use of each pool
    g_short: i8  # the pool that the head of the queue waits for
    t_gauge: f8  # gauges are integrated up to here
    n_steps: i8
    n_preempted: i8
    scratch: f8s  # [part]
    # -- adapters, see `sim.engine.adapters`
    any_lora: b1  # a request has named one
    any_image: b1  # a request had an image, see `sim.engine.encoders`
    ad_clock: i8  # batches counted
    ad_id: i4s  # on the device; 0: the place is free
    ad_last: i8s  # batch that used it last
    ad_host_id: i4s  # in host memory
    ad_host_last: i8s
    # -- tokens written down one by one (off in normal runs), see `token_times`
    tok_told: i4s  # [slot] how many of a request are written down already, and whose
    tok_of: i8s
    # -- event log for replays (off in normal runs): rows of (kind, a, b), the scheduler's own kinds
    log_on: b1
    log_n: i8
    log: i8ss


@inline
def init_engine(s, replica, rec, cost, depth, rows, stages, slots):
    """Fill the common fields of a new state. ``rows``: largest batch; ``slots``: initial request columns."""
    s.replica = replica
    s.rec = rec
    s.cost = cost
    s.now = 0.0
    s.at_plan = False
    s.wake = INF
    s.horizon = INF
    s.multi_step = True
    s.more = False
    s.stall = 0.0
    s.stall_layers = 0
    s.stalled = 0.0
    s.hint = 0
    s.front_serial = 0.0
    s.front_open = -1.0
    s.front_ready = 0.0
    s.front_n = 0
    s.depth = depth
    s.q_head = 0
    s.q_len = 0
    places = depth + 1
    s.q_start = np.zeros(places)
    s.q_end = np.zeros(places)
    s.q_rows = np.zeros(places, np.int64)
    s.q_feat = np.zeros((places, N_FEATURES))
    s.q_slot = np.zeros((places, rows), np.int32)
    s.q_tok = np.zeros((places, rows), np.int32)
    s.q_aux = np.zeros((places, rows), np.int32)
    s.stage_free = np.zeros(stages)
    s.in_slot = np.empty(slots, np.int32)  # each slot is there at most once
    s.in_head = 0
    s.in_len = 0
    s.n_slots = slots
    s.n_free = slots
    s.free = np.empty(slots, np.int32)
    for i in range(slots):
        s.free[i] = slots - 1 - i
    s.live = 0
    fill_slots(s, slots)
    s.sp_n = 0
    s.sp_live = 0
    s.sp_id = np.empty(64, np.int64)
    s.sp_start = np.empty(64, np.int64)
    s.sp_len = np.empty(64, np.int64)
    s.g_running = 0
    s.g_waiting = 0
    s.g_kv_used = 0.0
    s.g_kv_total = 1.0
    s.g_blocked = False
    s.n_pools = 0
    s.g_pools = np.zeros(0)
    s.g_short = 0
    s.t_gauge = 0.0
    s.n_steps = 0
    s.n_preempted = 0
    s.scratch = np.zeros(N_PARTS)
    s.any_lora = False
    s.any_image = False
    s.ad_clock = 0
    s.ad_id = np.zeros(0, np.int32)
    s.ad_last = np.zeros(0, np.int64)
    s.ad_host_id = np.zeros(0, np.int32)
    s.ad_host_last = np.zeros(0, np.int64)
    s.tok_told = np.zeros(0, np.int32)
    s.tok_of = np.zeros(0, np.int64)
    s.log_on = False
    s.log_n = 0
    s.log = np.zeros((8, 3), np.int64)


@inline
def grow_columns(s):
    """Double the common request columns; the scheduler's own follow in its `grow`."""
    old = s.n_slots
    n = 2 * old
    widen_slots(s, n)
    s.free = grown(s.free, n)
    inbox = np.empty(n, np.int32)
    for j in range(s.in_len):
        inbox[j] = s.in_slot[(s.in_head + j) % old]
    s.in_slot = inbox
    s.in_head = 0
    for i in range(n - 1, old - 1, -1):
        s.free[s.n_free] = i
        s.n_free += 1
    s.n_slots = n


@inline
def compact_spans(s, extra):
    """Move the spans of live requests together; double the pool if that does not make room for ``extra``."""
    size = s.sp_id.size
    while size < 2 * (s.sp_live + extra):
        size *= 2
    ids = np.empty(size, np.int64)
    starts = np.empty(size, np.int64)
    lens = np.empty(size, np.int64)
    n = 0
    for slot in range(s.n_slots):
        k = s.r_spans[slot]
        if k > 0:
            o = s.r_span[slot]
            for j in range(k):
                ids[n + j] = s.sp_id[o + j]
                starts[n + j] = s.sp_start[o + j]
                lens[n + j] = s.sp_len[o + j]
            s.r_span[slot] = n
            n += k
    s.sp_id = ids
    s.sp_start = starts
    s.sp_len = lens
    s.sp_n = n


@inline
def put_spans(s, slot, span_id, span_start, span_len, lo, hi):
    """Copy spans [lo, hi) of the caller's arrays into the pool for ``slot``; the caller has seen to it that there is room."""
    k = hi - lo
    o = s.sp_n
    for j in range(k):
        s.sp_id[o + j] = span_id[lo + j]
        s.sp_start[o + j] = span_start[lo + j]
        s.sp_len[o + j] = span_len[lo + j]
        if span_id[lo + j] >= IMAGE_CONTENT:
            s.any_image = True
    s.r_span[slot] = o
    s.r_spans[slot] = k
    s.sp_n += k
    s.sp_live += k


@inline
def free_slot(s, slot):
    """Give the row of a request back. Call after `record_end`, when no batch in flight refers to it any more."""
    s.sp_live -= s.r_spans[slot]
    s.r_spans[slot] = 0
    s.free[s.n_free] = slot
    s.n_free += 1
    s.live -= 1


@inline
def _watch(s, slot, t, kind, value):
    r = s.rec
    n = r.n_watched
    r.watched_id[n] = s.r_id[slot]
    r.watched_time[n] = t
    r.watched_replica[n] = s.replica
    r.watched_slot[n] = slot
    r.watched_kind[n] = kind
    r.watched_value[n] = value
    r.n_watched = n + 1


@inline
def note_allocated(s, slot, t, tokens):
    """A request with `REMOTE_KV` has its memory: the KV of ``tokens`` tokens may come."""
    _watch(s, slot, t, ALLOCATED, tokens)


@inline
def note_chunk(s, slot, t, tokens):
    """A chunk of a prompt, not the last one, is computed: ``tokens`` so far. Only for requests with `WATCH_CHUNKS`."""
    _watch(s, slot, t, CHUNK_DONE, tokens)


@inline
def record_end(s, slot, t, status):
    """Write the row of a request that leaves the engine at ``t`` (FINISHED, REJECTED, FAILED, RETURNED). Its slot stays taken."""
    r = s.rec
    n = r.n
    write_row(r, n, s, slot, t, status)
    r.n = n + 1
    r.outstanding[s.replica] -= 1
    flags = s.r_watch[slot]
    if flags & (WATCH_FINISH | HAND_OVER) or (flags & REMOTE_KV and status != FINISHED):
        _watch(s, slot, t, ENDED, np.int64(status))
    s.r_watch[slot] = flags | GONE


@inline
def first_scheduled(s, slot):
    """Note that the request enters a batch now (only the first time counts)."""
    if np.isnan(s.r_first_scheduled[slot]):
        s.r_first_scheduled[slot] = s.now


@inline
def log_event(s, kind, a, b):
    """Note a decision for a replay (only where ``s.log_on``)."""
    if s.log_on:
        n = s.log_n
        if n == s.log.shape[0]:
            bigger = np.zeros((2 * n, 3), np.int64)
            for i in range(n):
                for j in range(3):
                    bigger[i, j] = s.log[i, j]
            keep(s).log = bigger
        s.log[n, 0] = kind
        s.log[n, 1] = a
        s.log[n, 2] = b
        s.log_n = n + 1


@inline
def emit(s, slot, t, tokens):
    """The client gets ``tokens`` new tokens of a request at ``t``, in one chunk."""
    if s.r_done[slot] == 0:
        s.r_first_token[slot] = t
        if s.r_watch[slot] & WATCH_FIRST_TOKEN:
            _watch(s, slot, t, FIRST_TOKEN, np.int64(0))
    else:
        record_gap(s.rec, t - s.r_last_token[slot], 1.0)
    s.r_last_token[slot] = t
    s.r_done[slot] += tokens
