# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The rows of a batch and their memory (``ScheduleBatch.prepare_for_extend``, ``prepare_for_decode``)."""

from sim.cost.features import (
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    DRAFT_TOKENS,
    PREFILL_CTX,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    ROWS,
    SAMPLED,
    TOKENS,
)
from sim.engine.kv.radix_evict import evict_until
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.second import before_extend, track_prompts
from sim.engine.schedulers.sglang.state import DECODE, PLAIN, WINDOW, SglangState, ceil_page
from sim.engine.state import first_scheduled


@outlined(SglangState)
def extend_place(s, p):
    """Allocate and put the admitted requests into ring place ``p`` (``prepare_for_extend``)."""
    f = s.q_feat[p]
    extend = 0
    for i in range(s.n_can):
        x = s.can[i]
        extend += s.r_end[x] - s.r_pre[x]
        if s.r_row[x] == 0:
            s.r_row[x] = 1
            s.rows_free -= 1
    if s.pool != PLAIN:
        before_extend(s)
    evict_until(s.tree, extend if s.page == 1 else extend + s.n_can * s.page)
    for i in range(s.n_can):
        x = s.can[i]
        pre, end = s.r_pre[x] + 0, s.r_end[x] + 0
        c = end - pre
        new = ceil_page(s, end) - ceil_page(s, pre)
        s.tree.free -= new
        if s.pool == WINDOW:
            s.tree.w_free -= new
        s.r_com[x] = end
        s.r_alloc[x] = end
        s.r_retracted[x] = 0
        if s.r_first_scheduled[x] != s.r_first_scheduled[x]:  # not a number yet
            s.r_cached[x] = pre
            first_scheduled(s, x)
        s.r_batch[x] = s.planned + 1
        s.q_slot[p, i] = x
        s.q_tok[p, i] = c
        s.q_aux[p, i] = pre
        f[PREFILL_TOKENS] += c
        f[PREFILL_WORK] += c * (pre + 0.5 * c)
        f[PREFILL_CTX] += end
        if x != s.chunked:
            f[SAMPLED] += 1.0
    if s.track_every > 0:
        track_prompts(s)
    f[PREFILL_ROWS] = f[ROWS] = s.n_can
    f[TOKENS] = f[PREFILL_TOKENS]
    s.q_rows[p] = s.n_can
    s.p_prefills[p] = s.n_can
    s.p_chunked[p] = s.chunked
    s.p_extend[p] = extend
    return 0


@outlined(SglangState)
def decode_rows(s, p, at):
    """Append the running requests as decode rows from row ``at``; their memory is prepared."""
    f = s.q_feat[p]
    ctx = 0
    n = s.n_run
    per_row = max(1, s.spec_draft)
    chained = at == 0 and s.last >= 0 and s.p_mode[s.last] == DECODE and not s.joined
    s.joined = False
    if not chained:
        s.chain = s.planned + 1
        for i in range(n):
            s.r_batch[s.run[i]] = s.planned + 1
    for i in range(n):
        x = s.run[i]
        s.q_slot[p, at + i] = x
        ctx += s.r_com[x]
    if s.any_lora:
        for i in range(n):
            s.q_tok[p, at + i] = per_row
    f[DECODE_ROWS] = n
    f[DECODE_TOKENS] = n * per_row
    f[DECODE_CTX] = ctx
    f[SAMPLED] += n * per_row
    f[ROWS] += n
    f[TOKENS] += n * per_row
    f[DRAFT_TOKENS] = n * s.spec_proposed
    s.q_rows[p] = at + n
    return 0
