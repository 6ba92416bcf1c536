# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""The replicas of a pool with tiers, and what the tiers did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.engine.lockstep import LockstepGroup
from sim.engine.schedulers.vllm.tiered.state import TieredState  # noqa: F401 - of these
from sim.engine.tiers.counts import N_COUNTS
from sim.engine.tiers.group import GroupWithTiers, carry_counts, copy_counts
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

    def __init__(self, states: Sequence[EngineState], recorder: Recorder, *ranks: object) -> None:
        super().__init__(states, recorder, *ranks)
        self._lost = np.zeros(3)

    def _share_store(self) -> None:
        _share_remote(self._states)

    def renewed(self, replica: int, fresh: EngineState) -> None:
        """Another process takes a replica's place."""
        cpu, disk = _carry_over(self._states, replica, fresh)
        self._lost[0] += cpu
        self._lost[1] += disk

    def set_store(self, there: bool) -> None:
        """The remote store is lost with all it kept; ``there``: an empty one takes its place."""
        _set_remote(self._states, self._store_blocks(there))

    def tiers(self) -> TiersUse:
        """What the tiers did so far."""
        counts, evicted = np.zeros((self.n, N_COUNTS)), self._lost.copy()
        _figures(self._states, counts, evicted)
        return self._told(counts, evicted)


class TieredRanks(TieredEngines, LockstepGroup):
    """The same of ranks that step together; each has tiers of its own."""
