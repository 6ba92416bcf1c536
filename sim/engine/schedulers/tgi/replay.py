# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""What replays and tests set that traffic does not have: clients that leave, prompt log-probabilities, the allocator alone."""

import numpy as np

from sim.engine.kv.tgi_blocks import NO_KEY, allocate, release
from sim.engine.kv.tgi_keys import add_piece, free_key
from sim.engine.kv.tgi_trie import START
from sim.engine.state import INF
from sim.jit import inline, kernel


@kernel
def set_client(s, leaves, logprobs):
    """For the request submitted last: when its client leaves (inf: never), and whether it wants prompt log-probabilities (1)."""
    slot = s.in_slot[(s.in_head + s.in_len - 1) % s.in_slot.size]
    if leaves < INF:
        s.leavers += 1
    s.t_leaves[slot] = leaves
    s.t_logprobs[slot] = logprobs


@inline
def _key(k, part, keyed):
    """Pieces (content id, length) as a key, and its tokens."""
    first = NO_KEY
    last = NO_KEY
    n = 0
    if keyed:
        for i in range(part.shape[0]):
            last = add_piece(k, last, part[i, 0], START, part[i, 1])
            n += part[i, 1]
            if first == NO_KEY:
                first = last
    return first, n


@kernel
def allocate_pieces(k, slot, tokens, part, keyed):
    """`allocate` for a prompt of pieces [n, 2]."""
    key, n = _key(k, part, keyed)
    got = allocate(k, slot, tokens, key, n)
    free_key(k, key)
    return got


@kernel
def release_pieces(k, slot, blocks, node, prefix, part, keyed):
    """`release` for a prompt of pieces [n, 2]."""
    key, n = _key(k, part, keyed)
    release(k, slot, blocks, node, prefix, key, n, np.int64(1))
    free_key(k, key)
