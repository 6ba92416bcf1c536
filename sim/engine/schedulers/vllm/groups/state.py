# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""State of an engine core whose layers form several KV groups: group settings, block tables, chain keys, hits.

A place of a block table holds 0 (null block), `ANON` (a block without a hash), `UNASKED` (one whose hash nobody can ask for), or an entry
of the pool (`sim.engine.kv.blocks`): a block with one or more hashes, or one that several requests hold.
"""

import numba
import numpy as np

from sim.engine.borrow import keep
from sim.engine.schedulers.vllm.state import NEVER, ROW, VllmFields, init_vllm
from sim.jit import b1, i4s, i4ss, i8, i8s, i8ss, inline, kernel, new, struct

i4sss = numba.int32[:, :, ::1]

FULL, SLIDING, CHUNKED, MAMBA = 0, 1, 2, 3  # kinds of group
NULL, ANON, UNASKED = 0, -1, -2  # places of a table
AHEAD = 32  # keys whose places in tables are fetched at once

# columns of `r_x`
JUNCTION = 24  # shared_prefix_boundary, 0: none
HAVE = 25  # tokens that all tables have room for
SLIDE = 26  # processed tokens from which on something is given back; CAP is the lower of both
TAIL = 27  # 1: was preempted while what its windows had given back may have been cached still (`counted.py`)

# columns of `tx`, per request row and group
LEN = 0  # length of the table, nulls counted
NC = 1  # blocks visited for registration, -1: unknown to the manager
AL = 2  # 1: a recurrent group has had its first allocation
LAST = 3  # place of the state before the running one, -1: none
RT = 4  # places below which states have been given back
CK = 5  # position of a checkpoint inside the chunk, 0: none
CKI = 6  # its place in the table
PHI = 7  # 1 + place of a block that is known up to its middle and must be copied, 0: none
PHE = 8  # its entry
FIRST = 9  # of counted rows (`counted.py`): places before it are null
N_TX = 10

# columns of `g`, per group
KIND, SIZE, WINDOW, CAP_AT, DROPS, JOINS = range(6)


@struct(viewed=True)
class GroupState(VllmFields):
    """`block_size` is the unit of the hash chain (hash_block_size)."""

    fn: i8s  # addresses of the outlined functions
    n_groups: i8
    g: i8ss  # [group, column]: kind, block size, window, cap at admission, EAGLE drops here, or in a group of the same spec
    n_specs: i8  # groups of equal spec, full attention first
    spec_len: i8s
    spec_of: i8ss  # [spec group, k]: its groups
    grid: i8  # scheduler_block_size
    align: i8  # hit alignment
    least_size: i8  # cache_config.block_size: smallest group block
    smallest: i8  # of the blocks of groups without recurrent states
    chunk: i8  # attention_chunk_size
    retention: i8  # prefix_cache_retention_interval, -1: None
    states: b1  # recurrent groups in mode align
    fine: b1  # hits inside blocks (prefix_match_unit)
    legacy: b1  # EAGLE drops blocks of hits
    simple: b1  # two spec groups, the first full: one round
    ckpt: i8  # alignment of checkpoints inside a chunk, 0: none
    # -- tables
    tab: i4sss  # [row, group, place]
    tx: i4sss  # [row, group, column]
    rk: i8ss  # [row, i]: chain keys
    rk_n: i4s
    counts: b1  # tables of requests whose blocks nobody can ask for are only counted
    held_of: i8s  # [group]: blocks in tables, summed over requests
    held_alike: i8s  # [spec group]: the same of counted tables, for each of its groups
    alike: i8s  # [group]: its spec group
    kind_of: i8s  # [group]: its kind of layer, a gauge of `g_pools`
    # -- the last lookup
    hit: i4ss  # [group, place]
    hit_len: i8s
    hit_tok: i8s
    # -- this decision
    keys_step: i8  # number of the decision in which the keys of `step_keys` were registered
    new_keys_n: i8
    step_keys: i8s
    cow_n: i8
    cow: i4ss  # entries of copies, source and copy
    bounds: i8s  # lengths before which a tail is kept
    # -- blocks with several keys
    k_owner: i4s  # [entry]: of a further key: the block's entry; else itself
    k_more: i4s  # [entry]: next further key
    k_tokens: i4s  # [entry]: tokens that its first key stands for
    k_group: i4s  # [entry]: whose it is, if some groups share keys
    manifold: b1  # a block can have several keys, or one of part of its tokens; else the first three are not kept
    alike_some: b1  # some spec has more than one group
    ahead: i8s  # keys that are looked for next
    # -- deferred frees: a list of places, ``df`` says (step, first, n)
    df_items: i4s
    df_end: i8
    enough: i8  # free blocks with which the head of the queue would have been admitted
    unfound: i8  # preempted requests that may have found blocks again which nobody remembers (`counted.py`)


@inline
def init_groups(s, groups, specs, n, longest):
    """``groups``: `g`; ``specs`` i8[spec group, 1 + k]: length and members.

    ``n``: grid, align, least size, chunk, retention, states, fine, legacy, alignment of checkpoints.
    """
    s.n_groups = groups.shape[0]
    s.g = groups
    s.n_specs = specs.shape[0]
    s.spec_len = specs[:, 0].copy()
    s.spec_of = specs[:, 1:].copy()
    s.grid, s.align, s.least_size, s.chunk, s.retention = n[0], n[1], n[2], n[3], n[4]
    s.states, s.fine, s.legacy, s.ckpt = n[5] == 1, n[6] == 1, n[7] == 1, n[8]
    s.smallest = np.int64(NEVER)
    for g in range(groups.shape[0]):
        if groups[g, KIND] != MAMBA:
            s.smallest = min(s.smallest, groups[g, SIZE])
    s.simple = s.n_specs == 2 and groups[s.spec_of[0, 0], KIND] == FULL
    rows = 16
    k = s.n_groups
    s.tab = np.empty((rows, k, longest), np.int32)
    s.tx = np.empty((rows, k, N_TX), np.int32)
    s.rk = np.empty((rows, s.max_len // s.block_size + 2), np.int64)
    s.rk_n = np.zeros(rows, np.int32)
    s.rows = np.empty(rows, np.int32)
    for i in range(rows):
        s.rows[i] = rows - 1 - i
    s.n_rows = rows
    s.counts = not s.states and (s.retention == 0 or not s.kv.caching)
    s.held_of = np.zeros(k, np.int64)
    s.held_alike = np.zeros(s.n_specs, np.int64)
    s.alike = np.zeros(k, np.int64)
    for a in range(s.n_specs):
        for j in range(s.spec_len[a]):
            s.alike[s.spec_of[a, j]] = a
    s.enough = s.unfound = 0
    s.kind_of = np.zeros(k, np.int64)
    kinds = 0
    for i in range(k):
        s.kind_of[i] = kinds
        for j in range(i):
            if groups[j, KIND] == groups[i, KIND] and groups[j, WINDOW] == groups[i, WINDOW]:
                s.kind_of[i] = s.kind_of[j]
                break
        if s.kind_of[i] == kinds:
            kinds += 1
    s.n_pools = kinds
    s.g_pools = np.zeros(kinds)
    s.hit = np.zeros((k, longest), np.int32)
    s.hit_len = np.zeros(k, np.int64)
    s.hit_tok = np.zeros(k, np.int64)
    s.keys_step = -1
    s.new_keys_n = 0
    s.step_keys = np.empty(64, np.int64)
    s.bounds = np.empty(4, np.int64)
    s.cow_n = 0
    s.cow = np.empty((16, 2), np.int32)
    entries = s.kv.e_key.size
    s.k_owner = np.zeros(entries, np.int32)
    s.k_more = np.zeros(entries, np.int32)
    s.k_tokens = np.zeros(entries, np.int32)
    s.k_group = np.zeros(entries, np.int32)
    s.manifold = s.fine or s.states
    s.alike_some = s.n_specs < k
    s.ahead = np.empty(AHEAD, np.int64)
    s.df_items = np.empty(64, np.int32)
    s.df_end = 0


@kernel
def new_group_state(replica, rec, cost, n, accept, fn, groups, specs, more, longest):
    """A new state, see `sim.engine.schedulers.vllm.state.init_vllm` and `init_groups`."""
    s = new(GroupState)
    s.fn = fn
    init_vllm(s, replica, rec, cost, n, accept)
    init_groups(s, groups, specs, more, longest)
    s.in_order = True
    return s


@kernel
def _more_rows(s):
    """Double the rows of tables; only what is in use is copied, so memory that was never touched stays so."""
    own = keep(s)
    n, k, m = s.tab.shape
    tab = np.empty((2 * n, k, m), np.int32)
    tx = np.empty((2 * n, k, N_TX), np.int32)
    rk = np.empty((2 * n, s.rk.shape[1]), np.int64)
    rk_n = np.zeros(2 * n, np.int32)
    for i in range(n):
        rk_n[i] = s.rk_n[i]
        for j in range(s.rk_n[i]):
            rk[i, j] = s.rk[i, j]
        for g in range(k):
            for j in range(N_TX):
                tx[i, g, j] = s.tx[i, g, j]
            for j in range(s.tx[i, g, LEN]):
                tab[i, g, j] = s.tab[i, g, j]
    own.tab, own.tx, own.rk, own.rk_n = tab, tx, rk, rk_n
    own.rows = np.empty(2 * n, np.int32)
    for i in range(n):
        s.rows[i] = 2 * n - 1 - i
    s.n_rows = n


@inline
def row_of(s, slot):
    """The request's row of tables, taken if it has none."""
    row = s.r_x[slot, ROW]
    if row >= 0:
        return np.int64(row)
    if s.n_rows == 0:
        _more_rows(s)
    s.n_rows -= 1
    row = s.rows[s.n_rows]
    s.r_x[slot, ROW] = row
    s.rk_n[row] = 0
    for g in range(s.n_groups):
        for j in range(N_TX):
            s.tx[row, g, j] = 0
        s.tx[row, g, NC] = -1
        s.tx[row, g, LAST] = -1
    return np.int64(row)


@inline
def drop_row(s, slot):
    """The request has no tables any more."""
    row = s.r_x[slot, ROW]
    if row >= 0:
        s.rows[s.n_rows] = row
        s.n_rows += 1
        s.r_x[slot, ROW] = -1
        s.rk_n[row] = 0


@inline
def skipped(s, g, c):
    """Leading tokens that a group does not need once ``c`` tokens are computed."""
    kind = s.g[g, KIND]
    if kind == SLIDING:
        return max(c - s.g[g, WINDOW] + 1, 0)
    if kind == CHUNKED:
        return c // s.chunk * s.chunk
    if kind == MAMBA:
        return c - 1
    return c - c
