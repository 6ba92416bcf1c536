# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""TGI's trie of cached prompts: whole blocks, least recently used leaves evicted first.

A node's key is a chain of pieces, runs (content id, start, length) with no two that continue each other: token sequences are equal
exactly where their pieces are. Children are found by (parent, hash of the first block). ``k`` is a
`sim.engine.kv.tgi_blocks.TgiBlocks`.

*Source*: text-generation-inference 3.3 (db931fcf) ``backends/v3/src/radix.rs``: find, insert, evict, the access counter and its ties.
"""

from typing import Final

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.tgi_keys import add_piece, common_tokens, free_key, key_hash_of, step_in_key
from sim.engine.kv.tgi_runs import ALL, COPY, FREE_LIST, TEMP_LIST, move
from sim.engine.state import grown
from sim.jit import inline, kernel

ROOT: Final = np.int64(0)  # typed, see `tgi_runs`
NO_NODE: Final = np.int64(-1)
FIRST: Final = np.int64(-1)  # nothing before this piece
START: Final = np.int64(0)


# ---- heap of leaves that nobody uses, by (last access, node)


@inline
def _before(k, a, b):
    return k.last[a] < k.last[b] or (k.last[a] == k.last[b] and a < b)


@kernel
def _settle(k, at):
    """Move the node at a heap position up or down to where it belongs."""
    node = k.heap[at]
    while at > 0 and _before(k, node, k.heap[(at - 1) // 2]):
        k.heap[at] = k.heap[(at - 1) // 2]
        k.place[k.heap[at]] = at
        at = (at - 1) // 2
    while True:
        child = 2 * at + 1
        if child >= k.h_n:
            break
        if child + 1 < k.h_n and _before(k, k.heap[child + 1], k.heap[child]):
            child += 1
        if not _before(k, k.heap[child], node):
            break
        k.heap[at] = k.heap[child]
        k.place[k.heap[at]] = at
        at = child
    k.heap[at] = node
    k.place[node] = at


@inline
def _leaf_add(k, node):
    k.heap[k.h_n] = node
    k.h_n += 1
    _settle(k, k.h_n - 1)


@inline
def _leaf_remove(k, node):
    at = k.place[node]
    k.place[node] = -1
    k.h_n -= 1
    if at < k.h_n:
        k.heap[at] = k.heap[k.h_n]
        _settle(k, at)


@inline
def _touch(k, node):
    k.last[node] = k.time
    if k.place[node] >= 0:
        _settle(k, k.place[node])


@inline
def trie_incref(k, node):
    """One more user (a request or a child) of a node."""
    if node != ROOT:
        if k.refs[node] == 0 and k.place[node] >= 0:
            _leaf_remove(k, node)
        k.refs[node] += 1


@inline
def trie_decref(k, node):
    """One user less; without any the node may be evicted."""
    if node != ROOT:
        k.refs[node] -= 1
        if k.refs[node] == 0:
            _leaf_add(k, node)


# ---- nodes


@kernel
def _grow_nodes(k):
    own = keep(k)
    old = k.parent.size
    n = 2 * old
    own.spare = grown(k.spare, n)
    own.parent = grown(k.parent, n)
    own.chain = grown(k.chain, n)
    own.tokens = grown(k.tokens, n)
    own.refs = grown(k.refs, n)
    own.last = grown(k.last, n)
    own.hash = grown(k.hash, n)
    own.chained = grown(k.chained, n)
    own.place = grown(k.place, n)
    own.heap = grown(k.heap, n)
    for i in range(old, n):
        k.place[i] = -1
    own.bucket = np.full(2 * n, NO_NODE, np.int64)
    for i in range(2, old):
        if k.chain[i] >= 0:
            b = k.hash[i] & (2 * n - 1)
            k.chained[i] = k.bucket[b]
            k.bucket[b] = i


@inline
def _new_node(k, parent, first, tokens, key_hash):
    """A node, most recently used; numbers are given again last in, first out."""
    if k.n_spare > 0:
        k.n_spare -= 1
        i = k.spare[k.n_spare]
    else:
        if k.n_top == k.parent.size:
            _grow_nodes(k)
        i = k.n_top
        k.n_top += 1
    k.parent[i] = parent
    k.chain[i] = first
    k.tokens[i] = tokens
    k.refs[i] = 0
    k.last[i] = k.time
    k.place[i] = -1
    _hang(k, i, key_hash)
    return i


@inline
def _hang(k, i, key_hash):
    b = key_hash & (k.bucket.size - 1)
    k.hash[i] = key_hash
    k.chained[i] = k.bucket[b]
    k.bucket[b] = i


@inline
def _unhang(k, i):
    b = k.hash[i] & (k.bucket.size - 1)
    at = k.bucket[b]
    if at == i:
        k.bucket[b] = k.chained[i]
        return
    while k.chained[at] != i:
        at = k.chained[at]
    k.chained[at] = k.chained[i]


@inline
def _child(k, parent, key_hash):
    i = k.bucket[key_hash & (k.bucket.size - 1)]
    while i >= 0 and (k.hash[i] != key_hash or k.parent[i] != parent):
        i = k.chained[i]
    return i


@kernel
def _split(k, node, at):
    """Cut a node after ``at`` tokens. The new one becomes its parent and counts as used now."""
    first = k.chain[node]
    piece = first
    left = at
    while left > k.p_len[piece]:
        left -= k.p_len[piece]
        piece = k.p_next[piece]
    rest = k.p_next[piece]
    if left < k.p_len[piece]:
        tail = add_piece(k, FIRST, k.p_id[piece], k.p_start[piece] + left, k.p_len[piece] - left)
        k.p_next[tail] = rest
        k.p_len[piece] = left
        rest = tail
    k.p_next[piece] = -1
    _unhang(k, node)
    k.chain[node] = -1  # hangs nowhere while nodes may grow
    above = _new_node(k, k.parent[node], first, at, k.hash[node])
    k.refs[above] = 1
    k.parent[node] = above
    k.chain[node] = rest
    k.tokens[node] -= at
    _hang(k, node, key_hash_of(k, above, rest, START))
    if k.track:
        move(k, 2 * node, at // k.block, 2 * above)
    return above


@inline
def touch_path(k, node, polls):
    """What ``polls`` more searches that all end at ``node`` leave behind."""
    k.time += polls
    while node != ROOT:
        _touch(k, node)
        node = k.parent[node]


@inline
def trie_find(k, piece, left, own):
    """Longest cached prefix, in whole blocks, of a key of ``left`` tokens: returns its node, sets ``matched`` (tokens)."""
    k.time += 1
    k.matched = 0
    node = ROOT
    offset = START
    while left >= k.block:
        child = _child(k, node, key_hash_of(k, node, piece, offset))
        if child < 0:
            break
        _touch(k, child)
        same = common_tokens(k, child, piece, offset, left)
        if k.track:
            move(k, 2 * child, COPY - same // k.block, own)
        k.matched += same
        left -= same
        node = child
        if left == 0 or same < k.tokens[child]:
            break
        piece, offset = step_in_key(k, piece, offset, same)
    return node


@inline
def trie_insert(k, piece, left, own, prefix):
    """Cache a key of ``left`` tokens (whole blocks). Returns how many of them were cached already.

    Where blocks are tracked, list ``own`` holds them from token ``prefix`` on; those cached already go to the free list.
    """
    k.time += 1
    node = ROOT
    offset = START
    known = 0
    while True:
        key_hash = key_hash_of(k, node, piece, offset)
        child = _child(k, node, key_hash)
        if child < 0:
            first = add_piece(k, FIRST, k.p_id[piece], k.p_start[piece] + offset, k.p_len[piece] - offset)
            have = k.p_len[first]
            last = first
            piece = k.p_next[piece]
            while have < left:
                last = add_piece(k, last, k.p_id[piece], k.p_start[piece], k.p_len[piece])
                have += k.p_len[piece]
                piece = k.p_next[piece]
            child = _new_node(k, node, first, left, key_hash)
            trie_incref(k, node)
            _leaf_add(k, child)
            break
        _touch(k, child)
        same = common_tokens(k, child, piece, offset, left)
        known += same
        left -= same
        if left == 0 or same == 0:
            child = NO_NODE
            break
        if same < k.tokens[child]:
            child = _split(k, child, same)
        node = child
        piece, offset = step_in_key(k, piece, offset, same)
    if k.track:
        move(k, own, max(known - prefix, 0) // k.block, FREE_LIST)
        if child >= 0:
            move(k, own, left // k.block, 2 * child)
    return known


@inline
def trie_evict(k, n):
    """Free ``n`` blocks of leaves that nobody uses, least recently used first; fewer if there are no more."""
    while n > 0 and k.h_n > 0:
        i = k.heap[0]
        have = k.tokens[i] // k.block
        if n < have:
            k.tokens[i] -= n * k.block
            k.free += n
            if k.track:
                move(k, 2 * i, have - n, TEMP_LIST)
                move(k, 2 * i, ALL, FREE_LIST)
                move(k, TEMP_LIST, ALL, 2 * i)
            return
        _leaf_remove(k, i)
        _unhang(k, i)
        free_key(k, k.chain[i])
        k.chain[i] = -1
        k.spare[k.n_spare] = i
        k.n_spare += 1
        k.free += have
        n -= have
        if k.track:
            move(k, 2 * i, ALL, FREE_LIST)
        trie_decref(k, k.parent[i])
