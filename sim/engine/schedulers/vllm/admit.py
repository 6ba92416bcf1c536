# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""``Scheduler.schedule()``, second part: waiting requests, head of line, until one does not fit."""

import numpy as np

from sim.engine.hand_over import tell_at
from sim.engine.schedulers.vllm.memory import ONE
from sim.engine.schedulers.vllm.queues import queue_add, queue_take
from sim.engine.schedulers.vllm.seam import (
    LATER,
    blocks_of_drafts,
    blocks_to_come,
    comes_at,
    commit,
    cut_chunk,
    grant,
    hit_tokens,
    outside,
)
from sim.engine.schedulers.vllm.state import (
    COMP,
    DEFERRED,
    KNOWN,
    KV_WAIT,
    LAZY,
    NEW,
    PREEMPTED,
    PREFILLING,
    PULLED,
    RECEIVED,
    REMOTE,
    RESUMED,
    RUNNING,
    STALE,
    STATUS,
    WAITING,
)
from sim.engine.state import first_scheduled, log_event, note_allocated
from sim.jit import flat, inline
from sim.ledger import REMOTE_KV

NO_MORE = np.int64(-(1 << 40))


@inline
def _reserve(s, n_skipped):
    """Set the blocks that a remote load must leave: what prefills and loads under way will take, and one step of drafts."""
    total = blocks_of_drafts(s)
    for i in range(s.n_run):
        if s.r_x[s.run[i], PREFILLING] == 1:
            total += blocks_to_come(s, s.run[i])
    q = s.kvq
    for i in range(q.len):
        slot = q.slot[(q.head + i) % q.slot.size]
        if s.r_x[slot, PREFILLING] == 1:
            total += blocks_to_come(s, slot)
    for i in range(n_skipped):
        if s.r_x[s.skip_k[i], PREFILLING] == 1:
            total += blocks_to_come(s, s.skip_k[i])
    s.reserved = total


@inline
def _adapter_fits(s, lora):
    """Whether the adapter is loaded, or another may be."""
    if s.max_loras == 0 or lora == 0 or s.n_loras < s.max_loras:
        return True
    for i in range(s.n_loras):
        if s.loras[i] == lora:
            return True
    return False


@inline
def _load_adapter(s, lora):
    """One more adapter, unless it is there."""
    if s.max_loras == 0 or lora == 0:
        return
    for i in range(s.n_loras):
        if s.loras[i] == lora:
            return
    s.loras[s.n_loras] = lora
    s.n_loras += 1


@flat
def _load_running(s):
    """The adapters of those that run are there."""
    s.n_loras = 0
    if s.max_loras > 0:
        for i in range(s.n_run):
            _load_adapter(s, s.r_lora[s.run[i]])


@flat
def _put_back(s, n_w, n_k):
    """What was passed over goes back in front, in its old order."""
    for i in range(n_k - 1, -1, -1):
        queue_add(s, s.kvq, s.skip_k[i], ONE)
    for i in range(n_w - 1, -1, -1):
        queue_add(s, s.wq, s.skip_w[i], ONE)
    if not s.defer:
        s.cap_bound = s.wq.len + s.kvq.len > s.n_deferred


@flat
def _ready(s, slot):
    """Whether the head of a queue can be looked at: the KV that it waited for has come, no step is under way for it, its adapter has room."""
    x = s.r_x
    if x[slot, STATUS] == REMOTE:
        if x[slot, RECEIVED] == 0:
            return False
        commit(s, slot, np.int64(x[slot, COMP]))
        x[slot, RECEIVED] = 0
        if x[slot, COMP] == x[slot, KNOWN]:
            x[slot, COMP] -= 1
        x[slot, STATUS] = PREEMPTED if s.r_preempt[slot] > 0 else WAITING
    return x[slot, STALE] == 0 and _adapter_fits(s, s.r_lora[slot])


@flat
def _chunk(s, slot, c, known, space, scheduled):
    """Tokens to compute now of a request with ``c`` of its ``known``, and whether drafts are among them; NO_MORE: nobody is taken after this."""
    if s.defer and c < known - 1:
        return NO_MORE, False
    n = known - c
    padded = False
    if s.k_spec > 0 and n == 1 and not s.prefills and (scheduled or c > 0) and c + s.k_spec + 2 <= s.max_len:
        if 1 + s.k_spec > space:
            return NO_MORE, False
        n = 1 + s.k_spec
        padded = True
    if s.threshold_now > 0 and n > s.threshold_now:
        n = s.threshold_now
    if not s.chunked and n > space:
        return NO_MORE, False
    n = min(n, space)
    if n > 0:
        part = cut_chunk(s, slot, c, n)
        if part <= 0:
            return NO_MORE, False
        if padded and part < n:
            part = min(part, ONE)
            padded = False
        n = part
    return n, padded


@flat
def _pass_over(s, slot, comp, n_w, n_k, n_remote):
    """It keeps its place while those behind it are looked at. Counted: without KV, with, and of these whose KV is to come."""
    x = s.r_x
    if x[slot, DEFERRED] == 0:
        x[slot, DEFERRED] = 1
        s.n_deferred += 1
    if x[slot, STATUS] == REMOTE or comp > 0:
        s.skip_k[n_k] = slot
        n_k += 1
        if x[slot, STATUS] == REMOTE:
            n_remote += 1
    else:
        s.skip_w[n_w] = slot
        n_w += 1
    return n_w, n_k, n_remote


@flat
def _await_kv(s, slot, c, ext):
    """It has its blocks; KV of ``ext`` tokens after the first ``c`` comes from elsewhere."""
    x = s.r_x
    s.in_slot_x[s.in_n] = slot
    s.in_time[s.in_n] = comes_at(s, slot, c, ext)
    tell_at(s, s.in_time[s.in_n])
    s.in_n += 1
    x[slot, STATUS] = REMOTE
    x[slot, COMP] = c + ext
    x[slot, PREFILLING] = 1
    if x[slot, DEFERRED] == 0:
        x[slot, DEFERRED] = 1
        s.n_deferred += 1
    log_event(s, KV_WAIT, s.r_id[slot], ext)
    if s.r_watch[slot] & REMOTE_KV:
        note_allocated(s, slot, s.now, ext)


@flat
def _begin(s, slot, c, n, known, padded, rows):
    """It runs: row ``rows`` of the batch computes ``n`` tokens after the first ``c``."""
    x = s.r_x
    p = s.p
    s.run[s.n_run] = slot
    s.n_run += 1
    if x[slot, DEFERRED] == 1:
        x[slot, DEFERRED] = 0
        s.n_deferred -= 1
    if c + n < known:
        x[slot, PREFILLING] = 1
    if s.r_preempt[slot] == 0:
        s.r_cached[slot] = c
        first_scheduled(s, slot)
    log_event(s, NEW if x[slot, STATUS] == WAITING else RESUMED, s.r_id[slot], c)
    x[slot, STATUS] = RUNNING
    x[slot, COMP] = c
    _load_adapter(s, s.r_lora[slot])
    s.q_slot[p, rows] = slot
    s.q_tok[p, rows] = n
    s.q_aux[p, rows] = s.k_spec if padded else 0


@inline
def admit(s):
    """Append admitted requests to batch and running list; the step so far is in the state."""
    s.admitted = False
    if s.wq.len == 0 and s.kvq.len == 0:
        s.stuck = False
        s.g_blocked = False
        if not s.defer:
            s.cap_bound = False
        return
    x = s.r_x
    rows = s.rows_planned
    budget, room = s.budget, s.room
    scheduled = rows > 0
    n_w = n_k = n_remote = np.int64(0)
    stuck = full = blocked = False
    s.admitting = True
    _load_running(s)
    while budget > 0 and room > s.slots:
        full = s.n_run >= s.max_run
        held = s.kvq.len > 0
        if full or (not held and s.wq.len == 0):
            break
        q = s.kvq if held else s.wq
        slot = q.slot[q.head]
        ready = _ready(s, slot)
        known = np.int64(x[slot, KNOWN])
        comp = np.int64(x[slot, COMP])
        ext = n = c = np.int64(0)
        s.n_hits = 0
        s.at_once = 0
        padded = False
        if ready:
            c = comp
            if comp == 0:
                c = hit_tokens(s, slot)
                ext = outside(s, slot, c)
                c += s.at_once
            if ext == LATER:
                ready = False
            elif ext == 0:
                n, padded = _chunk(s, slot, c, known, min(budget, room - s.slots), scheduled)
                if n == NO_MORE:
                    break
        if not ready or (ext == 0 and n <= 0):
            queue_take(s, q)
            n_w, n_k, n_remote = _pass_over(s, slot, comp, n_w, n_k, n_remote)
            continue
        s.ext = ext
        s.reserved = 0
        if ext > 0:
            n = np.int64(0)
            _reserve(s, n_k)
        if not grant(s, slot, n + s.at_once):
            blocked = True
            # no block of others can be of use to it: it needs the same until something is given back
            stuck = not s.kv.caching or x[slot, LAZY] == 1 or (s.r_spans[slot] == 0 and s.r_preempt[slot] == 0)
            break
        queue_take(s, q)
        if s.key_slot == slot:
            s.key_slot = -1
        x[slot, PULLED] = 1
        if ext > 0:
            _await_kv(s, slot, c, ext)
            s.skip_k[n_k] = slot
            n_k += 1
            n_remote += 1
            continue
        _begin(s, slot, c, n, known, padded, rows)
        rows += 1
        budget -= n
        room -= n + s.slots
        if c < known - 1:
            s.admitted = True
    s.g_blocked = blocked
    s.rows_planned = rows
    # nothing changes by itself while all that was passed over waits for KV to come, and nobody else is there or the next does not fit
    quiet = n_w == 0 and n_k == n_remote and s.kvq.len == 0
    s.stuck = full or (quiet and (stuck or (n_k > 0 and s.wq.len == 0)))
    _put_back(s, n_w, n_k)
