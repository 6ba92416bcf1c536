# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Steps in which every running request decodes one token, in one stroke: blocks of groups change hands in bulk.

Only where the order in which they do decides nothing: blocks are taken that nobody can ask for, there are enough of them, and what windows give
back is not enough for the head of the queue.
"""

import numpy as np

from sim.engine.outline import outlined
from sim.engine.schedulers.vllm.groups.counted import is_counted, may_give_back
from sim.engine.schedulers.vllm.groups.grow import advance_in, due, missing
from sim.engine.schedulers.vllm.groups.held import note_held
from sim.engine.schedulers.vllm.groups.state import HAVE, KIND, SLIDE, SLIDING, WINDOW, GroupState
from sim.engine.schedulers.vllm.state import CAP, COMP, INFL, KNOWN, LAST_SEQ, LAZY, NEXT, ROW
from sim.engine.schedulers.vllm.steady import count_steps, settled
from sim.jit import inline


@inline
def _in_bulk(s):
    """Whether rows may pass the ends of their blocks within a stroke."""
    if s.states:
        return False
    for g in range(s.n_groups):
        if s.g[g, KIND] == SLIDING and s.g[g, WINDOW] < 2 * s.grid:
            return False
    if s.wq.len + s.kvq.len == 0:
        return True
    if s.kvq.len > 0:
        return False
    free = s.kv.free
    if s.g_blocked:  # else it waits for a place in the batch
        for i in range(s.n_run):
            slot = s.run[i]
            if is_counted(s, slot):
                free += may_give_back(s, s.r_x[slot, ROW])
    return not s.g_blocked or free < s.enough


@outlined(GroupState)
def steps_of_blocks(s, k):
    """At most how many of ``k`` steps."""
    kv = s.kv
    x = s.r_x
    run = s.run
    bulk = _in_bulk(s)
    hashes = kv.caching
    for i in range(s.n_run):
        slot = run[i]
        if not bulk or x[slot, LAZY] == 0:
            room = x[slot, CAP] if s.states else min(x[slot, HAVE], x[slot, SLIDE] + x[slot, INFL])
            k = min(k, np.int64(room - x[slot, COMP]))
            if x[slot, LAZY] == 1 and hashes:
                k = min(k, np.int64(x[slot, NEXT] - x[slot, KNOWN]))
    if not bulk:
        return max(k, 0)
    spare = kv.free
    if hashes:
        first = kv.e_next[0]
        spare = kv.fresh + (kv.e_ref[first] if first != 0 and kv.e_key[first] == 0 else 0)
    while k > 1:
        if (k // s.smallest + 1) * s.n_run * s.n_groups <= spare:
            break
        need = np.int64(0)
        for i in range(s.n_run):
            need += missing(s, run[i], np.int64(x[run[i], ROW]), x[run[i], COMP] + k)
        if need <= spare:
            break
        k //= 2
    return max(k, 0)


def steady_groups(s):
    """See the contract."""
    if not settled(s):
        return 0
    return steps_of_blocks(s, np.int64(s.least - 1))


def apply_groups(s, k):
    """``k`` such steps are done."""
    x = s.r_x
    run, r_last, r_done = s.run, s.r_last_token, s.r_done
    if s.defer_free:
        s.seq_s += k
        s.seq_p += k
    for i in range(s.n_run):
        slot = run[i]
        comp = x[slot, COMP] + k
        x[slot, KNOWN] += k
        x[slot, COMP] = comp
        r_done[slot] += k
        r_last[slot] = s.now
        if (comp > x[slot, CAP] and due(s, slot, comp)) or x[slot, KNOWN] - 1 >= x[slot, NEXT]:
            advance_in(s, np.int64(slot), np.int64(comp))
        if s.defer_free:
            x[slot, LAST_SEQ] = s.seq_s
    count_steps(s, k)
    note_held(s)
