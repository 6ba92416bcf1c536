# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""How much of a prompt each engine has in its prefix cache: what routers know that hear of every block an engine stores and evicts (KV events)."""

import numpy as np

from sim.engine.group import state_type
from sim.engine.kv.block_hash import extend_keys, first_key
from sim.engine.kv.blocks import cached_block
from sim.errors import NotModelledError
from sim.jit import i4s, i8, i8s, kernel, new, struct

_STATES = ("VllmState",)  # engines whose cache can be asked, by the name of their state


@struct
class Query:
    """One prompt, laid out as an engine keeps its requests."""

    r_id: i8s
    r_prompt: i4s
    r_out_content: i8s
    r_span: i8s
    r_spans: i4s
    sp_id: i8s
    sp_start: i8s
    sp_len: i8s
    block_size: i8
    hash_ahead: i8


@kernel
def _cached(states, prompt, lora, ids, starts, lengths, out):
    """Whole blocks from the first on that the cache of each engine holds, into ``out`` (i8[n]); at least one token is left to compute."""
    s = states[0]
    q = new(Query)
    q.r_id = np.zeros(1, np.int64)
    q.r_out_content = np.zeros(1, np.int64)
    q.r_prompt = np.full(1, prompt, np.int32)
    q.r_span = np.zeros(1, np.int64)
    q.r_spans = np.full(1, ids.size, np.int32)
    q.sp_id, q.sp_start, q.sp_len = ids, starts, lengths
    q.block_size, q.hash_ahead = s.block_size, s.hash_ahead
    n = min(prompt - s.hash_ahead, prompt - 1) // s.block_size
    keys = np.empty(max(n, 1), np.int64)
    extend_keys(q, 0, 0, n, first_key(lora), keys)
    for k in range(len(states)):
        found = 0
        if states[k].kv.caching:
            while found < n and cached_block(states[k].kv, keys[found]) != 0:
                found += 1
        out[k] = found


def cached_blocks(groups, block, row, as_seen, engine):
    """f8[replica]: KV blocks of a prompt that the cache of each replica holds. ``as_seen(replica)``: the request as (block, row) to one that was restarted."""
    parts, first = [], 0
    for group in groups:
        kind = getattr(state_type(group), "name", "") or state_type(group).__name__
        if kind.rpartition(".")[2] not in _STATES or group.ranks > 1:
            why = "asks for KV events, which are not modelled for this engine"
            raise NotModelledError(
                "router", engine, why, "vllm without data-parallel ranks", "where the router can do without, say so"
            )
        out = np.zeros(group.n, np.int64)
        _ask(group, block, row, out)
        for k in range(group.n):
            seen, at = as_seen(first + k)
            if seen is not block:
                fresh = np.zeros(group.n, np.int64)
                _ask(group, seen, at, fresh)
                out[k] = fresh[k]
        parts.append(out)
        first += group.n
    return np.concatenate(parts).astype(np.float64)


def _ask(group, block, row, out):
    lo, hi = int(block.span_off[row]), int(block.span_off[row + 1])
    if hi > lo:  # else nobody else has its content
        spans = block.span_id[lo:hi], block.span_start[lo:hi], block.span_len[lo:hi]
        _cached(group._states, int(block.prompt_tokens[row]), int(block.lora[row]), *spans, out)
