# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""How much of the pool each kind of layer holds: gauges of the recorder (`s.g_pools`), as those of engines with several pools.

Between two decisions it counts as it was after the first; shared blocks count for each request that holds them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.engine.group import EngineGroup
from sim.engine.lockstep import LockstepGroup
from sim.engine.recorder import Recorder
from sim.engine.schedulers.vllm.groups.state import CHUNKED, KIND, MAMBA, SLIDING, WINDOW
from sim.engine.state import EngineState, add_pools
from sim.jit import inline, kernel


@inline
def note_held(s):
    """At the end of a decision or a stroke: what each kind holds, and which holds most."""
    pools, kind_of, held, alike, counted = s.g_pools, s.kind_of, s.held_of, s.alike, s.held_alike
    for k in range(pools.size):
        pools[k] = 0.0
    for g in range(held.size):
        pools[kind_of[g]] += held[g] + counted[alike[g]]
    most = 0
    for k in range(1, pools.size):
        if pools[k] > pools[most]:
            most = k
    s.g_short = most


@kernel
def _kinds(states):
    """i8[kind, 2]: kind and width of windows or chunks; blocks of a replica."""
    s = states[0]
    out = np.zeros((s.n_pools, 2), np.int64)
    for g in range(s.n_groups):
        out[s.kind_of[g], 0] = s.g[g, KIND]
        out[s.kind_of[g], 1] = s.chunk if s.g[g, KIND] == CHUNKED else s.g[g, WINDOW]
    return out, s.kv.total


@kernel
def _unfound(states):
    n = 0
    for k in range(len(states)):
        n += states[k].unfound
    return n


class GroupedEngines(EngineGroup):
    """Replicas that can say what each kind of layer holds."""

    def __init__(self, states: Sequence[EngineState], recorder: Recorder, *more: Any) -> None:
        super().__init__(states, recorder, *more)
        found, self._blocks = _kinds(self._states)
        widths = {SLIDING: "windows of {}", CHUNKED: "chunks of {}", MAMBA: "recurrent states"}
        self._kinds = [widths.get(int(kind), "full attention").format(width) for kind, width in found]
        add_pools(recorder, len(self._kinds))

    def totals(self) -> dict[str, float]:
        """With the preempted requests that may have found more than was remembered."""
        return super().totals() | {"unfound": int(_unfound(self._states))}

    def kv_kinds(self) -> list[tuple[str, int, str]]:
        """Name of each kind of layer, and the blocks that all of them share."""
        return [(name, int(self._blocks), "blocks") for name in self._kinds]


class GroupedRanks(GroupedEngines, LockstepGroup):
    """The same of data-parallel ranks that step together."""
