# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""A group whose replicas have several data-parallel ranks each, which step together (`sim.engine.together`)."""

import numpy as np

from sim.engine.group import EngineGroup, _submit
from sim.engine.order import advance
from sim.engine.together import new_together
from sim.jit import kernel, list_of


@kernel
def _first_replica(g):
    return list_of(g)


@kernel
def _append_replica(replicas, g):
    replicas.append(g)


@kernel
def _places(s):
    return s.q_rows.size


@kernel
def _dummy_steps(replicas):
    n = 0
    for i in range(len(replicas)):
        n += replicas[i].dummies
    return n


@kernel
def _renew(replicas, i, places):
    """A replica whose ranks are new is at rest."""
    old = replicas[i]
    g = new_together(old.first, old.ranks, places, old.shared, old.interval)
    g.dummies = old.dummies
    replicas[i] = g


@kernel
def _count_from(replicas, at):
    """The states of the first replica begin at number ``at``."""
    first = at
    for i in range(len(replicas)):
        replicas[i].first = first
        first += replicas[i].ranks


class LockstepGroup(EngineGroup):
    """States of several replicas, ``ranks`` in a row to each, which step together. Numbers of states take the place of replicas.

    ``shared``: the `SharedCost`; ``interval``: steps between two finish detections (0: at every step).
    """

    def __init__(self, states, recorder, ranks, shared, interval):
        super().__init__(states, recorder)
        places = _places(states[0])
        made = [new_together(k, ranks, places, shared, interval) for k in range(0, self.n, ranks)]
        self._replicas = _first_replica(made[0])
        for g in made[1:]:
            _append_replica(self._replicas, g)
        self._per_replica = ranks
        self._stepped = self._states  # among which the ranks of each replica are numbered
        self._arrivals = self._keys
        self._keys = np.full(len(made), np.inf)

    def _submit(self, replica_of, columns, spans, lo, hi, first_id, watch):
        # the kernel notes the earliest arrival of each state
        while True:
            lo = _submit(self._states, self._arrivals, replica_of, lo, hi, first_id, watch, columns, spans)
            np.minimum(self._keys, self._arrivals.reshape(-1, self._per_replica).min(axis=1), out=self._keys)
            self._arrivals.fill(np.inf)
            if lo >= hi:
                return
            self._grow(replica_of, spans, lo)

    def advance(self, until, watched):
        """Run to ``until``; with ``watched`` stop at the first watched outcome (True)."""
        return advance(self._stepped, self._replicas, self._keys, float(until), watched)

    @property
    def replicas(self):
        """What the ranks of each replica have in common."""
        return self._replicas

    def step_as(self, states, at):
        """The group's states are number ``at`` and following of ``states`` (`sim.engine.joined`)."""
        self._stepped = states
        _count_from(self._replicas, at)

    def catch_up(self, now, replica=None):
        """As of any group; the others of a replica come along with a rank."""
        super().catch_up(now, None if replica is None else replica // self._per_replica)

    def anew(self, first, ranks=1):
        """As of any group."""
        _renew(self._replicas, first // self._per_replica, _places(self._states[first]))
        self._keys[first // self._per_replica] = -np.inf

    def totals(self):
        """As of any group; ``dummy_steps`` are steps of a replica in which none of its ranks had work."""
        return super().totals() | {"dummy_steps": int(_dummy_steps(self._replicas))}
