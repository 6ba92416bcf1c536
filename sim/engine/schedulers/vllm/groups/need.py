# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""How many blocks a request takes in every group (``get_num_blocks_to_allocate``)."""

import numpy as np

from sim.engine.kv.block_hash import mix
from sim.engine.schedulers.vllm.groups.counted import is_counted
from sim.engine.schedulers.vllm.groups.split import internal_checkpoint
from sim.engine.schedulers.vllm.groups.state import AL, CAP_AT, CK, CKI, FULL, KIND, LEN, MAMBA, NC, PHI, SIZE, skipped
from sim.jit import inline

_IMPOSSIBLE = 1 << 40


@inline
def _hits_to_take(s, g, first):
    """Hit blocks from place ``first`` on that lie in the free queue: they are handed out like free ones."""
    n = np.int64(0)
    for i in range(first, s.hit_len[g]):
        e = s.hit[g, i]
        if e != 0 and s.kv.e_ref[e] == 0:
            n += 1
    return n


@inline
def _need_states(s, slot, row, g, n_hits, done, main, loc, checking):
    """Blocks that a recurrent group takes for ``main`` tokens; ``checking``: the state is not touched."""
    t = s.tx[row, g]
    size = s.g[g, SIZE]
    if n_hits > 0 and s.keys_step == s.step_no:  # registered in this very decision: not computed yet
        key = mix(s.kv.e_key[s.hit[g, n_hits - 1]], g)
        for j in range(s.new_keys_n):
            if s.step_keys[j] == key:
                return np.int64(_IMPOSSIBLE)
    n = (main + size - 1) // size + s.k_spec - n_hits - t[LEN]
    part = 1 if (n_hits > 0 and loc % size != 0) or t[PHI] > 0 else 0
    if part == 1:
        n = max(n, 0) + 1
    position = internal_checkpoint(s, slot, row, g, done, main)
    if not checking:
        t[CK] = position
        t[CKI] = (main + size - 1) // size - 2
    if n > 0:
        n = min(n, 1 + part + (1 if position > 0 else 0) + (0 if t[AL] == 1 else s.k_spec))
    return n + (_hits_to_take(s, g, 0) if n_hits > 0 else 0)


@inline
def _need(s, groups, tx, slot, row, g, tokens, hitting, done, main, loc, checking):
    """Blocks that group ``g`` takes to have ``tokens``, ``done`` of them computed; ``checking``: for admission, within the group's cap."""
    size = groups[g, SIZE]
    n_hits = s.hit_len[g] if hitting else np.int64(0)
    if groups[g, KIND] == MAMBA:
        if s.states:
            return _need_states(s, slot, row, g, n_hits, done, main, loc, checking)
        tokens += size * s.k_spec
    wanted = (tokens + size - 1) // size
    if checking:
        wanted = min(wanted, groups[g, CAP_AT])
    if tx[row, g, NC] >= 0:
        return max(wanted - tx[row, g, LEN], 0)
    kind = groups[g, KIND]
    before = done - done
    if kind != FULL:
        before = skipped(s, g, done) // size
    n = max(wanted - max(before, n_hits + tx[row, g, LEN]), 0)
    if n_hits > 0:
        if loc % size != 0:
            n += 1
        n += _hits_to_take(s, g, max(before - tx[row, g, LEN], 0))
    return n


@inline
def need_all(s, slot, row, tokens, hitting, done, main, loc, checking):
    """Blocks that all groups take."""
    total = np.int64(0)
    groups, tx = s.g, s.tx
    if is_counted(s, slot):
        for a in range(s.n_specs):
            n = _need(s, groups, tx, slot, row, s.spec_of[a, 0], tokens, hitting, done, main, loc, checking)
            total += s.spec_len[a] * n
        return total
    for g in range(s.n_groups):
        total += _need(s, groups, tx, slot, row, g, tokens, hitting, done, main, loc, checking)
    return total
