# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Several groups that one kernel runs, in order of time over all of their replicas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.engine.group import EngineGroup, _append, _first, _outcomes
from sim.engine.lockstep import LockstepGroup
from sim.engine.order import advance
from sim.jit import kernel


@kernel
def _advance_joined(states, replicas, keys, until, watched, recorders, times, rows):
    """To the first watched outcome; returns how many there are."""
    if not advance(states, replicas, keys, until, watched):
        return 0
    return _outcomes(recorders, times, rows)


@kernel
def _put(states, k, state):
    states[k] = state


class Joined:
    """Groups of one scheduler type that advance together: in order of time over all replicas of all pools, as `EngineGroup` does over its own.

    Of engines with data-parallel ranks the groups of the ranks; ranks of all groups step together, or of none.
    """

    def __init__(self, groups: Sequence[EngineGroup]) -> None:
        keys = np.concatenate([g._keys for g in groups])
        self.states = _first(groups[0]._states[0])
        at = key = 0
        for group in groups:
            for k in range(group.n):
                if at + k > 0:
                    _append(self.states, group._states[k])
            at += group.n
            group._keys = keys[key : key + len(group._keys)]
            key += len(group._keys)
        self.keys = keys
        self._groups = groups
        self._lockstep = isinstance(groups[0], LockstepGroup)
        self._replicas = self._join_replicas() if self._lockstep else None
        self.recorders = _first(groups[0]._recorder)
        for group in groups[1:]:
            _append(self.recorders, group._recorder)
        self._times = np.empty(64)
        self._rows = np.empty((64, 6), np.int64)
        self._n = 0

    def advance(self, until: float) -> bool:
        """Run to ``until``, or to the first watched outcome (True): take it with `outcomes`."""
        self._n = _advance_joined(
            self.states, self._replicas, self.keys, float(until), True, self.recorders, self._times, self._rows
        )
        return self._n > 0

    def catch_up(self, until: float) -> None:
        """Bring also those to ``until`` that were left behind, as nothing anyone waits for happens there before."""
        self.keys.fill(-np.inf)
        _advance_joined(self.states, self._replicas, self.keys, float(until), False, self.recorders, self._times, self._rows)

    def renewed(self, first: int, states: Sequence[object]) -> None:
        """Other processes, whose states these are, have taken the place of those of a replica; ``first``: number of its first over all groups."""
        for k, state in enumerate(states, first):
            _put(self.states, k, state)
        if self._lockstep:
            self._replicas = self._join_replicas()

    def _join_replicas(self) -> Sequence[object]:
        """The ranks of each replica by their numbers over all groups, which each group steps by from now on."""
        found, at = None, 0
        for group in self._groups:
            group.step_as(self.states, at)
            at += group.n
            for g in group.replicas:
                if found is None:
                    found = _first(g)
                else:
                    _append(found, g)
        return found

    def more_outcomes(self) -> bool:
        """Whether there are watched outcomes that came without `advance`."""
        self._n = _outcomes(self.recorders, self._times, self._rows)
        return self._n > 0

    def outcomes(self) -> tuple[list[float], list[Sequence[int]]]:
        """List of times, list of [id, pool, replica, kind, slot, value] (`sim.engine.state`: ENDED …)."""
        n = self._n
        if n > self._times.size:
            self._times = np.empty(2 * n)
            self._rows = np.empty((2 * n, 6), np.int64)
            n = _outcomes(self.recorders, self._times, self._rows)
        return self._times[:n].tolist(), self._rows[:n].tolist()
