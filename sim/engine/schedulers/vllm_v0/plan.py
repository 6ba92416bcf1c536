# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""``Scheduler.schedule()`` of V0 (``vllm/core/scheduler.py``): prompts first or, with chunked prefill, decodes first."""

import numpy as np

from sim.cost.features import (
    COPIED_BLOCKS,
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    PREFILL_CTX,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    ROWS,
    SAMPLED,
    TOKENS,
)
from sim.engine.contract import BATCH, NOTHING, clear_place, next_place
from sim.engine.queue import queue_push, queue_push_front
from sim.engine.schedulers.vllm_v0.admit import place, prefills, priority_preemption, swap_ins
from sim.engine.schedulers.vllm_v0.memory import append_slots, drop_victim, ignore, touched
from sim.engine.schedulers.vllm_v0.queues import add_adapter, remove_adapter, sort_slots
from sim.engine.schedulers.vllm_v0.state import (
    BLOCKS,
    CHUNK,
    COMP,
    ENDED,
    GHOST,
    LEN,
    N_X,
    PLACED,
    PREFILL,
    ROW,
    SAMPLES,
    STATUS,
    STEP,
    STOP,
    WAITING,
)
from sim.engine.state import free_slot, log_event, record_end
from sim.jit import inline, kernel
from sim.ledger import REJECTED


def enqueue_v0(s, slot):
    """A request has arrived. A prompt that leaves no room for an output is refused by the server."""
    prompt = s.r_prompt[slot]
    if prompt >= s.max_len:
        record_end(s, slot, s.now, REJECTED)
        free_slot(s, slot)
        return
    x = s.r_x
    for j in range(N_X):
        x[slot, j] = 0
    x[slot, LEN] = prompt
    x[slot, PREFILL] = 1
    x[slot, STATUS] = WAITING
    x[slot, STOP] = min(prompt + min(s.r_output[slot], s.r_max[slot]), s.max_len)
    if s.w_len == 0:
        s.stuck = False
    queue_push(s, slot)
    s.g_waiting = s.w_len + s.n_swapped


@kernel
def _make_space(s, i, tail):
    """Preempt from the end of the running list until the request at place ``i`` can go on; returns the new end.

    An end of ``i`` means that it had to go itself. Until 0.3 victims return to the queue at once, later after the decision; the order is the
    same.
    """
    slot = s.run[i]
    remove_adapter(s, slot)
    if not s.chunked:
        s.seqs -= 1  # it was counted before, and is not again
    while s.gpu_free < touched(s, slot):
        tail -= 1
        victim = s.run[tail]
        drop_victim(s, victim)
        if tail == i:
            break
    return tail


@inline
def _decodes(s):
    """``_schedule_running`` without chunking: a token of every running request."""
    s.n_victims = 0
    if s.by_arrival:
        sort_slots(s, s.run, s.n_run, False)
    x = s.r_x
    run = s.run
    q_slot, q_tok = s.q_slot, s.q_tok
    p, step = s.p, s.step_no
    plain = s.max_loras == 0 and s.lookahead == 0
    size = s.block_size
    i = np.int64(0)
    while i < s.n_run:
        slot = run[i]
        u = np.uintp(slot)  # unsigned: places are not checked for being negative
        if plain and s.gpu_free > 0:  # the common case: what `touched` and `append_slots` come to
            if x[u, LEN] > x[u, BLOCKS] * size:
                x[u, BLOCKS] += 1
                s.gpu_free -= 1
        else:
            if s.gpu_free < touched(s, slot):
                tail = _make_space(s, i, s.n_run)
                s.n_run = tail
                if tail == i:
                    break
            append_slots(s, slot)
            add_adapter(s, slot)
        q_slot[p, i] = slot
        q_tok[p, i] = 1
        x[u, PLACED] = step
        i += 1
    s.rows = s.n_run
    s.budget -= s.n_run
    for j in range(s.n_victims):
        queue_push_front(s, s.victims[j])


@inline
def _put(s, which, slot):
    s.lists[which, s.n_lists[which]] = slot
    s.n_lists[which] += 1


@inline
def _default(s):
    """``_schedule_default``: a batch of prompts, or else a token of every running request."""
    s.seqs = s.n_run
    s.n_loras = 0
    if s.max_loras > 0:
        for i in range(s.n_run):
            add_adapter(s, s.run[i])
    if s.n_swapped == 0:
        prefills(s, s.n_run)
    if s.rows == 0:
        if s.by_priority:
            priority_preemption(s)
            s.preempted = False
        _decodes(s)
        if not s.preempted and s.n_swapped > 0:
            swap_ins(s)
    for which in (1, 2, 5):
        for j in range(s.n_lists[which]):
            s.run[s.n_run] = s.lists[which, j]
            s.n_run += 1


@inline
def _chunked(s):
    """``_schedule_chunked_prefill``: running requests as far as the tokens go, swapped ones, then prompts with the rest."""
    x = s.r_x
    run = s.run
    s.n_victims = 0
    s.seqs = 0
    s.n_loras = 0
    if s.by_arrival:
        sort_slots(s, run, s.n_run, False)
    tail = s.n_run
    i = np.int64(0)
    while i < tail and s.budget > 0:
        slot = run[i]
        prefill = x[slot, PREFILL] == 1
        n = min(np.int64(x[slot, LEN] - x[slot, COMP]), s.budget) if prefill else np.int64(1)
        if s.gpu_free < touched(s, slot):
            tail = _make_space(s, i, tail)
            if tail == i:
                break
        append_slots(s, slot)
        s.budget -= n
        s.seqs += 1
        add_adapter(s, slot)
        place(s, slot, n)
        if not prefill:
            _put(s, 3, slot)
        elif s.finishing_first and n < x[slot, LEN] - x[slot, COMP]:
            s.skip[s.n_lists[4]] = slot  # held back: it goes behind those that finish
            s.n_lists[4] += 1
        else:
            _put(s, 0, slot)
        i += 1
    late = s.n_lists[4]  # prompts held back
    early = s.n_lists[0]
    for j in range(early):
        s.lists[4, j] = s.lists[0, j]
    for j in range(late):
        s.lists[4, early + j] = s.skip[j]
    s.n_lists[4] = early + late
    s.n_lists[0] = 0
    while i < tail:
        _put(s, 0, run[i])
        i += 1
    left = s.n_lists[0]
    if not s.preempted and s.n_swapped > 0:
        swap_ins(s)
    if s.budget > 0:
        prefills(s, s.n_run if s.by_arrival else left)
    for j in range(s.n_victims):
        queue_push_front(s, s.victims[j])
    n_run = 0
    for which in range(6):
        for j in range(s.n_lists[which]):
            run[n_run] = s.lists[which, j]
            n_run += 1
    s.n_run = n_run


@inline
def _sums(s):
    """The sums of the batch; prompts count as computed."""
    x = s.r_x
    p = s.p
    q_slot, q_tok, q_aux = s.q_slot, s.q_tok, s.q_aux
    rows = s.rows
    ctx = tokens = prompts = sampled = prefill_ctx = np.int64(0)
    work = 0.0
    for j in range(rows):
        slot = q_slot[p, j]
        u = np.uintp(slot)
        if x[u, PREFILL] == 0:
            ctx += x[u, LEN]
            sampled += 1
            q_aux[p, j] = GHOST if x[u, STATUS] == ENDED else SAMPLES
        else:
            n = q_tok[p, j]
            c = x[u, COMP]
            x[u, COMP] = c + n
            prompts += 1
            tokens += n
            prefill_ctx += c + n
            work += float(n) * (c + 0.5 * n)
            if c + n == x[u, LEN]:
                x[u, PREFILL] = 0
                q_aux[p, j] = SAMPLES
                sampled += 1
            else:
                q_aux[p, j] = CHUNK
    f = s.q_feat[p]
    decodes = rows - prompts
    f[ROWS] = rows
    f[DECODE_ROWS] = decodes
    f[DECODE_TOKENS] = decodes
    f[DECODE_CTX] = ctx
    f[PREFILL_ROWS] = prompts
    f[PREFILL_TOKENS] = tokens
    f[PREFILL_CTX] = prefill_ctx
    f[PREFILL_WORK] = work
    f[SAMPLED] = sampled
    f[TOKENS] = tokens + decodes
    if s.padded and prompts > 0:  # computed as a rectangle
        f[TOKENS] = prompts * s.longest
        f[PREFILL_WORK] = 0.5 * prompts * float(s.longest) * s.longest
    f[COPIED_BLOCKS] = s.copied * s.block_size / 16.0  # the cost counts them in blocks of 16 tokens
    s.q_rows[p] = rows
    return decodes


@kernel
def _settle(s):
    """Requests that ended with the step before: the scheduler learns of them while this step runs; then their blocks are free."""
    x = s.r_x
    n = 0
    for i in range(s.n_run):
        slot = s.run[i]
        if x[slot, STATUS] == ENDED:
            s.gpu_free += x[slot, BLOCKS]
            x[slot, BLOCKS] = 0
            if x[slot, PLACED] != s.step_no:
                free_slot(s, slot)
        else:
            s.run[n] = slot
            n += 1
    s.n_run = n
    s.n_ended = 0
    s.stuck = False


@inline
def _hopeless(s):
    """Nothing runs, and what is swapped out does not fit above the watermark: upstream would ask for ever; the request fails here."""
    slot = s.swapped[0]
    s.n_swapped -= 1
    for i in range(s.n_swapped):
        s.swapped[i] = s.swapped[i + 1]
    ignore(s, slot)


@kernel
def _log_step(s):
    log_event(s, STEP, np.int64(s.now), np.int64(s.gpu_free))
    for j in range(s.rows):
        log_event(s, ROW, s.r_id[s.q_slot[s.p, j]], np.int64(s.q_tok[s.p, j]))


def plan_v0(s):
    """One call of ``schedule()``, repeated while it yields nothing but still changed something."""
    p = next_place(s)
    clear_place(s, p)
    s.p = p
    s.rows = 0
    s.copied = 0
    s.g_blocked = False
    while s.n_run + s.w_len + s.n_swapped > 0:
        s.step_no += 1
        s.rows = 0
        s.prompts = 0
        s.longest = 0
        s.budget = s.max_tokens
        s.preempted = False
        for j in range(6):
            s.n_lists[j] = 0
        idle = s.n_run == 0
        if s.chunked:
            _chunked(s)
        else:
            _default(s)
        if s.rows > 0:
            break
        if idle and s.n_swapped > 0:
            _hopeless(s)
    s.g_running = s.n_run
    s.g_waiting = s.w_len + s.n_swapped
    if s.rows == 0:
        s.pure = False
        s.g_kv_used = float(s.gpu_total - s.gpu_free)
        return NOTHING
    if s.log_on:
        _log_step(s)
    decodes = _sums(s)
    s.pure = decodes == s.rows and s.rows == s.n_run and s.n_ended == 0 and s.copied == 0
    s.stuck = not s.preempted and not s.by_priority and s.delay == 0.0 and s.max_loras == 0
    if s.n_ended > 0:
        _settle(s)
        s.g_running = s.n_run
    s.g_kv_used = float(s.gpu_total - s.gpu_free)
    return BATCH
