# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Keys of TGI's trie: chains of pieces, runs (content id, start, length) with no two that continue each other.

``k`` is a `sim.engine.kv.tgi_blocks.TgiBlocks`.
"""

from typing import Final

from sim.engine.borrow import keep
from sim.engine.state import grown
from sim.jit import inline, kernel

_LOW: Final = 0x7FFFFFFFFFFFFFFF
_C1: Final = 0x2545F4914F6CDD1D
_C2: Final = 0x369DEA0F31A53F85


@kernel
def _grow_pieces(k):
    own = keep(k)
    n = 2 * k.p_id.size
    own.p_id = grown(k.p_id, n)
    own.p_start = grown(k.p_start, n)
    own.p_len = grown(k.p_len, n)
    own.p_next = grown(k.p_next, n)


@inline
def add_piece(k, last, content, start, length):
    """A new piece, linked behind ``last`` (-1: the first one)."""
    p = k.p_spare
    if p >= 0:
        k.p_spare = k.p_next[p]
    else:
        if k.p_top == k.p_id.size:
            _grow_pieces(k)
        p = k.p_top
        k.p_top += 1
    k.p_id[p] = content
    k.p_start[p] = start
    k.p_len[p] = length
    k.p_next[p] = -1
    if last >= 0:
        k.p_next[last] = p
    return p


@inline
def free_key(k, first):
    """Give a chain of pieces back."""
    if first >= 0:
        last = first
        while k.p_next[last] >= 0:
            last = k.p_next[last]
        k.p_next[last] = k.p_spare
        k.p_spare = first


@inline
def key_hash_of(k, parent, piece, offset):
    """Hash of a parent and the first block of the key that begins ``offset`` tokens into ``piece``."""
    h = (int(parent) + 1) * _C2 & _LOW
    left = k.block
    while left > 0:
        n = min(left, k.p_len[piece] - offset)
        h = ((h ^ int(k.p_id[piece])) * _C1) & _LOW
        h ^= h >> 29
        h = ((h ^ (int(k.p_start[piece]) + int(offset))) * _C2) & _LOW
        h ^= h >> 31
        h = ((h ^ int(n)) * _C1) & _LOW
        h ^= h >> 29
        left -= n
        offset = 0
        piece = k.p_next[piece]
    return h


@inline
def common_tokens(k, node, piece, offset, limit):
    """Whole blocks, in tokens, that the key of ``node`` shares with the key that begins ``offset`` tokens into ``piece``."""
    limit = min(limit, k.tokens[node])
    other = k.chain[node]
    skip = 0
    same = 0
    while same < limit:
        if k.p_id[other] != k.p_id[piece] or k.p_start[other] + skip != k.p_start[piece] + offset:
            break
        n = min(k.p_len[other] - skip, k.p_len[piece] - offset)
        same += n
        skip += n
        offset += n
        if skip == k.p_len[other]:
            other = k.p_next[other]
            skip = 0
        if offset == k.p_len[piece]:
            piece = k.p_next[piece]
            offset = 0
    return min(same, limit) // k.block * k.block


@inline
def step_in_key(k, piece, offset, n):
    """The place ``n`` tokens further on in a key."""
    offset += n
    while piece >= 0 and offset >= k.p_len[piece]:
        offset -= k.p_len[piece]
        piece = k.p_next[piece]
    return piece, offset
