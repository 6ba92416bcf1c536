# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Prompts from the queue and swapped requests (``Scheduler._schedule_prefills``, ``_schedule_swapped``, ``_schedule_priority_preemption``)."""

from sim.engine.queue import queue_head, queue_pop, queue_push_front
from sim.engine.schedulers.vllm_v0.memory import (
    LATER,
    NEVER,
    OK,
    can_allocate,
    can_swap_in,
    drop_victim,
    ignore,
    swap_in,
)
from sim.engine.schedulers.vllm_v0.queues import adapter_fits, add_adapter, after, sort_slots, sort_waiting
from sim.engine.schedulers.vllm_v0.state import (
    BLOCKS,
    COMP,
    LEN,
    PLACED,
    PREFILL,
    RUNNING,
    STATUS,
)
from sim.engine.state import INF, first_scheduled
from sim.jit import inline, kernel


@inline
def place(s, slot, tokens):
    """One more row of the step."""
    p, i = s.p, s.rows
    s.q_slot[p, i] = slot
    s.q_tok[p, i] = tokens
    s.rows = i + 1
    s.r_x[slot, PLACED] = s.step_no


@kernel
def passed_delay(s, running):
    """``_passed_delay``: with a delay factor prompts wait for others to join them. ``running``: how many requests upstream sees running."""
    if s.prev_prompt:
        s.latency = s.now - s.prev_time
    s.prev_time = s.now
    s.prev_prompt = False
    if s.delay <= 0.0 or s.w_len == 0:
        return True
    if not s.by_arrival or s.earliest == INF:  # the older scheduler works on a copy of the queue
        s.earliest = INF
        for i in range(s.w_len):
            s.earliest = min(s.earliest, s.r_arrival[s.w_slot[(s.w_head + i) % s.w_slot.size]])
    return s.now - s.earliest > s.delay * s.latency or running == 0


@inline
def prefills(s, running):
    """Waiting requests, head of line, until one does not fit; they are appended to list 5."""
    x = s.r_x
    n_skip = 0
    total = 0  # prompt tokens admitted
    s.earliest = INF
    while passed_delay(s, running) and s.w_len > 0:
        slot = queue_head(s)
        n = x[slot, LEN] - x[slot, COMP]
        if s.chunked:
            n = min(n, s.budget)
        status = can_allocate(s, slot)
        if status == LATER:
            s.g_blocked = True
            break
        if status == NEVER:
            queue_pop(s)
            ignore(s, slot)
            continue
        if not adapter_fits(s, slot):
            queue_pop(s)
            s.skip[n_skip] = slot
            n_skip += 1
            continue
        if s.seqs + 1 > s.max_run or n == 0:
            break
        if s.padded:
            longest = max(s.longest, n)
            padded = (s.prompts + 1) * longest
            if padded > s.max_tokens or padded - total - n > s.max_paddings:
                break
            s.longest = longest
        elif n > s.budget:
            break
        queue_pop(s)
        total += n
        s.budget -= n
        s.seqs += 1
        s.prompts += 1
        add_adapter(s, slot)
        blocks = (x[slot, LEN] + s.block_size - 1) // s.block_size
        x[slot, BLOCKS] = blocks
        s.gpu_free -= blocks
        x[slot, STATUS] = RUNNING
        first_scheduled(s, slot)
        place(s, slot, n)
        s.lists[5, s.n_lists[5]] = slot
        s.n_lists[5] += 1
    for i in range(n_skip - 1, -1, -1):
        queue_push_front(s, s.skip[i])
    if s.prompts > 0:
        s.prev_prompt = True


@inline
def swap_ins(s):
    """Swapped requests, until one does not fit; decodes are appended to list 1, prompts to list 2."""
    x = s.r_x
    if s.by_arrival:
        sort_slots(s, s.swapped, s.n_swapped, False)
    a = s.swapped
    kept = 0
    i = 0
    while i < s.n_swapped:
        slot = a[i]
        if not s.never_swaps and not adapter_fits(s, slot):  # to 0.3 the adapter is asked about first
            a[kept] = slot
            kept += 1
            i += 1
            continue
        status = can_swap_in(s, slot)
        if status == LATER:
            s.g_blocked = True
            break
        if status == NEVER:
            ignore(s, slot)
            i += 1
            continue
        if not adapter_fits(s, slot):
            a[kept] = slot
            kept += 1
            i += 1
            continue
        n = x[slot, LEN] - x[slot, COMP] if x[slot, PREFILL] == 1 else 1
        if n > s.budget or s.seqs + 1 > s.max_run:
            break
        add_adapter(s, slot)
        swap_in(s, slot)
        place(s, slot, n)
        s.budget -= n
        s.seqs += 1
        which = 2 if x[slot, PREFILL] == 1 else 1
        s.lists[which, s.n_lists[which]] = slot
        s.n_lists[which] += 1
        i += 1
    if i > kept:
        while i < s.n_swapped:
            a[kept] = a[i]
            kept += 1
            i += 1
        s.n_swapped = kept


@kernel
def priority_preemption(s):
    """Sort both queues; the least urgent running requests make room for the head of the queue if it is more urgent."""
    x = s.r_x
    sort_slots(s, s.run, s.n_run, True)
    if s.w_len > 0:
        slot = queue_pop(s)
        n = x[slot, LEN] - x[slot, COMP]
        s.n_victims = 0
        while s.n_run > 0 and after(s, s.run[s.n_run - 1], slot, True):
            if can_allocate(s, slot) == OK and 0 < n <= s.budget and s.seqs + 1 <= s.max_run:
                break
            s.n_run -= 1
            s.seqs -= 1
            drop_victim(s, s.run[s.n_run])
        for i in range(s.n_victims):
            queue_push_front(s, s.victims[i])
        queue_push_front(s, slot)
        s.n_victims = 0
    sort_waiting(s)
