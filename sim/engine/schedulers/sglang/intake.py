# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Requests that arrive: ``_handle_generate_request``."""

from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.fetching import drop_fetch
from sim.engine.schedulers.sglang.memory import enqueue_waiting
from sim.engine.schedulers.sglang.pool_state import reset_second
from sim.engine.schedulers.sglang.sides import DECODE_SIDE
from sim.engine.schedulers.sglang.state import PLAIN, SglangState, ceil_page
from sim.engine.state import free_slot, record_end
from sim.ledger import REJECTED


@outlined(SglangState)
def _turn_away(s, slot):
    record_end(s, slot, s.now, REJECTED)
    free_slot(s, slot)
    return 0


@outlined(SglangState)
def _lowest_waiting(s):
    """Position of the waiting request of lowest priority, the newest among equals."""
    worst = s.w_lo
    for i in range(s.w_lo + 1, s.w_hi):
        a = (s.r_priority[s.w_slot[i]] - s.r_priority[s.w_slot[worst]]) * s.priority_sign
        if a < 0 or (a == 0 and s.r_stamp[s.w_slot[i]] >= s.r_stamp[s.w_slot[worst]]):
            worst = i
    return worst


@outlined(SglangState)
def enqueue_request(s, slot):
    """``_handle_generate_request``: too long a prompt or too long a queue turns a request away; limits cut ``max_new_tokens``."""
    prompt = s.r_prompt[slot] + 0
    if prompt > s.max_req_len - 5 or (s.side == DECODE_SIDE and ceil_page(s, prompt) + s.num_reserved > s.kv_tokens):
        _turn_away(s, slot)
        return 0
    if s.max_queued > 0 and s.w_hi - s.w_lo >= s.max_queued:
        if not s.priority_on:
            _turn_away(s, slot)
            return 0
        worst = _lowest_waiting(s)
        x = s.w_slot[worst]
        if (s.r_priority[slot] - s.r_priority[x]) * s.priority_sign <= 0:
            _turn_away(s, slot)
            return 0
        for i in range(worst, s.w_hi - 1):
            s.w_slot[i] = s.w_slot[i + 1]
        s.w_hi -= 1
        if s.l_on:
            drop_fetch(s, x)
        _turn_away(s, x)
    max_new = min(s.r_max[slot] + 0, s.max_req_len - prompt - 1)
    s.r_max_new[slot] = max(0, min(max_new, s.kv_tokens - ceil_page(s, prompt) - s.page - 1))
    s.r_lock[slot] = -1
    s.r_pre[slot] = 0
    s.r_own[slot] = 0
    s.r_ins[slot] = 0
    s.r_com[slot] = 0
    s.r_alloc[slot] = 0
    s.r_end[slot] = 0
    s.r_fill[slot] = 0
    s.r_hit[slot] = 0
    s.r_middle[slot] = 0
    s.r_row[slot] = 0
    s.r_ended[slot] = 0
    s.r_retracted[slot] = 0
    s.r_batch[slot] = 0
    if s.pool != PLAIN:
        reset_second(s, slot)
        s.r_slots[slot] = 0
    enqueue_waiting(s, slot)
    s.g_waiting = s.w_hi - s.w_lo
    return 0
