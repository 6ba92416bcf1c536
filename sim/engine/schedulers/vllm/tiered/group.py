# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""The replicas of a pool with tiers: a remote store is one for all of them, so they run in order of time; and what the tiers did is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.engine.schedulers.vllm.tiered.state import TieredState  # noqa: F401 - of these
from sim.engine.tiers.counts import N_COUNTS, tiers_use
from sim.engine.tiers.group import GroupWithTiers, carry_counts, copy_counts
from sim.engine.tiers.plan import TierPlan
from sim.engine.tiers.tier import clear_tier
from sim.jit import kernel

if TYPE_CHECKING:
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState
    from sim.engine.tiers.counts import TiersUse


@kernel
def _share_remote(states):
    for k in range(1, len(states)):
        states[k].remote = states[0].remote


@kernel
def _carry_over(states, k, fresh):
    """Host memory is lost with its process; a remote store stays, and so does what was counted. Returns units lost from disk and memory."""
    s = states[k]
    fresh.remote = s.remote
    carry_counts(s, fresh)
    return s.cpu.evicted, s.disk.evicted


@kernel
def _figures(states, counts, evicted):
    for k in range(len(states)):
        s = states[k]
        copy_counts(s, counts[k])
        evicted[0] += s.cpu.evicted
        evicted[1] += s.disk.evicted
    evicted[2] += states[0].remote.evicted


@kernel
def _set_remote(states, blocks):
    """An empty store of so many units in the place of each that there is."""
    for k in range(len(states)):
        lost = states[k].remote.used
        states[k].remote.total = blocks
        clear_tier(states[k].remote)
        states[k].remote.evicted += lost


class TieredEngines(GroupWithTiers):
    """Engines that keep KV outside the accelerator; `with_tiers` says where."""

    def __init__(self, states: Sequence[EngineState], recorder: Recorder) -> None:
        super().__init__(states, recorder)
        self._shared = False
        self._lost = np.zeros(3)

    def with_tiers(self, plan: TierPlan) -> None:
        """What their tiers are; a remote store is one for all replicas."""
        super().with_tiers(plan)
        self._shared = any(m.shared for m in plan.media) and self.n > 1
        if self._shared:
            _share_remote(self._states)

    def advance(self, until: float, watched: bool) -> bool:
        """As ever; where a store is shared, in order of time over the replicas."""
        return super().advance(until, watched or self._shared) and watched

    def renewed(self, replica: int, fresh: EngineState) -> None:
        """Another process takes a replica's place."""
        cpu, disk = _carry_over(self._states, replica, fresh)
        self._lost[0] += cpu
        self._lost[1] += disk

    def set_store(self, there: bool) -> None:
        """The remote store is lost with all it kept; ``there``: an empty one takes its place."""
        blocks = [self._plan.blocks(k) for k, m in enumerate(self._plan.media) if m.shared]
        _set_remote(self._states, blocks[0] if there and blocks else 0)

    def tiers(self) -> TiersUse:
        """What the tiers did so far."""
        counts, evicted = np.zeros((self.n, N_COUNTS)), self._lost.copy()
        _figures(self._states, counts, evicted)
        order = {"cpu": 0, "disk": 1, "remote": 2}
        places = [order[m.name] for m in self._plan.media]
        return tiers_use(counts, self._plan.told(), places, self._plan.bytes, evicted, self.n)
