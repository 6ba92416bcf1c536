# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Rounds in which every running request decodes one token and nothing else can happen, in one stroke."""

from sim.engine.schedulers.mindie.state import CAP, COMP, LATENCY, PREFILL_FIRST, ROLE_D, ROW
from sim.engine.schedulers.mindie.timeouts import steps_in_time


def steady_mindie(s):
    """See the contract. Waiting requests must be unable to get in: none there, or so few free blocks that only decodes are scheduled."""
    if s.pure != s.now or s.n_run == 0 or s.least < 3 or s.empty or s.new_first:
        return 0
    if s.n_swap > 0 or s.dynamic or s.policy == LATENCY or s.n_run > s.mb or s.n_run > s.max_tokens:
        return 0
    if s.role == ROLE_D:
        if s.remote_more or s.now >= s.horizon:
            return 0
    elif s.w_len > 0 and (s.chunked or s.policy != PREFILL_FIRST or s.free_blocks >= s.reserve):
        return 0
    k = s.least - 1
    if s.caching:
        k = min(k, s.room)
    fits = s.free_blocks // s.n_run
    if k // s.block_size + 1 > fits:
        k = (fits - 1) * s.block_size
    return max(steps_in_time(s, k), 0)


def apply_mindie(s, k):
    """``k`` such rounds are done."""
    x, run, done, last, prompt = s.x, s.run, s.r_done, s.r_last_token, s.r_prompt
    size = s.block_size
    need = 0
    tick = int(s.q_start[(s.q_head - 1 + s.q_start.size) % s.q_start.size] / s.tick)  # of the last round
    for i in range(s.n_run):
        slot = run[i]
        done[slot] += k
        last[slot] = s.now
        table = prompt[slot] + done[slot] - 1  # the newest token is not in the table yet
        while x[slot, CAP] < table:
            x[slot, CAP] += size
            need += 1
        if s.chunked:
            x[slot, COMP] = table
        if s.caching:
            s.r_tokens[x[slot, ROW]] = table
            s.r_tick[x[slot, ROW]] = tick
    s.free_blocks -= need
    s.least -= k
    s.room -= k
    s.pure = s.now
    s.waste = 0
    s.g_kv_used = float(s.total - s.free_blocks)
