# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""TGI's router: who gets in, and how a batch is formed from the queue.

*Source*: text-generation-inference 3.3 (db931fcf): ``router/src/infer/mod.rs`` generate_stream, ``router/src/validation.rs``,
``backends/v3/src/queue.rs`` State::next_batch, ``backends/v2/src/queue.rs``.
"""

import numpy as np

from sim.engine.kv.tgi_blocks import NO_KEY, allocate, release
from sim.engine.kv.tgi_keys import add_piece, free_key
from sim.engine.kv.tgi_trie import START
from sim.engine.outline import outlined
from sim.engine.queue import queue_head, queue_pop, queue_push, queue_push_front
from sim.engine.schedulers.tgi.state import AGAIN, BACK, GONE, NONE, TgiState
from sim.engine.state import INF, first_scheduled, free_slot, record_end
from sim.jit import flat, inline
from sim.ledger import FAILED, REJECTED


def enqueue(s, slot):
    """A permit, validation, and the tail of the queue; 429 and 422 are answered at once (generate_stream)."""
    slot = np.int64(slot)
    at = s.r_arrival[slot]
    in_use = s.in_use
    if at < s.freed_at:
        in_use += s.freed  # given back after this arrival
    prompt = np.int64(s.r_prompt[slot])
    limit = min(np.int64(s.r_max[slot]), s.leg)
    if in_use >= s.permits:
        s.n_overloaded += 1
        record_end(s, slot, at, REJECTED)
        forget(s, slot)
    elif prompt < 1 or limit < 1 or prompt + limit > s.max_total or prompt > s.max_input:
        s.n_invalid += 1
        record_end(s, slot, at, REJECTED)
        forget(s, slot)
    else:
        s.in_use += 1
        s.t_prompt[slot] = prompt
        s.t_limit[slot] = limit
        queue_push(s, slot)
        s.notified = True
        s.g_waiting = s.w_len


@inline
def forget(s, slot):
    """The request is gone."""
    if s.t_leaves[slot] < INF:
        s.t_leaves[slot] = INF
        s.leavers -= 1
    s.t_logprobs[slot] = 0
    free_slot(s, slot)


@inline
def give_permit(s):
    """A response stream has ended."""
    if s.freed_at != s.now:
        s.freed_at = s.now
        s.freed = 0
    s.freed += 1
    s.in_use -= 1


@inline
def prompt_key(s, slot):
    """The pieces of a request's prompt, or NO_KEY where it may not use the prefix cache."""
    if not s.caching or s.t_logprobs[slot] != 0:
        return NO_KEY
    first = NO_KEY
    last = NO_KEY
    o = s.r_span[slot]
    for j in range(o, o + np.int64(s.r_spans[slot])):
        last = add_piece(s.kv, last, s.sp_id[j], s.sp_start[j], s.sp_len[j])
        if first == NO_KEY:
            first = last
    if first == NO_KEY:
        first = last = add_piece(s.kv, last, -1 - s.r_out_content[slot], START, np.int64(s.r_prompt[slot]))
    if s.t_prompt[slot] > s.r_prompt[slot]:
        add_piece(s.kv, last, s.r_out_content[slot], START, s.t_prompt[slot] - s.r_prompt[slot])
    return first


@inline
def put_out(s, slot, what):
    """Have the blocks of a request given back before the next decision."""
    s.o_slot[s.n_out] = slot
    s.o_what[s.n_out] = what
    s.n_out += 1


@outlined(TgiState)
def give_back(s):
    """Free the blocks of requests that left the batch or were put back. Their prompts stay cached: also those nobody computed.

    A request whose leg of 1,024 tokens ended goes to the tail of the queue with what it generated as part of its prompt.
    """
    for i in range(s.n_out):
        slot = s.o_slot[i]
        what = s.o_what[i]
        if s.v3 and not s.padded:
            cache = np.int64(1 if s.phantom or what != BACK else 0)
            key = prompt_key(s, slot)
            release(s.kv, slot, s.t_blocks[slot], s.t_node[slot], s.t_prefix[slot], key, s.t_prompt[slot], cache)
            free_key(s.kv, key)
        if what == GONE:
            forget(s, slot)
        elif what == AGAIN:
            s.t_prompt[slot] = s.r_prompt[slot] + s.r_done[slot]
            s.t_limit[slot] = min(s.r_max[slot] - s.r_done[slot], s.leg)
            queue_push(s, slot)
            s.notified = True
    s.n_out = 0
    return np.int64(0)


@flat
def _allocate(s, slot, length, limit):
    """Blocks for an entry; below 0: there are too few."""
    key = prompt_key(s, slot)
    got = allocate(s.kv, slot, length + limit + s.speculate - 1, key, length)
    free_key(s.kv, key)
    if got >= 0:
        s.t_blocks[slot] = got
        s.t_node[slot] = s.kv.a_node
        s.t_prefix[slot] = s.kv.a_prefix
    return got


@flat
def _form(s, n, tokens, blocks):
    """Rows up to ``n`` are a batch."""
    s.added = n - s.n
    s.new_id = s.next_batch
    s.next_batch += 1
    s.nb_tokens = tokens
    s.nb_blocks = blocks
    longest = 0
    for i in range(s.n, n):
        slot = s.b_slot[i]
        longest = max(longest, s.t_prompt[slot])
        s.held += s.t_blocks[slot]
        first_scheduled(s, slot)
        if s.r_done[slot] == 0:
            s.r_cached[slot] = s.t_hit[slot]
    if s.padded:
        for i in range(s.n, n):
            s.t_input[s.b_slot[i]] = longest


@outlined(TgiState)
def next_batch(s, min_size, max_size, prefill_budget, token_budget):
    """Form a batch from the head of the queue: its rows are put behind the present ones. Returns how many; 0: none.

    ``min_size``, ``max_size`` may be NONE. An entry that is put back has its blocks freed, which caches a prompt nobody computed
    (``phantom_prefix``).
    """
    s.stuck = False
    if s.v3 and (prefill_budget == 0 or token_budget == 0):
        return np.int64(0)
    if s.w_len == 0 or s.w_len < min_size or max_size == 0:
        return np.int64(0)
    block = s.block
    prefill_budget = (prefill_budget + block - 1) // block * block
    n = s.n
    longest = 0
    prefill = 0
    decode = 0
    blocks = 0
    while s.w_len > 0:
        slot = np.int64(queue_head(s))
        if s.t_leaves[slot] <= s.now:
            queue_pop(s)
            record_end(s, slot, s.now, FAILED)
            give_permit(s)
            forget(s, slot)
            continue
        length = s.t_prompt[slot]
        limit = s.t_limit[slot]
        chunk = NONE
        hit = 0
        if s.padded or not s.v3:
            if s.padded:
                longest = max(longest, length)
                prefill = (n - s.n + 1) * longest
                decode += limit
            else:
                prefill += (length + block - 1) // block * block
                decode += ((min(limit, max(0, s.window - length)) if s.window > 0 else limit) + block - 1) // block * block
            if prefill > prefill_budget or prefill + decode + s.speculate > token_budget:
                s.stuck = n == s.n
                break
            s.t_blocks[slot] = 0 if s.v3 else (length + limit - 1 + block - 1) // block
        else:
            got = _allocate(s, slot, length, limit)
            if got < 0:
                s.stuck = n == s.n
                break
            blocks = max(blocks, got)
            hit = s.kv.a_prefix
            if hit == length:
                hit -= 1
            if prefill + length - hit > prefill_budget:
                if s.chunking and prefill_budget > prefill:
                    chunk = prefill_budget - prefill
                else:
                    put_out(s, slot, BACK)
                    break
            else:
                prefill += length - hit
        queue_pop(s)
        s.t_made[slot] = 0
        s.t_hit[slot] = hit
        s.t_cache[slot] = hit
        s.t_input[slot] = length - hit if chunk == NONE else chunk
        s.t_chunk[slot] = chunk
        s.b_slot[n] = slot
        n += 1
        if chunk != NONE or n - s.n == max_size:
            break
    count = n - s.n
    if count < min_size:
        for i in range(n - 1, s.n - 1, -1):
            queue_push_front(s, s.b_slot[i])
            if s.v3 and not s.padded:
                put_out(s, s.b_slot[i], BACK)
        return np.int64(0)
    if count > 0:
        _form(s, n, prefill + decode, blocks)
    return count
