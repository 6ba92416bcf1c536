# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Who joins the next prefill batch: ``PrefillAdder`` and the pass that drives it.

Source: SGLang 0.5.23 ``managers/schedule_policy.py: PrefillAdder``, ``mem_cache/prefill_budget.py: PrefillBudget``,
``managers/scheduler.py: Scheduler._get_new_batch_prefill_raw``.
"""

from typing import Final

from sim.engine.kv.radix_walk import radix_move
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.admit_adapters import _adapter_fits, _adapters_of_batch, _note_adapter
from sim.engine.schedulers.sglang.fetching import fetch_holds
from sim.engine.schedulers.sglang.memory import enqueue_waiting, release_retracted
from sim.engine.schedulers.sglang.order import match_waiting, order_waiting
from sim.engine.schedulers.sglang.second import state_of_hit
from sim.engine.schedulers.sglang.state import (
    CLIP_MAX_NEW,
    LOG_PREEMPT,
    SHORTEST,
    STATES,
    WINDOW,
    SglangState,
    ceil_page,
    ignores_eos,
    total_len,
)
from sim.engine.state import log_event
from sim.jit import flat, inline

CONTINUE: Final = 0
NO_TOKEN: Final = 1
OTHER: Final = 2


@inline
def _ratio_of(s, slot):
    return 1.0 if ignores_eos(s, slot) else s.ratio


@inline
def reserved(s, slot):
    """Tokens a running request is expected to generate still."""
    return min(s.r_max_new[slot] - s.r_done[slot] + 0, CLIP_MAX_NEW) * _ratio_of(s, slot)


@inline
def left_total(s):
    return s.tree.free + s.tree.evictable - s.a_total


@inline
def left_current(s):
    return s.tree.free + s.tree.evictable - s.a_current


@outlined(SglangState)
def verdict_of(s):
    """``budget_state``: may another candidate be looked at?"""
    if left_total(s) <= 0 or left_current(s) <= 0:
        return NO_TOKEN
    if s.a_input <= 0 or (s.chunk > 0 and s.a_chunk <= 0):
        return OTHER
    return CONTINUE


@inline
def charge(s, slot, extend, max_new):
    """Take a request into the batch and charge the budgets; one page extra for each request."""
    s.r_end[slot] = s.r_pre[slot] + extend
    s.can[s.n_can] = slot
    s.n_can += 1
    e = ceil_page(s, extend)
    s.a_total += e + s.page + max_new
    s.a_current += e + s.page
    s.a_input -= e
    s.a_chunk -= e


@flat
def _open_budget(s):
    mixed = s.n_run if s.mixed else 0
    total = 0.0
    for i in range(s.n_run):
        total += reserved(s, s.run[i])
    s.a_total = mixed + total
    s.a_current = mixed
    s.a_input = s.max_prefill - mixed
    s.a_chunk = s.chunk - mixed
    s.a_window = 0
    s.n_can = 0
    s.n_pre = 0
    s.x_n = -1


@inline
def beside_shorter(s, left, room):
    """``shortest_prefill_chunk_limit``: of ``room`` tokens for a chunk, what shorter prompts that wait leave; ``left``: what it still has."""
    if s.policy == SHORTEST and s.a_chunk >= 2 * s.page:
        held = 0
        for i in range(s.w_lo, s.w_hi):
            x = s.w_slot[i]
            w = max(1, total_len(s, x) - s.r_hit[x])
            c = ceil_page(s, w)
            if w >= left or held + c > s.a_chunk - s.page:
                break
            held += c
        if held > 0:
            room = min(room, (s.a_chunk - held) // s.page * s.page)
    return room


@outlined(SglangState)
def _add_chunked(s):
    """``add_chunked_req``: the request whose prompt is partly computed goes first and always progresses.

    0, and nothing done, if the pool has no room for that: upstream raises, here it waits for the next pass.
    """
    slot = s.chunked
    n = total_len(s, slot)
    s.r_fill[slot] = n
    left = n - s.r_pre[slot]
    room = min(s.a_chunk, int(left_total(s)))
    if room <= 0:
        room = s.a_chunk
    room = beside_shorter(s, left, room)
    cut = left > room
    extend = min(left, room)
    if ceil_page(s, s.r_pre[slot] + extend) - ceil_page(s, s.r_pre[slot] + 0) > s.tree.free + s.tree.evictable:
        return 0
    charge(s, slot, extend, 0 if cut else min(s.r_max_new[slot] + 0, CLIP_MAX_NEW))
    if not cut:
        s.chunked = -1
    return 1


@inline
def _exact_state(s, slot):
    """(tokens still to come, tokens held) of one request."""
    return float(s.r_max_new[slot]) * _ratio_of(s, slot) - s.r_done[slot], total_len(s, slot)


@inline
def _exact_put(s, i, left, held):
    for k in range(s.x_n, i, -1):
        s.x_left[k] = s.x_left[k - 1]
        s.x_held[k] = s.x_held[k - 1]
    s.x_left[i] = left
    s.x_held[i] = held
    s.x_n += 1


@outlined(SglangState)
def _add_ignore_eos(s, slot):
    """``add_one_req_ignore_eos`` (no cache): walk through the finishes to come and see that memory never runs out."""
    left = total_len(s, slot) - s.r_pre[slot]
    paged = ceil_page(s, left) + s.page
    if paged > min(float(left_current(s)), left_total(s)):
        return NO_TOKEN
    if s.x_n < 0:  # first candidate: all requests, sorted by tokens left (stable insertion)
        s.x_n = 0
        for k in range(-1, s.n_run + s.n_can):
            x = slot
            if k >= s.n_run:
                x = s.can[k - s.n_run] + 0
            elif k >= 0:
                x = s.run[k] + 0
            a, b = _exact_state(s, x)
            if a > 0:
                i = s.x_n
                while i > 0 and s.x_left[i - 1] > a:
                    i -= 1
                _exact_put(s, i, a, b)
    else:
        a, b = _exact_state(s, slot)
        if a > 0:
            i = 0
            while i < s.x_n - 1 and a > s.x_left[i]:
                i += 1
            _exact_put(s, i, a, b)  # the largest of all goes before the last one, as upstream's insertion loop has it
    current = left_current(s) - paged
    freed = 0
    for i in range(s.x_n):
        rows = s.x_n - i
        if current + freed - s.x_left[i] * rows <= rows:
            return NO_TOKEN
        freed += s.x_held[i]
    if s.chunk <= 0 or left <= s.a_chunk:
        charge(s, slot, left, min(s.r_max_new[slot] + 0, CLIP_MAX_NEW))
    elif s.a_chunk <= 0:
        return OTHER
    else:
        s.new_chunked = slot
        charge(s, slot, s.a_chunk, 0)
    return verdict_of(s)


@inline
def cut_after(s, slot, limit):
    """How many tokens a prompt computes that is cut after ``limit``: to a whole page; none beside a chunk where the shortest go first."""
    if s.chunked >= 0 and s.policy == SHORTEST:
        return 0
    pre = s.r_pre[slot] + 0
    return (pre + limit // s.page * s.page) // s.page * s.page - pre


@outlined(SglangState)
def _add_one(s, slot):
    """``add_one_req``: CONTINUE, or why the pass ends."""
    n = total_len(s, slot)
    match_waiting(s, slot, n - 1)
    s.r_own[slot] = s.r_pre[slot]
    s.r_fill[slot] = n
    if s.pool == STATES:
        state_of_hit(s, slot)
    if s.prefill_max_requests > 0 and s.n_can >= s.prefill_max_requests:
        return OTHER
    if s.tree.off and ignores_eos(s, slot):
        return _add_ignore_eos(s, slot)
    max_new = s.r_max_new[slot] + 0
    left = n - s.r_pre[slot]
    total = left + min(max(max_new - s.r_done[slot], 0), CLIP_MAX_NEW) + s.page
    node = s.r_node[slot] + 0
    radix_move(s.tree, -1, node)  # the prefix must not be evicted for its own user
    verdict = CONTINUE
    extend = left
    max_new = min(max_new, CLIP_MAX_NEW)
    cut = s.chunk > 0 and ceil_page(s, left) > s.a_chunk
    if not total < left_total(s):
        verdict = NO_TOKEN
    elif s.chunk <= 0 and s.n_can > 0 and ceil_page(s, left) >= s.a_input:
        verdict = OTHER
    elif cut:
        extend = cut_after(s, slot, s.a_chunk)
        max_new = 0
        if extend <= 0:
            verdict = OTHER
    if verdict != CONTINUE:
        radix_move(s.tree, node, -1)
        return verdict
    s.r_lock[slot] = node
    if cut:
        s.new_chunked = slot
    charge(s, slot, extend, max_new)
    return verdict_of(s)


@outlined(SglangState)
def _try_preempt(s, slot):
    """``preempt_to_schedule``: take rows from running requests of clearly lower priority, lowest first, newest first.

    The tokens left to compute are those of the last refresh (``r_fill``): on a first try under fcfs and lof the prompt does not count.
    """
    need = s.r_fill[slot] - s.r_pre[slot] + min(s.r_max_new[slot] + 0, CLIP_MAX_NEW) - left_total(s)
    mine = s.r_priority[slot] * s.priority_sign
    k = 0
    while k < s.n_run:  # pick the next victim until their reservations cover the need
        best = -1
        for i in range(s.n_run):
            x = s.run[i]
            if s.r_ended[x] == 1:
                continue
            taken = False
            for j in range(k):
                taken = taken or s.pick[j] == x
            if taken:
                continue
            if best >= 0:
                a = (s.r_priority[x] - s.r_priority[best]) * s.priority_sign
                if a > 0 or (a == 0 and s.r_stamp[x] < s.r_stamp[best]):
                    continue
            best = x + 0
        if best < 0 or mine - s.r_priority[best] * s.priority_sign <= s.threshold:
            break
        s.pick[k] = best
        k += 1
        need -= reserved(s, best)
        if need <= 0:
            break
    if k == 0 or need > 0:
        return 0
    m = 0
    count = 0
    rows = s.n_run
    for i in range(rows):
        x = s.run[i]
        taken = False
        for j in range(k):
            taken = taken or s.pick[j] == x
        if taken:
            s.a_total -= reserved(s, x)
            count += 1
            release_retracted(s, x, rows - count)
            log_event(s, LOG_PREEMPT, s.r_id[x], 0)
        else:
            s.run[m] = x
            m += 1
    s.n_run = m
    for j in range(k):
        s.pre_slot[s.n_pre] = s.pick[j]
        s.n_pre += 1
    return 1


@inline
def _allocatable(s, held):
    return min(s.micro - s.n_run, max(s.rows_free + held, 0))


@inline
def _wait_for_slots(s):
    """The queue's head waits because slots for states limit the running requests."""
    s.g_blocked = True
    s.g_short = 1


@outlined(SglangState)
def admit(s):
    """One pass over the queue. Fills ``can`` (requests whose next extend is r_pre … r_end), takes them off the queue; returns how many."""
    s.n_can = 0
    if s.preempt_on or s.n_run == 0 or s.pool == WINDOW:
        s.run_full = False
    idle = s.w_hi == s.w_lo
    if (s.run_full or idle) and s.chunked < 0:
        return 0
    if s.min_free_slots > 0 and s.chunked < 0 and s.n_run > 0 and _allocatable(s, 0) < s.min_free_slots:
        return 0
    if _allocatable(s, 0) <= 0 and s.chunked < 0 and not s.preempt_on:
        s.run_full = True
        if s.few_slots:
            _wait_for_slots(s)
        return 0
    order_waiting(s)
    _open_budget(s)
    s.new_chunked = -1
    held = 0
    if s.chunked >= 0:
        held = _add_chunked(s)
        if held == 0:
            return 0
        held = max(held, 0)  # −1: it waits, and the others are looked at
    i = s.w_lo
    skipped = 0
    if s.lora_limit > 0:
        _adapters_of_batch(s)
    s.g_blocked = False
    while i < s.w_hi:
        if verdict_of(s) == OTHER:
            break
        slot = s.w_slot[i]
        if s.lora_limit > 0 and _adapter_fits(s, s.r_lora[slot]) == 0:
            s.o_tmp[skipped] = slot
            skipped += 1
            i += 1
            continue
        if s.n_can >= _allocatable(s, held):
            s.run_full = True
            if s.few_slots:
                _wait_for_slots(s)
        if s.run_full and not (s.preempt_on and _try_preempt(s, slot) == 1):
            break
        if s.l_on and fetch_holds(s, slot) == 1:
            s.o_tmp[skipped] = slot
            skipped += 1
            i += 1
            continue
        verdict = _add_one(s, slot)
        if s.n_can > 0 and s.can[s.n_can - 1] == slot:
            i += 1
            if s.lora_limit > 0:
                _note_adapter(s, s.r_lora[slot])
        if verdict != CONTINUE:
            if verdict == NO_TOKEN:
                s.run_full = s.n_can > 0 or s.n_run > 0
                s.g_blocked = i < s.w_hi
                if s.pool == STATES:
                    s.g_short = 0
            break
    s.w_lo = i - skipped
    for j in range(skipped):
        s.w_slot[s.w_lo + j] = s.o_tmp[j]
    for j in range(s.n_pre):
        enqueue_waiting(s, s.pre_slot[j])
    if s.n_can == 0:
        return 0
    if s.new_chunked >= 0:
        s.chunked = s.new_chunked
    if s.chunked >= 0:
        s.r_middle[s.chunked] += 1
    return s.n_can
