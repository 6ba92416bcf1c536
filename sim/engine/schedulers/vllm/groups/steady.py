# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Steps in which every running request decodes one token, in one stroke: blocks of groups change hands in bulk.

Only where the order in which they do decides nothing: blocks are taken that nobody can ask for, and there are enough of them.
"""

import numpy as np

from sim.engine.outline import outlined
from sim.engine.schedulers.vllm.groups.grow import advance_in
from sim.engine.schedulers.vllm.groups.state import KIND, MAMBA, SIZE, SLIDING, WINDOW, GroupState
from sim.engine.schedulers.vllm.state import CAP, COMP, KNOWN, LAST_SEQ, LAZY, NEXT
from sim.engine.schedulers.vllm.steady import count_steps, settled


@outlined(GroupState)
def steps_of_blocks(s, k):
    """At most how many of ``k`` steps."""
    kv = s.kv
    x = s.r_x
    spare = kv.free
    if kv.caching:
        first = kv.e_next[0]
        spare = kv.fresh + (kv.e_ref[first] if first != 0 and kv.e_key[first] == 0 else 0)
    bulk = not s.states and s.wq.len + s.kvq.len == 0  # what windows give back may be enough for the head of the queue
    least = np.int64(1) << 30
    for g in range(s.n_groups):
        if s.g[g, KIND] != MAMBA:
            least = min(least, s.g[g, SIZE])
        if s.g[g, KIND] == SLIDING and s.g[g, WINDOW] < 2 * s.grid:
            bulk = False
    run, caching = s.run, kv.caching
    for i in range(s.n_run):
        slot = run[i]
        if not bulk or x[slot, LAZY] == 0:
            k = min(k, np.int64(x[slot, CAP] - x[slot, COMP]))
            if x[slot, LAZY] == 1 and caching:
                k = min(k, np.int64(x[slot, NEXT] - x[slot, KNOWN]))
    fits = spare // (s.n_run * s.n_groups)
    if bulk and k // least + 1 > fits:
        k = (fits - 1) * least
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
        if comp > x[slot, CAP] or x[slot, KNOWN] - 1 >= x[slot, NEXT]:
            advance_in(s, np.int64(slot), np.int64(comp))
        if s.defer_free:
            x[slot, LAST_SEQ] = s.seq_s
    count_steps(s, k)
