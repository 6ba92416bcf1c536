# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""How much of the pool each group holds, on average over time and while the queue waits for memory.

Between two decisions it counts as it was after the first; shared blocks count for each request that holds them.
"""

from typing import Any

import numpy as np

from sim.engine.group import EngineGroup
from sim.engine.schedulers.vllm.groups.state import CHUNKED, KIND, MAMBA, SLIDING, WINDOW
from sim.jit import inline, kernel


@inline
def _integrate(s):
    """What the last decision left, up to now."""
    dt = s.now - s.held_at
    s.held_at = s.now
    seen, sums, times = s.held_seen, s.held_sum, s.held_time
    for k in range(2 if s.blocked_seen else 1):
        times[k] += dt
        for g in range(seen.size):
            sums[k, g] += dt * seen[g]


@inline
def note_held(s):
    """At the end of a decision: integrate up to it, then look at what it leaves."""
    _integrate(s)
    held, seen, most = s.held_of, s.held_seen, s.held_most
    s.blocked_seen = s.g_blocked
    for g in range(held.size):
        seen[g] = held[g]
        most[g] = max(most[g], held[g])


@kernel
def _carry_over(states, k, fresh):
    """What was integrated stays when another process takes the place of replica ``k``."""
    s = states[k]
    _integrate(s)
    fresh.held_sum = s.held_sum
    fresh.held_time = s.held_time
    fresh.held_most = s.held_most
    fresh.held_at = s.held_at


@kernel
def _figures(states, out, times, kinds):
    """Sums over replicas: ``out`` [3, group] (seconds × blocks always and while blocked, most), ``times`` [3] (seconds, blocked, blocks × seconds)."""
    for k in range(len(states)):
        s = states[k]
        for g in range(s.n_groups):
            out[0, g] += s.held_sum[0, g]
            out[1, g] += s.held_sum[1, g]
            out[2, g] += s.held_most[g]
            kinds[g, 0] = s.g[g, KIND]
            kinds[g, 1] = s.chunk if s.g[g, KIND] == CHUNKED else s.g[g, WINDOW]
        times[0] += s.held_time[0]
        times[1] += s.held_time[1]
        times[2] += s.held_time[0] * s.kv.total


@kernel
def _n_groups(states):
    return states[0].n_groups


class GroupedEngines(EngineGroup):
    """Replicas that can say what each kind of layer holds."""

    def renewed(self, replica: int, fresh: Any) -> None:
        """Another process takes a replica's place."""
        _carry_over(self._states, replica, fresh)

    def kv_parts(self) -> dict[str, Any]:
        """``parts``: kind of layer → blocks × seconds, the same while the queue waited for memory, most blocks; ``times``: seconds, waiting, capacity."""
        n = int(_n_groups(self._states))
        out, times, kinds = np.zeros((3, n)), np.zeros(3), np.zeros((n, 2), np.int64)
        _figures(self._states, out, times, kinds)
        parts: dict[str, list[float]] = {}
        for g in range(n):
            kind, width = (int(v) for v in kinds[g])
            name = {SLIDING: f"windows of {width}", CHUNKED: f"chunks of {width}", MAMBA: "recurrent states"}.get(
                kind, "full attention"
            )
            row = parts.setdefault(name, [0.0, 0.0, 0.0])
            for i in range(3):
                row[i] += float(out[i, g])
        return {"parts": parts, "times": [float(t) for t in times], "engines": self.n}
