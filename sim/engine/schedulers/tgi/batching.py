# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""TGI's batching task and what the model server makes of a batch.

*Source*: text-generation-inference 3.3 (db931fcf): ``backends/v3/src/backend.rs`` and ``backends/v2/src/backend.rs`` batching_task, prefill,
decode, filter_batch; ``server/text_generation_server/models/flash_causal_lm.py`` concatenate, filter, generate_token.
"""

import numpy as np

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
from sim.engine.contract import BATCH, NOTHING, clear_place, next_place
from sim.engine.kv.tgi_trie import touch_path
from sim.engine.outline import outlined
from sim.engine.schedulers.tgi.queue import (
    enqueue,
    give_back,
    give_permit,
    next_batch,
    put_out,
)
from sim.engine.schedulers.tgi.state import AGAIN, ALONE, DECODE, FIRST, GONE, MIXED, NONE, POLL, RUN, STEP, WAIT, TgiState
from sim.engine.state import INF, emit, grown, record_end
from sim.jit import implement, inline
from sim.ledger import FAILED, FINISHED


@inline
def _used_blocks(s):
    """Blocks of running requests. Those of a prefix that several share are held by each of them, yet there are no more than are not free."""
    return min(s.held, s.kv.total - s.kv.free)


@inline
def _min_waiting(s):
    """Requests that must wait before the running ones are paused for them; NONE: any. In single precision, as upstream."""
    if s.waiting_tokens >= s.max_waiting:
        return NONE
    return int(np.floor(np.float32(s.n) * np.float32(s.ratio)))


def _plan(s):
    s.op = STEP
    s.first = 0
    s.added = 0
    asking = True
    while asking:
        asking = False
        give_back(s)
        if s.phase == WAIT and s.notified:  # one stored permit of the notification
            s.notified = False
            s.phase = POLL
        if s.phase == POLL or s.phase == RUN:
            least = NONE
            most = s.max_size
            prefill_budget = s.prefill_budget
            token_budget = s.token_budget
            if s.phase == RUN:
                token_budget = max(0, token_budget - s.c_tokens)
                if s.chunking:
                    most = NONE
                    prefill_budget = max(0, prefill_budget - s.c_current)
                else:
                    least = _min_waiting(s)
                    most = NONE if most == NONE else max(0, most - s.n)
            if next_batch(s, least, most, prefill_budget, token_budget) > 0:
                if s.phase == POLL:
                    s.op = FIRST
                    s.batch_id = s.new_id
                else:
                    s.op = MIXED if s.chunking else ALONE
            elif s.phase == POLL:
                s.phase = WAIT
                asking = s.notified
    s.g_waiting = s.w_len
    s.g_blocked = s.stuck
    if s.phase == WAIT:
        return NOTHING
    if s.op == ALONE:
        s.first = s.n
    s.n += s.added
    _fill(s, next_place(s))
    s.g_running = s.n
    s.g_kv_used = _used_blocks(s)
    return BATCH


@inline
def _fill(s, p):
    """The sums of the forward over rows [first, n)."""
    clear_place(s, p)
    f = s.q_feat[p]
    prefill_rows = 0
    prefill_tokens = 0
    ctx = 0
    longest = 0
    for i in range(s.first, s.n):
        slot = s.b_slot[i]
        c = s.t_input[slot]
        have = s.t_cache[slot]
        if s.t_made[slot] == 0:
            prefill_rows += 1
            prefill_tokens += c
            f[PREFILL_WORK] += c * (have + 0.5 * c)
            f[PREFILL_CTX] += have + c
        else:
            ctx += have + 1
            longest = max(longest, have + 1)
    rows = s.n - s.first
    decode_rows = rows - prefill_rows
    wide = 1 + s.speculate  # a decoding row computes its token and the guesses behind it
    f[ROWS] = rows
    f[DECODE_ROWS] = decode_rows
    f[DECODE_TOKENS] = decode_rows * wide
    f[DECODE_CTX] = longest * decode_rows if s.padded else ctx
    f[PREFILL_ROWS] = prefill_rows
    f[PREFILL_TOKENS] = prefill_tokens
    f[TOKENS] = prefill_tokens + decode_rows * wide
    f[SAMPLED] = prefill_rows + decode_rows * wide
    f[DRAFT_TOKENS] = rows * s.speculate
    s.q_rows[p] = rows
    s.prefilling = prefill_rows > 0


def _complete(s, p):
    first = s.first
    n = s.n
    chunks = s.chunking and s.prefilling
    if chunks:
        # next chunks, newest row first (generate_token); 0: the row's prompt is done with this forward
        budget = s.prefill_budget - (n - first - 1)
        for i in range(n - 1, first - 1, -1):
            slot = s.b_slot[i]
            left = s.t_prompt[slot] - s.t_cache[slot] - s.t_input[slot]
            s.b_next[i] = 0
            if left > 0:
                s.b_next[i] = max(min(left, budget), 1)
                budget -= s.b_next[i]
    more = False
    soonest = 2**30
    tokens = 0
    current = 0
    longest = 0
    remaining = 0
    j = first
    for i in range(first, n):
        slot = s.b_slot[i]
        chunk = s.b_next[i] if chunks else 0
        if chunk > 0:
            s.t_cache[slot] += s.t_input[slot]
            s.t_input[slot] = chunk
            more = True
        else:
            made = s.t_made[slot]
            new = 1
            if made == 0:
                s.t_cache[slot] += s.t_input[slot]
                s.t_input[slot] = 1
            else:
                if s.speculate > 0:
                    new = s.accepted[(s.r_id[slot] * 7919 + s.r_done[slot]) % s.accepted.size]
                    new = max(1, min(new, s.t_limit[slot] - made, s.r_output[slot] - s.r_done[slot]))
                s.t_cache[slot] += new
            made += new
            s.t_made[slot] = made
            gone = s.t_leaves[slot] <= s.now
            if not gone:
                emit(s, slot, s.now, new)
            left = min(s.t_limit[slot] - made, s.r_output[slot] - s.r_done[slot])
            if gone or left <= 0:
                _leave(s, slot, np.int64(1 if gone else 0))
                continue
            soonest = min(soonest, left)
        s.b_slot[j] = slot
        j += 1
        current += s.t_input[slot]
        tokens += s.t_blocks[slot]
        longest = max(longest, s.t_cache[slot] + s.t_input[slot])
        remaining += s.t_limit[slot] - s.t_made[slot]
    kept = j - first
    s.settled = s.op == STEP and not s.prefilling and j == n
    s.prefilling = more
    s.soonest = soonest
    s.c_current = current
    s.c_tokens = kept * longest + remaining if s.padded else tokens * s.block
    s.n = j
    if s.op == STEP:
        s.waiting_tokens += 1
        s.phase = RUN
    else:
        s.waiting_tokens = 1
        s.phase = RUN if s.op == FIRST else DECODE
    if s.op != ALONE or kept == 0:
        s.new_id = NONE  # the next decode concatenates nothing
    if s.n == 0:
        s.phase = POLL
    s.added = 0
    s.g_running = s.n
    s.g_kv_used = _used_blocks(s)


@outlined(TgiState)
def _leave(s, slot, gone):
    """A row ends: for good, or to be queued again if it only reached the end of a leg (generate_stream, "Continue request")."""
    s.stuck = False
    s.held -= s.t_blocks[slot]
    done = s.r_done[slot]
    what = GONE
    if gone == 0 and done < s.r_output[slot]:
        limit = min(s.r_max[slot] - done, s.leg)
        prompt = s.r_prompt[slot] + done
        if prompt + limit <= s.max_total and prompt <= s.max_input:
            what = AGAIN
    if what == GONE:
        record_end(s, slot, s.now, FINISHED if gone == 0 else FAILED)
        give_permit(s)
    put_out(s, slot, what)
    return np.int64(0)


def _steady_steps(s):
    if s.phase != RUN or not s.settled or s.speculate > 0 or s.n_out > 0 or s.leavers > 0:
        return 0
    k = s.soonest - 1
    if s.w_len > 0:
        # the queue is asked at each of these decisions; only where that surely is in vain
        vain = s.v3 and (s.c_tokens >= s.token_budget or (s.chunking and s.c_current >= s.prefill_budget))
        if not s.chunking and not vain:
            vain = s.max_size != NONE and s.n >= s.max_size
            if not vain and s.waiting_tokens < s.max_waiting and s.w_len < _min_waiting(s):
                k = min(k, s.max_waiting - s.waiting_tokens)
                vain = True
        if not vain and not s.stuck:
            return 0
    return k


def _apply_steady(s, k):
    if s.stuck and s.w_len > 0:
        touch_path(s.kv, s.kv.a_node, k)  # the same vain search at each decision
    for i in range(s.n):
        slot = s.b_slot[i]
        s.t_made[slot] += k
        s.t_cache[slot] += k
        s.r_done[slot] += k
        s.r_last_token[slot] = s.now
    s.soonest -= k
    s.waiting_tokens += k


def _grow(s, n):
    old = s.t_node.size
    s.t_leaves = grown(s.t_leaves, n)
    for i in range(old, n):
        s.t_leaves[i] = INF
    s.t_logprobs = grown(s.t_logprobs, n)
    s.t_prompt = grown(s.t_prompt, n)
    s.t_limit = grown(s.t_limit, n)
    s.t_made = grown(s.t_made, n)
    s.t_cache = grown(s.t_cache, n)
    s.t_input = grown(s.t_input, n)
    s.t_hit = grown(s.t_hit, n)
    s.t_chunk = grown(s.t_chunk, n)
    s.t_node = grown(s.t_node, n)
    s.t_prefix = grown(s.t_prefix, n)
    s.t_blocks = grown(s.t_blocks, n)


implement(
    TgiState,
    enqueue=enqueue,
    plan=_plan,
    complete=_complete,
    steady_steps=_steady_steps,
    apply_steady=_apply_steady,
    grow=_grow,
)
