# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Unchanged decode steps in one stroke."""

from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.result import gauges
from sim.engine.schedulers.sglang.second import pass_by, quiet_steps
from sim.engine.schedulers.sglang.sides import DECODE_SIDE
from sim.engine.schedulers.sglang.state import PLAIN, WINDOW, SglangState


@outlined(SglangState)
def unchanged_steps(s):
    """Decisions that repeat the last decode batch: no finish, no admission pass, no eviction or retraction."""
    if (
        s.slots > 1
        or s.n_mail > 0
        or s.same < s.depth
        or s.q_len != s.depth - 1
        or s.n_ended > 0
        or s.chunked >= 0
        or s.spec_reserve > 0
        or s.z_n > 0
    ):
        return 0
    k = 1 << 40
    if s.side == DECODE_SIDE:
        if s.horizon <= s.now or (s.n_ready > 0 and s.n_run < s.micro) or (s.w_hi > s.w_lo and not s.stuck):
            return 0
    elif s.w_hi > s.w_lo:  # a pass would be made unless it ends before it looks at the queue
        free_rows = min(s.micro - s.n_run, max(s.rows_free, 0))
        blocked = not s.preempt_on and ((s.run_full and s.pool != WINDOW) or free_rows <= 0)
        if not blocked and not (s.min_free_slots > 0 and free_rows < s.min_free_slots and not s.preempt_on):
            k = s.interval_left if s.n_run >= s.interval_min_bs else 0
            if k <= 1:
                return 0
    n = s.n_run
    k = min(k, s.least_left - 1)
    if s.l_on:
        k = min(k, s.l_due - s.l_pass - 1)
    if s.lazy:
        k = min(k, quiet_steps(s))
    free = s.tree.free
    if s.pool == WINDOW:
        free = min(free, s.tree.w_free)
    if s.page == 1:
        return min(k, free // n)
    rounds = free // (n * s.page) - 1  # whole pages for every row, and the over-estimate of the eviction check
    return min(k, max(rounds, 0) * s.page)


@outlined(SglangState)
def take_unchanged(s, k):
    """Advance the running batch by ``k`` steps."""
    if s.pool != PLAIN:
        pass_by(s, k)
    now = s.now
    page = s.page
    pages = 0
    for i in range(s.n_run):
        x = s.run[i]
        c = s.r_com[x]
        s.r_done[x] += k
        s.r_last_token[x] = now
        s.r_com[x] = c + k
        if page > 1:
            pages += (c + k + page - 1) // page - (c + page - 1) // page
    taken = pages * page if page > 1 else s.n_run * k
    s.tree.free -= taken
    if s.pool == WINDOW:
        s.tree.w_free -= taken
    s.least_left -= k
    s.l_pass += k
    s.processed += s.run_extend * k
    s.interval_left = max(0, s.interval_left - k)
    if s.recv_interval > 1:
        s.recv_count = (s.recv_count + k) % s.recv_interval
    for _ in range(k):
        if s.ratio <= s.min_ratio:
            break
        s.ratio = max(s.ratio - s.decay, s.min_ratio)
    gauges(s)
    return 0
