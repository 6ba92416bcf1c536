# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Engines with tiers: what their groups have in common. A remote store is one for all replicas, so they run in order of time then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.engine.group import EngineGroup, pools_view, widest
from sim.engine.tiers.counts import STALLED, tiers_use
from sim.engine.tiers.plan import PLACES, TierPlan
from sim.engine.tiers.series import add_series, note_series
from sim.jit import inline, kernel

if TYPE_CHECKING:
    from sim.engine.recorder import Recorder
    from sim.engine.seam import F8
    from sim.engine.state import EngineState
    from sim.engine.tiers.counts import TiersUse


@inline
def carry_counts(s, fresh):
    """What was counted stays when another process takes the place of ``s``."""
    fresh.tc = s.tc
    fresh.stalled = s.stalled
    fresh.t_was = s.t_was
    fresh.t_at = s.t_at


@inline
def copy_counts(s, row):
    """What a state has counted, into ``row``: f8[`sim.engine.tiers.counts.N_COUNTS`]."""
    for j in range(s.tc.size):
        row[j] = s.tc[j]
    row[STALLED] = s.stalled


@kernel
def _close(states):
    """What was held up to the end, also by those that had nothing to do any more."""
    end = 0.0
    for k in range(len(states)):
        end = max(end, states[k].t_gauge)
    for k in range(len(states)):
        note_series(states[k], end)


class GroupWithTiers(EngineGroup):
    """`with_tiers` says what they are. ``ranks``: what `sim.engine.lockstep.LockstepGroup` takes besides, of a class that is one too."""

    def __init__(self, states: Sequence[EngineState], recorder: Recorder, *ranks: object) -> None:
        super().__init__(states, recorder, *ranks)
        self._plan = TierPlan(1, 1.0, ())
        self._shared = False

    def with_tiers(self, plan: TierPlan) -> None:
        """What their tiers are, before anything has run."""
        self._plan = plan
        add_series(self._recorder)
        self._shared = any(m.shared for m in plan.media) and self.n > 1
        if self._shared:
            self._share_store()

    def _share_store(self) -> None:
        """Give all replicas the first one's."""
        raise NotImplementedError

    def advance(self, until: float, watched: bool) -> bool:
        """As ever; where a store is shared, in order of time over the replicas, and only then who had been left behind as he touches nothing of it."""
        if not watched and self._shared:
            behind = self._keys == -np.inf
            while super().advance(until, True):
                pass
            self._keys[behind] = -np.inf
        return super().advance(until, watched)

    def _store_blocks(self, there: bool) -> int:
        """What a shared store keeps, 0 while it is not there."""
        blocks = [self._plan.blocks(k) for k, m in enumerate(self._plan.media) if m.shared]
        return blocks[0] if there and blocks else 0

    def _told(self, counts: F8, evicted: F8) -> TiersUse:
        _close(self._states)
        _, series, width = pools_view(self._recorder)
        places = [PLACES[m.name] for m in self._plan.media]
        sums = widest(series, width) if series.shape[1] > 1 else None
        return tiers_use(counts, self._plan.told(), places, self._plan.bytes, evicted, self.n, sums)
