# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The block allocator of TGI: whole requests reserve their blocks at admission; finished prompts may stay as a prefix cache.

Without prefix caching this is upstream's ``SimpleAllocator``, with it the ``RadixAllocator`` over the trie of `sim.engine.kv.tgi_trie`.
Which blocks a request gets decides nothing, only how many: identities are tracked (`sim.engine.kv.tgi_runs`) for replays alone.

*Source*: text-generation-inference 3.3 (db931fcf) ``backends/v3/src/block_allocator.rs``, ``backends/v3/src/radix.rs``.
"""

from typing import Final

import numpy as np

from sim.engine.kv.tgi_runs import ALL, FREE_LIST, NOWHERE, TEMP_LIST, move
from sim.engine.kv.tgi_trie import NO_NODE, ROOT, trie_decref, trie_evict, trie_find, trie_incref, trie_insert
from sim.engine.outline import outlined
from sim.jit import b1, i8, i8s, kernel, new, struct

NO_KEY: Final = np.int64(-1)  # the request's prompt is not looked up nor cached


@struct(viewed=True)
class TgiBlocks:
    """Free blocks, the trie of cached prompts, and (for replays) which blocks are where. Block 0 is never handed out."""

    fn: i8s  # addresses of the outlined functions
    block: i8  # tokens per block
    window: i8  # sliding window that limits a request's blocks (0: none); only without prefix caching
    total: i8  # usable blocks
    free: i8  # blocks in the free list
    track: b1
    # outcome of the last `allocate`
    a_node: i8
    a_prefix: i8
    # trie: nodes; 0 is the root, 1 is never used
    time: i8
    matched: i8  # tokens matched by the last `trie_find`
    n_top: i8
    n_spare: i8
    spare: i8s
    parent: i8s
    chain: i8s  # first piece of the node's key
    tokens: i8s  # length of the node's key
    refs: i8s
    last: i8s
    hash: i8s
    chained: i8s  # next node in the hash bucket
    place: i8s  # position in the heap of leaves, or -1
    bucket: i8s
    h_n: i8
    heap: i8s
    # pieces of keys: runs (content id, start, length)
    p_top: i8
    p_spare: i8
    p_id: i8s
    p_start: i8s
    p_len: i8s
    p_next: i8s
    # notes of block moves (from, count, to) between lists 0 (free), 2·node, 2·slot + 1
    n_notes: i8
    notes: i8s


@kernel
def new_tgi_blocks(fn, block, blocks, window, track):
    """An allocator of blocks 1 … ``blocks``−1 of ``block`` tokens. ``track``: note where blocks go.

    ``fn``: ``addresses(TgiBlocks)``.
    """
    k = new(TgiBlocks)
    n = 64
    k.fn = fn
    k.block = block
    k.window = window
    k.total = max(blocks - 1, 0)
    k.free = k.total
    k.track = track
    k.a_node = ROOT
    k.a_prefix = 0
    k.time = 0
    k.matched = 0
    k.n_top = 2
    k.n_spare = 0
    k.spare = np.empty(n, np.int64)
    k.parent = np.zeros(n, np.int64)
    k.chain = np.full(n, -1, np.int64)
    k.tokens = np.zeros(n, np.int64)
    k.refs = np.zeros(n, np.int64)
    k.last = np.zeros(n, np.int64)
    k.hash = np.zeros(n, np.int64)
    k.chained = np.full(n, NO_NODE, np.int64)
    k.place = np.full(n, -1, np.int64)
    k.bucket = np.full(2 * n, NO_NODE, np.int64)
    k.h_n = 0
    k.heap = np.empty(n, np.int64)
    k.p_top = 0
    k.p_spare = -1
    k.p_id = np.empty(n, np.int64)
    k.p_start = np.empty(n, np.int64)
    k.p_len = np.empty(n, np.int64)
    k.p_next = np.empty(n, np.int64)
    k.n_notes = 0
    k.notes = np.empty(6, np.int64)
    return k


@outlined(TgiBlocks)
def allocate(k, slot, tokens, key, length):
    """Reserve blocks for ``tokens`` of the request in ``slot`` whose prompt is ``key`` (pieces; `NO_KEY`) of ``length`` tokens.

    Returns the number of blocks and sets ``a_node``, ``a_prefix`` (cached tokens), or returns -1: no room, and whatever was evicted
    in the attempt stays free; ``a_node`` is where the search ended.
    """
    own = 2 * slot + 1
    node = ROOT
    prefix = 0
    if key != NO_KEY:
        node = trie_find(k, key, length, own)
        prefix = k.matched
        trie_incref(k, node)
    elif k.window > 0:
        tokens = min(tokens, k.window)
    need = (tokens - prefix + k.block - 1) // k.block
    if k.free < need:
        trie_evict(k, need - k.free)
    if k.free < need:
        trie_decref(k, node)
        if k.track:
            move(k, own, prefix // k.block, NOWHERE)
        k.a_node = node
        return np.int64(-1)
    if k.track:
        move(k, FREE_LIST, k.free - need, TEMP_LIST)
        move(k, FREE_LIST, ALL, own)
        move(k, TEMP_LIST, ALL, FREE_LIST)
    k.free -= need
    k.a_node = node
    k.a_prefix = prefix
    return prefix // k.block + need


@outlined(TgiBlocks)
def release(k, slot, blocks, node, prefix, key, length, cache):
    """Give the ``blocks`` of a request back. With ``cache`` 1 its prompt (``key``) stays in the trie, computed or not; no output ever does."""
    own = 2 * slot + 1
    trie_decref(k, node)
    known = prefix  # tokens of the prompt whose blocks the trie has already
    kept = prefix  # tokens of the prompt whose blocks stay in the trie
    if k.track:
        move(k, own, prefix // k.block, NOWHERE)
    aligned = length // k.block * k.block
    if key != NO_KEY and cache == 1 and length > prefix and aligned > 0:
        known = max(trie_insert(k, key, aligned, own, prefix), prefix)
        kept = aligned
    if k.track:
        move(k, own, ALL, FREE_LIST)
    k.free += (known - prefix) // k.block + blocks - kept // k.block
    return np.int64(0)
