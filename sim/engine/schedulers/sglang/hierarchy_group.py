# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""SGLang servers with HiCache: what their host memory and their storage did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.engine.kv.radix_host import EVICTED, LOADED, SKIPPED, WRITTEN
from sim.engine.kv.radix_storage import FETCHED, KEPT, LEFT_OUT, STORED
from sim.engine.lockstep import LockstepGroup
from sim.engine.tiers.counts import BLOCKS_READ, BLOCKS_SKIPPED, BLOCKS_WRITTEN, N_COUNTS, PER_TIER, TIER
from sim.engine.tiers.group import GroupWithTiers, carry_counts, copy_counts
from sim.engine.tiers.tier import clear_tier
from sim.jit import kernel

if TYPE_CHECKING:
    from sim.engine.state import EngineState
    from sim.engine.tiers.counts import TiersUse


@kernel
def _share_store(states):
    for k in range(1, len(states)):
        states[k].tree.l_store = states[0].tree.l_store


@kernel
def _carry_over(states, k, fresh):
    """What was counted stays when another process takes the place of replica ``k``, and so does storage; its host memory is lost."""
    s = states[k]
    for j in range(s.tree.h_count.size):
        fresh.tree.h_count[j] = s.tree.h_count[j]
    fresh.tree.h_count[EVICTED] += s.tree.h_size - s.tree.h_free
    if s.l_on:
        fresh.tree.l_store = s.tree.l_store
        for j in range(s.tree.l_count.size):
            fresh.tree.l_count[j] = s.tree.l_count[j]
    carry_counts(s, fresh)


@kernel
def _figures(states, counts, evicted, shared):
    for k in range(len(states)):
        s = states[k]
        copy_counts(s, counts[k])
        moved = s.tree.h_count
        counts[k, TIER + BLOCKS_READ] = moved[LOADED]
        counts[k, TIER + BLOCKS_WRITTEN] = moved[WRITTEN]
        counts[k, TIER + BLOCKS_SKIPPED] = moved[SKIPPED]
        evicted[0] += moved[EVICTED]
        if s.l_on:
            at = TIER + PER_TIER * s.l_tier
            moved = s.tree.l_count
            counts[k, TIER + BLOCKS_WRITTEN] += moved[KEPT]
            counts[k, at + BLOCKS_READ] = moved[FETCHED]
            counts[k, at + BLOCKS_WRITTEN] = moved[STORED]
            counts[k, at + BLOCKS_SKIPPED] = moved[LEFT_OUT]
            if k == 0 or not shared:
                evicted[s.l_tier] += s.tree.l_store.evicted * s.page


@kernel
def _set_store(states, blocks):
    """An empty store of so many tokens in the place of each that there is."""
    for k in range(len(states)):
        store = states[k].tree.l_store
        lost = store.used
        store.total = blocks // states[k].page
        clear_tier(store)
        store.evicted += lost


class HostEngines(GroupWithTiers):
    """Host memory is the first tier; storage may be behind it."""

    def _share_store(self) -> None:
        _share_store(self._states)

    def renewed(self, replica: int, fresh: EngineState) -> None:
        """Another process takes a replica's place."""
        _carry_over(self._states, replica, fresh)

    def set_store(self, there: bool) -> None:
        """The store of all replicas is lost with all it kept; ``there``: an empty one takes its place."""
        if self._store_blocks(True):
            _set_store(self._states, self._store_blocks(there))

    def tiers(self) -> TiersUse:
        """What the tiers did so far."""
        counts, evicted = np.zeros((self.n, N_COUNTS)), np.zeros(3)
        _figures(self._states, counts, evicted, self._shared)
        return self._told(counts, evicted)


class HostRanks(HostEngines, LockstepGroup):
    """The same of ranks that step together; each has host memory of its own."""
