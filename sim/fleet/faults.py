"""Between whoever chooses the replica and the engines: what breaks, when, and what becomes of it (`sim.policy.fault`).

A dead replica loses everything in it at one moment: its requests fail there. Until the router knows (`sim.policy.recovery`), what it sends there is
refused at once; a request whose answer has not begun is sent elsewhere if the router does that, else its client hears of it. A replica that serves
again has an empty cache. Faults that nobody is there for any more do not happen: the run ends when the traffic does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sim.fleet.attempts import UNREACHABLE, Attempt, Attempts
from sim.fleet.clock import LATEST, Clock
from sim.fleet.engines import Engines
from sim.fleet.outage import Front
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.fleet.timers import Timers
from sim.metrics.faults import Incident
from sim.policy.client import CONNECT
from sim.policy.fault import Fault, Unit
from sim.policy.recovery import Recovery

if TYPE_CHECKING:
    from sim.engine.group import EngineGroup
    from sim.engine.recorder import Recorder
    from sim.engine.slow import Slowness
    from sim.engine.state import EngineState

BEGIN, END, DETECTED, BACK = range(4)  # alarms


class Faults(Station):
    """``new_engine(replica, recorder)``: the states of new processes, one of each rank. ``streams``: a random stream for each fault and one for
    pauses of the router.
    """

    def __init__(
        self,
        clock: Clock,
        faults: Sequence[Fault],
        units: Sequence[Unit],
        engines: Engines,
        streams: Sequence[np.random.Generator],
        new_engine: Callable[[int, Recorder], Sequence[EngineState]],
        recovery: Recovery,
    ) -> None:
        super().__init__()
        self._clock, self._faults, self._units, self._engines = clock, list(faults), list(units), engines
        self._streams, self._new_engine, self._recovery = list(streams), new_engine, recovery
        self.attempts: Attempts | None = None
        self.front: Front | None = None
        self.members = False
        """Whether the router is shown only those that serve; else it goes on choosing whom it likes."""
        self.changed: Callable[[], None] = lambda: None
        """Told when other replicas may be chosen than before."""
        self.serves: Callable[[int], bool] = lambda replica: True
        """Whether a replica is there at all."""
        self.new_router: Callable[[], None] = lambda: None
        self.set_links: Callable[[float, float], None] = lambda factor, until: None
        self.down = engines.dead
        self.out: set[int] = set()
        """Replicas that the router does not choose."""
        self._failures = [0] * len(engines.pool_of)
        self._times = [0] * len(engines.pool_of)
        self._out_since = [0] * len(engines.pool_of)  # as many deaths had it then
        self._slowness: dict[int, Slowness] = {}
        self._incidents: list[Incident] = []
        self._now: Incident | None = None
        self._open: Counter[tuple[str, int]] = Counter()
        self._late = 0
        self._delivered: dict[int, int] = {}
        self._timers = Timers(clock, self._ring, lambda: True)

    def start(self) -> None:
        """The first of each."""
        for i, fault in enumerate(self._faults):
            for unit in self._concerned(fault):
                times = fault.params.at
                if times is not None:
                    for time in times:
                        self._timers.at(float(time), BEGIN, (i, unit))
                else:
                    self._next(i, unit)

    def _concerned(self, fault: Fault) -> Sequence[Unit]:
        whole = Unit(-1, sum(u.accelerators for u in self._units))
        return fault.concerns(self._units) if fault.scope == "replica" else [whole]

    def _next(self, i: int, unit: Unit) -> None:
        rate = self._faults[i].rate(unit)
        time = self._clock.now + (float(self._streams[i].exponential(1.0 / rate)) if rate > 0 else inf)
        if time < LATEST:
            self._timers.at(time, BEGIN, (i, unit))

    def _ring(self, kind: int, what: tuple[int, Unit | int]) -> None:
        i, unit = what
        if not isinstance(unit, Unit):
            self._router_sees(kind, i, unit)
            return
        fault = self._faults[i]
        scripted = fault.params.at is not None
        if kind == END:
            self._open[fault.name, unit.replica] -= 1
            if not self._open[fault.name, unit.replica]:  # else another of the kind goes on
                fault.end(self, unit.replica)
            if not scripted:
                self._next(i, unit)
            return
        if self._clock.over:
            self._late += scripted
            return
        if fault.crashes and (unit.replica in self.down or not self.serves(unit.replica)):
            if not scripted:
                self._next(i, unit)
            return
        lasts = fault.lasts(unit)
        if fault.params.repair == "exponential" and lasts > 0:
            lasts = float(self._streams[i].exponential(lasts))
        now = float(self._clock.now)
        self._now = Incident(fault.name, now, now + lasts, unit.replica, fault.words(unit.replica))
        self._incidents.append(self._now)
        self._open[fault.name, unit.replica] += 1
        fault.begin(self, unit.replica)
        self._timers.at(now + lasts, END, (i, unit))

    # -- what faults ask for (`sim.policy.fault.Hands`)

    def _there(self, replica: int) -> tuple[EngineGroup, int, int]:
        pool = self._engines.pool_of[replica]
        return self._engines.groups[pool], pool, self._engines.number_of[replica]

    def crash(self, replica: int) -> None:
        """Everything in it is lost."""
        group, pool, k = self._there(replica)
        if self._recovery.migrations:
            from sim.engine.crash import delivered

            self._delivered = delivered(group, k, self._clock.now)
        self._times[replica] += 1
        assert self._now is not None
        self._now.hurt = self._engines.crash(replica, self._new_engine(replica, group.recorder))
        if pool in self._slowness:
            self._slowness[pool].renewed(k, self._clock.now)
        self._failures[replica] += self._now.hurt  # broken streams are failures, too
        if self._failures[replica] >= self._recovery.breaker:
            self._take_out(replica)
        self._engines.tell()
        life = self._times[replica]
        self._timers.at(self._clock.now + self._recovery.detects, DETECTED, (replica, life))

    def _router_sees(self, kind: int, replica: int, life: int) -> None:
        if kind == DETECTED and replica in self.down and life == self._times[replica]:
            self._take_out(replica)
        elif kind == BACK and replica not in self.down and replica in self.out and life >= self._out_since[replica]:
            self.out.discard(replica)  # also if it died again meanwhile: nobody was there to see it
            self.changed()

    def _take_out(self, replica: int) -> None:
        if self.members and replica not in self.out:
            self.out.add(replica)
            self._out_since[replica] = self._times[replica]
            self.changed()

    def restart(self, replica: int) -> None:
        """It listens again; the router finds out."""
        self.down.discard(replica)
        self._failures[replica] = 0
        if replica in self.out:
            self._timers.at(self._clock.now + self._recovery.returns, BACK, (replica, self._times[replica]))

    def slow(self, replica: int, factor: float) -> None:
        """From its next step on."""
        from sim.engine.slow import Slowness

        group, pool, k = self._there(replica)
        if pool not in self._slowness:
            self._slowness[pool] = Slowness(group)
        self._slowness[pool].slow(k, factor, self._clock.now)

    def shut(self, hangs: bool) -> None:
        """All connections break."""
        assert self.front is not None and self.attempts is not None and self._now is not None
        self.front.shut(hangs)
        self._now.hurt = self.attempts.break_off()

    def open(self) -> None:
        """As before."""
        assert self.front is not None
        self.front.open()

    def forget(self) -> None:
        """A new router."""
        self.new_router()

    def store(self, there: bool) -> None:
        """Of all pools."""
        for group in self._engines.groups:
            engines = getattr(group, "inner", group)  # of ranks
            if hasattr(engines, "set_store"):
                group.catch_up(self._clock.now)
                engines.set_store(there)

    def link(self, factor: float) -> None:
        """Of all links."""
        self.set_links(factor, self._now.end_s if self._now is not None else 0.0)

    # -- requests

    def submit(self, request: Request, replica: int) -> None:
        """Nobody listens at a dead replica."""
        if replica not in self.down:
            self.then.submit(request, replica)
            return
        request.status = UNREACHABLE
        self.refused_by(replica)
        self.before.refused(request, self._clock.now)

    def refused_by(self, replica: int) -> None:
        """Nobody has answered there: the breaker counts."""
        self._failures[replica] += 1
        if self._failures[replica] >= self._recovery.breaker:
            self._clock.call(self._clock.now, lambda: self._take_out(replica))

    def ended(self, request: Request, time: float, replica: int) -> None:
        """An answer closes the breaker's count."""
        if request.status == 0:
            self._failures[replica] = 0
        self.before.ended(request, time, replica)

    def elsewhere(self, attempt: Attempt, kind: str) -> bool:
        """Whether the router sends a failed attempt again by itself; if so it does."""
        recovery = self._recovery
        done = self._delivered.pop(attempt.leg.number, -1)
        if kind != CONNECT and done >= 0 and attempt.migrated < recovery.migrations:
            attempt.carry(done, float(self._clock.now))
        elif attempt.first < inf or attempt.legs >= recovery.attempts or (kind != CONNECT and not recovery.resends):
            return False
        pause = recovery.delay(attempt.legs, self._streams[-1])
        assert self.attempts is not None
        again, record = self.attempts.send_again, self.attempts.record
        record.rerouted += 1
        self._clock.call(self._clock.now + pause, lambda: again(attempt))
        return True

    # -- in the end

    def leaves(self) -> Mapping[str, object]:
        """What broke."""
        return {"faults": self._incidents}

    def notes(self) -> list[str]:
        """Faults by script that nobody was there for."""
        late = self._late
        return (
            [f"{late} {'fault' if late == 1 else 'faults'} by script came after the run had ended, and did not happen"]
            if late
            else []
        )
