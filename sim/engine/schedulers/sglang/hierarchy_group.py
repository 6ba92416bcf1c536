# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""SGLang servers with HiCache: what their host memory did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.engine.kv.radix_host import EVICTED, LOADED, SKIPPED, WRITTEN
from sim.engine.tiers.counts import BLOCKS_READ, BLOCKS_SKIPPED, BLOCKS_WRITTEN, N_COUNTS, TIER, tiers_use
from sim.engine.tiers.group import GroupWithTiers, carry_counts, copy_counts
from sim.jit import kernel

if TYPE_CHECKING:
    from sim.engine.state import EngineState
    from sim.engine.tiers.counts import TiersUse


@kernel
def _carry_over(states, k, fresh):
    """What was counted stays when another process takes the place of replica ``k``; its host memory is lost."""
    s = states[k]
    for j in range(s.tree.h_count.size):
        fresh.tree.h_count[j] = s.tree.h_count[j]
    fresh.tree.h_count[EVICTED] += s.tree.h_size - s.tree.h_free
    carry_counts(s, fresh)


@kernel
def _figures(states, counts, evicted):
    for k in range(len(states)):
        s = states[k]
        copy_counts(s, counts[k])
        moved = s.tree.h_count
        counts[k, TIER + BLOCKS_READ] = moved[LOADED]
        counts[k, TIER + BLOCKS_WRITTEN] = moved[WRITTEN]
        counts[k, TIER + BLOCKS_SKIPPED] = moved[SKIPPED]
        evicted[0] += moved[EVICTED]


class HostEngines(GroupWithTiers):
    """Host memory is the only tier."""

    def renewed(self, replica: int, fresh: EngineState) -> None:
        """Another process takes a replica's place."""
        _carry_over(self._states, replica, fresh)

    def tiers(self) -> TiersUse:
        """What host memory did so far."""
        counts, evicted = np.zeros((self.n, N_COUNTS)), np.zeros(1)
        _figures(self._states, counts, evicted)
        return tiers_use(counts, self._plan.told(), [0], self._plan.bytes, evicted, self.n)
