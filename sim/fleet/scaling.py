"""Autoscaling: the life cycle of replicas, and the room in which requests wait while none serves.

A replica is provisioning → loading → serving → draining → gone. Engines for the largest number are built at the start; a number that comes
back is a new process with an empty cache. Routers see only the replicas that serve (`members`). While a side has none, requests wait here, first
come, first served, unless the router has a gateway of its own, whose retries and time-outs then apply. A draining replica takes nothing new
and goes when it is empty and no request is on its way to or from it. Of several pools each is scaled by itself: the rule sees the pool's own
figures. What happens to machines besides is in `upkeep`. Not modelled: failed starts, quotas, a limit on draining but for spot machines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from math import isnan
from typing import Final

import numpy as np
import simpy
from numpy.typing import NDArray

from sim.fleet.clock import Clock
from sim.fleet.engines import Engines
from sim.fleet.members import Members
from sim.fleet.request import Request
from sim.fleet.scaling_plan import PoolPlan, ScalingPlan
from sim.fleet.station import Station
from sim.fleet.upkeep import Upkeep
from sim.ledger import PARTS
from sim.metrics.scaling import Life, Pool, Scaling
from sim.policy.scaler import Fleet, Scaler, Targets
from sim.streams import stream
from sim.workload.table import RequestBlock

_LOOK: Final = 0.1
"""Seconds between two looks at whether a draining replica is empty."""
_ROUNDING: Final = 1e-9  # of SimPy's clock, which adds up delays
_HOST: Final = PARTS.index("host")


class Elastic(Station):
    """Before whoever chooses the replica. ``members``: the routers in the order of `sim.fleet.routers.seats`; ``models``: how many have routers of their own.

    ``room``: whether requests wait here while no replica serves. ``waiting`` and ``sent`` are asked for the requests outside the engines, and for
    all that have left their clients.
    """

    waiting: Callable[[], int]
    sent: Callable[[], int]
    opened: Callable[[], None] = staticmethod(lambda: None)
    """Told when a replica has begun to serve."""
    stranded: Callable[[int], int] = staticmethod(lambda model: 0)
    """How many requests of a model are computed while no decode replica of it serves."""

    def __init__(
        self, clock: Clock, plan: ScalingPlan, engines: Engines, members: Sequence[Members], room: bool, models: int = 1
    ) -> None:
        super().__init__()
        self._clock, self._room = clock, room
        self._buffer: deque[Request] = deque()
        self.waited = 0
        """Requests that came while no replica served."""
        self.in_use: list[Callable[[int], bool]] = []
        """Asked whether a request is on its way to or from a replica."""
        self._members = list(members)
        self._sides = len(members) // models
        """Routers of each model."""
        self.out: set[int] = set()
        """Replicas that are not to be chosen, whatever an autoscaler says."""
        sides = [min(p.side, len(members) - 1) for p in plan.pools]
        self._pools: list[ElasticPool] = []
        first, first_of = 0, [0] * len(members)
        for i, (p, side) in enumerate(zip(plan.pools, sides, strict=True)):
            alone = sides.count(side) == 1 and models == 1
            self._pools.append(ElasticPool(self, i, p, plan.scaler(p.params), engines, first, first_of[side], side, alone))
            first += p.params.max
            first_of[side] += p.params.max
        self._first_of_side = [sides.index(side) for side in range(len(members))]
        public = [pool.public for pool in self._pools]
        phases = [
            (name if len(plan.pools) == 1 else f"{p.name}: {name}", seconds, grade, source)
            for p in plan.pools
            for name, seconds, grade, source in p.phases
        ]
        self.record = Scaling(
            plan.scaler.name,
            sum(p.params.min for p in plan.pools),
            plan.most,
            [p.accelerators for p in plan.pools for _ in range(p.params.max)],
            phases,
            public=None if all(k is None for k in public) else [k for found in public for k in found or ()],
            pools=[Pool(p.name, p.params.max, p.ranks) for p in plan.pools],
            cold_start_s=max(sum(phase.seconds for phase in p.phases) for p in plan.pools),
        )
        """What happened."""

    def open(self, request: Request) -> bool:
        """Whether each side of its model has a replica that serves."""
        first = request.model * self._sides
        return all(m.numbers for m in self._members[first : first + self._sides])

    def start(self) -> None:
        """The replicas of the start serve at once; each pool is evaluated at its interval."""
        for pool in self._pools:
            pool.upkeep.start()
            self._clock.repeat(pool.evaluate)

    def begin(self) -> None:
        """The replicas of the start, after the routers have been set up."""
        for pool in self._pools:
            pool.begin()
        for side in range(len(self._members)):
            self.appoint(side)
        self.note_wish(0.0)

    # -- requests

    def arrive(self, request: Request) -> bool:
        """A request waits while no replica serves, unless a gateway before does that."""
        if self.open(request) or not self._room:
            return self.then.arrive(request)
        self._buffer.append(request)
        self.held[request.number] = request
        self.waited += 1
        return True

    @property
    def ahead(self) -> bool:
        """Who serves changes at events only."""
        return self.then.ahead

    def arrive_ahead(self, block: RequestBlock, lo: int, hi: int, first: int) -> None:
        """On, or into the room."""
        if all(m.numbers for m in self._members) or not self._room:
            self.then.arrive_ahead(block, lo, hi, first)
            return
        for row in range(lo, hi):
            self.arrive(Request(block, row, first + row, float(block.arrival_s[row])))

    def withdraw(self, request: Request) -> bool:
        """Out of the room."""
        if self.held.pop(request.number, None) is None:
            return self.then.withdraw(request)
        self._buffer.remove(request)
        return True

    def serves(self, replica: int) -> bool:
        """Whether a replica is there, serving or draining."""
        return any(pool.serves(replica) for pool in self._pools)

    def appoint(self, side: int) -> None:
        """Tell a side's router who serves."""
        self._members[side].appoint(sorted(k for pool in self._pools if pool.side == side for k in pool.serving()))

    def ready(self, side: int) -> None:
        """A replica has begun to serve."""
        self.appoint(side)
        self._members[side].look_at()
        self.opened()
        waiting, self._buffer = self._buffer, deque()
        for request in waiting:
            if not self.open(request):
                self._buffer.append(request)
                continue
            del self.held[request.number]
            if not self.then.arrive(request):
                self.refused(request, self._clock.now)

    def all_ready(self) -> None:
        """Other replicas of whatever side may be chosen than before."""
        for side in range(len(self._members)):
            self.ready(side)

    # -- what the pools ask

    def somebody_waits_for(self, pool: ElasticPool) -> bool:
        """Whether the pool's side serves nobody, requests wait, and it is this pool's turn to do something about it."""
        side = pool.side
        if self._first_of_side[side] != pool.index or self._members[side].numbers:
            return False
        if self._sides == len(self._members) or not self._room:
            return self.waiting() > 0
        model = side // self._sides
        return any(r.model == model for r in self._buffer) or self.stranded(model) > 0

    def note_wish(self, now: float) -> None:
        """The replicas wanted of all pools."""
        wish = sum(pool.wish for pool in self._pools)
        if not self.record.wishes or wish != self.record.wishes[-1][1]:
            self.record.wishes.append((now, wish))

    @property
    def clock(self) -> Clock:
        """The run's."""
        return self._clock

    def totals(self) -> dict[str, float]:
        """Requests that waited."""
        out = {"fleet_gateway_waited": float(self.waited), "fleet_gateway_failed": 0.0} if self._room else {}
        for pool in self._pools:
            for name, value in pool.upkeep.totals().items():
                out[name] = out.get(name, 0.0) + value
        return out


class ElasticPool:
    """One pool: its replicas are number ``first`` … of the fleet, ``place`` … of the side. ``alone``: no other pool is on the side."""

    def __init__(
        self,
        owner: Elastic,
        index: int,
        plan: PoolPlan,
        scaler: Scaler,
        engines: Engines,
        first: int,
        place: int,
        side: int,
        alone: bool,
    ) -> None:
        self.index, self.side, self.wish = index, side, plan.start
        self._owner, self._plan, self._scaler, self._engines, self._alone = owner, plan, scaler, engines, alone
        self._env = owner.clock
        self._p, self.first, self._place = plan.params, first, place
        self.upkeep = Upkeep(owner.clock, self, plan.params, stream(plan.seed, f"spot.{plan.name}"))
        self._targets: Targets | None = getattr(plan.params, "targets", None)
        self._window: float = getattr(plan.params, "window", 0.0)
        self._life: list[Life | None] = [None] * plan.params.max
        self._lived = [False] * plan.params.max
        self._samples: deque[tuple[float, int, NDArray[np.float64]]] = deque()

    @property
    def public(self) -> list[int] | None:
        """Replicas on public machines; None: no such difference."""
        own = self._scaler.dedicated
        return None if own is None else list(range(self.first + own, self.first + self._p.max))

    def serving(self) -> list[int]:
        """Places on the side of those that serve."""
        lives = enumerate(self._life)
        out = self._owner.out
        fit = (k for k, x in lives if x is not None and not isnan(x.ready) and isnan(x.drain))
        return [self._place + k for k in fit if self.first + k not in out]

    def serves(self, replica: int) -> bool:
        """Whether the replica of that number is one of these, and there."""
        k = replica - self.first
        life = self._life[k] if 0 <= k < len(self._life) else None
        return life is not None and not isnan(life.ready)

    # -- lives

    def there(self) -> list[tuple[int, Life]]:
        """Replicas that are there or starting, and not draining."""
        return [(k, life) for k, life in enumerate(self._life) if life is not None and isnan(life.drain)]

    def life(self, k: int) -> Life | None:
        """The present life of a replica."""
        return self._life[k]

    def kill(self, k: int, life: Life) -> int:
        """Its machine is gone, and what was in it has failed; answers how many requests."""
        life.gone = self._env.now
        self._life[k] = None
        lost = self._engines.crash(self.first + k, self._plan.processes(k, self._engines.groups[self.index].recorder))
        self._engines.tell()
        return lost

    def shrink(self, away: int) -> int:
        """So many replicas cannot be had: those beyond drain; answers how many."""
        staying = self.there()
        gone = sorted(staying, key=self._last_to_go)[: max(len(staying) - max(self._p.max - away, 0), 0)]
        for k, life in gone:
            self.stop(k, life, "drained for maintenance")
        return len(gone)

    def begin(self) -> None:
        """The replicas of the start serve at once."""
        for k in range(self._plan.start):
            self._new(k, Life(self.first + k, 0.0, 0.0, 0.0))

    def _new(self, k: int, life: Life) -> Life:
        self._life[k] = life
        if self._lived[k]:
            self._engines.restarted(life.replica)
        self._lived[k] = True
        self._owner.record.lives.append(life)
        return life

    def _start(self, k: int) -> Generator[simpy.Event, object, None]:
        life = self._new(k, Life(self.first + k, self._env.now))
        owned = self._scaler.dedicated is not None and k < self._scaler.dedicated
        for i, (_, seconds, _, _) in enumerate(self._plan.phases):
            yield self._env.timeout(0.0 if i == 0 and owned else seconds)
            if not isnan(life.gone):
                return
            if i == 0:
                life.born = self._env.now
                self.upkeep.born(k, life)
        life.ready = self._env.now
        self._owner.ready(self.side)

    def stop(self, k: int, life: Life, why: str = "drained") -> None:
        """It takes nothing new, and goes when it is empty."""
        life.why = why
        if isnan(life.ready):
            life.gone = self._env.now
            self._life[k] = None
            return
        life.drain = self._env.now
        self._owner.appoint(self.side)
        self._env.process(self._drain(k, life))

    def _drain(self, k: int, life: Life) -> Generator[simpy.Event, object, None]:
        n = life.replica
        while self._engines.view.outstanding[n] > 0 or any(used(n) for used in self._owner.in_use):
            yield self._env.timeout(_LOOK)
            if not isnan(life.gone):
                return
        life.gone = self._env.now
        self._life[k] = None

    # -- decisions

    def evaluate(self) -> float:
        """Ask the scaler, do what it says; answers when to ask again."""
        now = float(self._env.now)
        if self._targets is None:
            self._decide(now, {})
            return now + self._p.looks
        if self._targets.gpu is not None:
            self._engines.view.sync(self.first)
            self._engines.after_looks()
        busy = self._busy()
        self._samples.append((now, self._arrived(), busy))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self._window + _ROUNDING:
            self._samples.popleft()
        if self._samples[0][0] != now:
            self._decide(now, self._measure(now, busy))
        return now + self._p.looks

    def _busy(self) -> NDArray[np.float64]:
        """f8[replica]: seconds in which kernels ran; of ranks, on average."""
        parts = self._engines.groups[self.index].parts
        by_rank: NDArray[np.float64] = parts.sum(axis=1) - parts[:, _HOST]
        return by_rank if self._plan.ranks == 1 else by_rank.reshape(-1, self._plan.ranks).mean(axis=1)

    def _arrived(self) -> int:
        """Requests for this pool so far: also those that wait, where only this pool can take them."""
        return self._owner.sent() if self._alone and self._plan.role != "decode" else self._engines.taken[self.index]

    def _decide(self, now: float, metrics: dict[str, float]) -> None:
        staying = self.there()
        current = len(staying)
        wish = self._scaler.size(now, self._fleet(current), metrics)
        if self._owner.somebody_waits_for(self):  # whatever the metrics say: somebody has to come
            wish = max(wish, 1)
        self.wish = min(max(wish, self._p.min), self._p.max - self.upkeep.away)
        self._owner.note_wish(now)
        record = self._owner.record
        if self.wish > current:
            free = [k for k, life in enumerate(self._life) if life is None][: self.wish - current]
            record.outs += bool(free)
            for k in free:
                self._env.process(self._start(k))
        elif self.wish < current:
            record.ins += 1
            for k, life in sorted(staying, key=self._last_to_go)[: current - self.wish]:
                self.stop(k, life)

    def _last_to_go(self, entry: tuple[int, Life]) -> tuple[bool, bool, float, int]:
        """Public ones go first, of these the ones that do not serve yet, then the youngest."""
        k, life = entry
        dedicated = self._scaler.dedicated
        return dedicated is None or k < dedicated, not isnan(life.ready), -life.asked, -k

    def _fleet(self, current: int) -> Fleet:
        gauges = self._engines.view.gauges()[:, self.first + np.array(self.serving(), np.int64) - self._place]
        with np.errstate(invalid="ignore", divide="ignore"):
            kv = np.nan_to_num(gauges[2] / gauges[3], posinf=0.0)
        outside = self._owner.waiting() if self._alone and self._plan.role != "decode" else 0
        return Fleet(current, gauges[0], gauges[1], kv, outside, self._arrived())

    def _measure(self, now: float, busy: NDArray[np.float64]) -> dict[str, float]:
        """The metrics of `sim.policy.scaler.METRICS`, per replica."""
        assert self._targets is not None, "only asked of scalers with targets"
        current = len(self.there())
        fleet = self._fleet(current)
        then, sent, busy_then = self._samples[0]
        mine = np.array(self.serving(), np.int64) - self._place
        total = {
            "qps": (fleet.arrived - sent) / (now - then),
            "gpu": float(np.minimum((busy - busy_then)[mine] / (now - then), 1.0).sum()),
            "queue": float(fleet.waiting.sum()) + fleet.outside,
            "kv": float(fleet.kv.sum()),
        }
        return {name: total[name] / max(current, 1) for name in self._targets.given}
