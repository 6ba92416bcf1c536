# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""An engine whose accelerators are slower for a while than the cost model says. Compiled only where a fleet has such faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.cost.step import copy_cost, cost_data, shared_data
from sim.engine.loop import outlook
from sim.errors import NotModelledError
from sim.jit import kernel

if TYPE_CHECKING:
    from sim.cost.step import StepCost
    from sim.engine.group import EngineGroup
    from sim.engine.seam import F8


@kernel
def _own_cost(states, k):
    s = states[k]
    s.cost = copy_cost(s.cost)
    return s.cost


@kernel
def _set_data(states, keys, k, data):
    s = states[k]
    s.cost.data = data
    s.hint = 0
    keys[k] = outlook(s)


@kernel
def _scale(states, keys, k, factor):
    """Of a linear cost."""
    s = states[k]
    s.cost.lin_base = s.cost.lin_base * factor
    s.cost.lin_coef = s.cost.lin_coef * factor
    s.hint = 0
    keys[k] = outlook(s)


class Slowness:
    """Of the replicas of one pool. Raises `NotModelledError` for engines with data-parallel ranks."""

    def __init__(self, group: EngineGroup) -> None:
        if group.ranks > 1:
            raise NotModelledError(
                "faults", group.ranks, "slow ranks of data-parallel engines are not modelled", "deployment.dp 1"
            )
        self._group = group
        self._costs: dict[int, StepCost] = {}
        self._data: dict[tuple[int, float], F8] = {}
        self._factor: dict[int, float] = {}

    def slow(self, replica: int, factor: float, now: float) -> None:
        """Steps that begin from ``now`` on: what the device does takes ``factor`` times as long as the cost model says; 1: as long."""
        group = self._group
        group.catch_up(now, replica)
        if replica not in self._costs:
            self._costs[replica] = _own_cost(group._states, replica)
            self._data[replica, 1.0] = cost_data(self._costs[replica])
        before, self._factor[replica] = self._factor.get(replica, 1.0), factor
        if self._data[replica, 1.0] is None or self._data[replica, 1.0].size == 0:
            _scale(group._states, group._keys, replica, factor / before)
            return
        _set_data(group._states, group._keys, replica, self._data[replica, 1.0])
        if factor != 1.0:
            if (replica, factor) not in self._data:
                self._data[replica, factor] = shared_data(self._costs[replica], factor)
            _set_data(group._states, group._keys, replica, self._data[replica, factor])

    def renewed(self, replica: int, now: float) -> None:
        """A new process runs on the same accelerators."""
        if replica in self._costs:
            factor = self._factor.pop(replica)
            del self._costs[replica]
            self._data = {key: v for key, v in self._data.items() if key[0] != replica}
            if factor != 1.0:
                self.slow(replica, factor, now)
