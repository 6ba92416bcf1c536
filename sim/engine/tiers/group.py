# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Engines with tiers: what their groups have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.engine.group import EngineGroup
from sim.engine.tiers.counts import STALLED
from sim.engine.tiers.plan import TierPlan
from sim.jit import inline

if TYPE_CHECKING:
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState


@inline
def carry_counts(s, fresh):
    """What was counted stays when another process takes the place of ``s``."""
    fresh.tc = s.tc
    fresh.stalled = s.stalled


@inline
def copy_counts(s, row):
    """What a state has counted, into ``row``: f8[`sim.engine.tiers.counts.N_COUNTS`]."""
    for j in range(s.tc.size):
        row[j] = s.tc[j]
    row[STALLED] = s.stalled


class GroupWithTiers(EngineGroup):
    """`with_tiers` says what they are."""

    def __init__(self, states: Sequence[EngineState], recorder: Recorder) -> None:
        super().__init__(states, recorder)
        self._plan = TierPlan(1, 1.0, ())

    def with_tiers(self, plan: TierPlan) -> None:
        """What their tiers are, before anything has run."""
        self._plan = plan
