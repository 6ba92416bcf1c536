# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What requests hold of a pool beside that of full KV."""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.radix_second import add_second
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.state import AHEAD, OWN_STATE, TRACKING, SglangState, fill_second, widen_second
from sim.jit import inline, kernel


@kernel
def add_pool(s, pool, size, window, grid, tracking, every, lazy, few):
    """Put a pool beside that of full KV: ``size`` tokens of window layers, or states, which (``few``) limit the running requests."""
    s.pool = pool
    s.tracking = tracking
    s.track_every = every
    s.lazy = lazy == 1
    s.few_slots = few == 1
    s.n_pools = 2
    s.g_pools = np.zeros(2)
    add_second(s.tree, size, window, grid)
    fill_second(s, s.r_pre.size)


@inline
def reset_second(s, slot):
    """A request that holds nothing of the second pool."""
    s.r_branch[slot] = -1
    s.r_mark[slot] = 0
    s.r_gone[slot] = 0
    s.r_begun[slot] = 0
    s.r_tracked[slot] = -1
    s.r_before[slot] = -1


@inline
def free_slots(s, slot):
    """Give back the slots that a request holds for states."""
    held = s.r_slots[slot]
    n = (1 if held & OWN_STATE else 0) + (1 if held & AHEAD else 0)
    s.tree.w_free += n + (s.tracking + 0 if held & TRACKING else 0)
    s.r_slots[slot] = 0


@outlined(SglangState)
def grow_second(s, n):
    """The columns of a second pool follow the slots."""
    widen_second(keep(s), n)
    return 0
