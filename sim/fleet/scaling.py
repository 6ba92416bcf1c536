"""Autoscaling: the life cycle of replicas, and the router among those that serve.

A replica is provisioning → loading → serving → draining → gone. Engines for the largest number are built at the start; a number that comes
back is a new process with an empty cache. Routers see only the replicas that serve. While none does, requests wait here, first come, first
served, unless the router has a gateway of its own, whose retries and time-outs then apply. A draining replica takes nothing new and goes when
it is empty. Not modelled: failed starts, quotas, requests cut off by a limit on draining.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

import numpy as np
import simpy
from numpy.typing import NDArray

from sim import registry
from sim.cost.features import PARTS
from sim.errors import ConfigError, NotModelledError
from sim.fleet.caches import unseen
from sim.metrics.scaling import Life, Scaling
from sim.policy.router import Relocation, ReplicaFacts, Router, Snapshot
from sim.policy.scaler import Phase, Scaler, ScalerParams

_LOOK: Final = 0.1
"""Seconds between two looks at whether a draining replica is empty."""
_ROUNDING: Final = 1e-9  # of SimPy's clock, which adds up delays
_HOST: Final = PARTS.index("host")


@dataclass(frozen=True)
class ScalingPlan:
    """An autoscaler ready to run: its class and settings, replicas at the start, the phases of a cold start."""

    scaler: type[Scaler]
    params: ScalerParams
    start: int
    phases: tuple[Phase, ...]
    accelerators: int
    """Of one replica."""

    @property
    def most(self) -> int:
        """Replicas that can exist at once."""
        return self.params.max

    def before(self, router: Router) -> Callable[[Any], Elastic]:
        """Makes what stands before the router, of the `sim.fleet.world.World`."""
        return lambda world: Elastic(world, router, self)


def plan_scaling(scenario: Any, plans: Sequence[Any], router: Any) -> ScalingPlan | None:
    """The ``scaling`` section of a scenario; ``router``: makes the scenario's router for so many replicas.

    *Raises*: `ConfigError`, `NotModelledError` for what cannot be scaled.
    """
    if scenario.scaling is None:
        return None
    from sim.config import settings

    section = scenario.scaling
    cls = registry.lookup("scaler", section.name, "scaling.name")
    params = settings(cls.Params, section.settings, "scaling")
    if scenario.pools is not None:
        raise NotModelledError("scaling", section.name, "autoscaling of several pools is not modelled", "one deployment")
    if plans[0].ranks is not None:
        raise NotModelledError("scaling", section.name, "autoscaling of engines with data-parallel ranks is not modelled", "dp 1")
    (p,) = plans
    if not params.min <= p.replicas <= params.max:
        raise ConfigError(
            "deployment.replicas",
            p.replicas,
            "are there at the start: must lie in scaling.min to max",
            f"{params.min} to {params.max}",
        )
    if params.targets.kv is not None and p.budget is None:
        raise NotModelledError(
            "scaling.targets.kv", params.targets.kv, f"{p.scheduler.name} reports no KV use", "qps, gpu, queue"
        )
    made = router(params.max)
    name = scenario.router.name
    if not made.elastic:
        raise NotModelledError(
            "router.name",
            name,
            "routes among a fixed set of replicas and cannot be used with scaling",
            ", ".join(n for n in registry.names("router") if registry.lookup("router", n).elastic),
            "a router of your own says `elastic = True`",
        )
    if made.migration is not None:
        raise NotModelledError("router", name, "live migration together with scaling is not modelled", "migration off")
    if getattr(made.gateway, "scheduler_outage", None) is not None:
        raise NotModelledError("router.gateway.scheduler_outage", "…", "is not modelled together with scaling", "null")
    phases = params.startup.phases(float(p.model.weight_bytes()), p.scheduler.name)
    return ScalingPlan(cls, params, p.replicas, phases, p.accelerators // p.replicas)


class Serving:
    """What a router sees (`sim.policy.router.Snapshot`): of all replicas those that serve, place i being number ``numbers[i]``."""

    def __init__(self, view: Any) -> None:
        self._view = view
        self.numbers = np.zeros(0, np.int64)

    @property
    def now(self) -> float:
        """Simulated time."""
        return float(self._view.now)

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """i8[place]."""
        found: NDArray[np.int64] = self._view.outstanding[self.numbers]
        return found

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, place]."""
        found: NDArray[np.float64] = self._view.gauges()[:, self.numbers]
        return found

    def look(self) -> dict[str, NDArray[np.float64]]:
        """f8[place] by name."""
        return {name: values[self.numbers] for name, values in self._view.look().items()}

    def running(self, replica: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Running requests of the replica at a place."""
        rows: tuple[NDArray[np.int64], NDArray[np.float64]] = self._view.running(int(self.numbers[replica]))
        return rows


class Elastic(Router):
    """Stands before the scenario's ``router``, and decides when to ask the scaler. ``world``: the `sim.fleet.world.World`."""

    name = "elastic"

    def __init__(self, world: Any, router: Router, plan: ScalingPlan) -> None:
        super().__init__(router.params, router.replicas, router.rng)
        self._world, self._env, self._router = world, world.env, router
        self._scaler = plan.scaler(plan.params)
        self._p, self._start_with = plan.params, plan.start
        self._seen = Serving(world.view)
        self._numbers: list[int] = []
        self._life: list[Life | None] = [None] * plan.most
        self._starts: Counter[int] = Counter()
        self._buffer: deque[Any] = deque()
        self._samples: deque[tuple[float, int, NDArray[np.float64]]] = deque()
        self._next_decision = self._next_look = 0.0
        self.interval = plan.params.interval
        self.gateway = router.gateway
        self.waited = 0
        """Requests that came while no replica served."""
        dedicated = self._scaler.dedicated
        self.record = Scaling(plan.scaler.name, plan.params.min, plan.most, plan.accelerators, plan.phases, dedicated)
        """What happened."""

    # -- requests

    def choose(self, snapshot: Snapshot, block: Any, row: int) -> int:
        """The router's choice among the replicas that serve; −1 while none does."""
        if not self._numbers:
            return -1
        place = self._router.choose(self._seen, block, row)
        return self._numbers[place] if place >= 0 else -1

    def send(self, request: tuple[Any, int, int, int]) -> bool:
        """Send a request to the router's choice; False if it has none."""
        block, row, number, watch = request
        replica = self.choose(self._world.view, block, row)
        if replica < 0:
            return False
        self._world.submit((*unseen(block, row, self._starts[replica] - 1), number, watch), replica)
        return True

    def arrive(self, request: tuple[Any, int, int, int], priority: int = 0) -> None:
        """A request has come and the router has no gateway of its own: it waits while no replica serves."""
        if not self._numbers:
            self._buffer.append(request)
            self.waited += 1
        elif not self.send(request):
            self._world.refuse(request)

    # -- replicas

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """The replicas of the start serve at once."""
        self._router.setup(facts)
        for k in range(self._start_with):
            self._new(k, Life(k, 0.0, 0.0, 0.0))
        self._appoint()
        self.record.wishes.append((0.0, self._start_with))

    def _new(self, k: int, life: Life) -> Life:
        self._life[k] = life
        self._starts[k] += 1
        self.record.lives.append(life)
        return life

    def _appoint(self) -> None:
        """Tell the router who serves."""
        self._numbers = [
            k for k, life in enumerate(self._life) if life is not None and not isnan(life.ready) and isnan(life.drain)
        ]
        self._seen.numbers = np.array(self._numbers, np.int64)
        self._router.members(self._numbers)

    def _start(self, k: int) -> Generator[simpy.Event, Any, None]:
        life = self._new(k, Life(k, self._env.now))
        owned = self._scaler.dedicated is not None and k < self._scaler.dedicated
        for i, (_, seconds, _, _) in enumerate(self.record.phases):
            yield self._env.timeout(0.0 if i == 0 and owned else seconds)
            if not isnan(life.gone):
                return
            if i == 0:
                life.born = self._env.now
        life.ready = self._env.now
        self._appoint()
        if self._router.interval is not None:
            self._router.poll(self._seen)
        while self._buffer and self._numbers:
            request = self._buffer.popleft()
            if not self.send(request):
                self._world.refuse(request)

    def _stop(self, life: Life) -> None:
        if isnan(life.ready):
            life.gone = self._env.now
            self._life[life.replica] = None
            return
        life.drain = self._env.now
        self._appoint()
        self._env.process(self._drain(life))

    def _drain(self, life: Life) -> Generator[simpy.Event, Any, None]:
        while self._world.view.outstanding[life.replica] > 0:
            yield self._env.timeout(_LOOK)
        life.gone = self._env.now
        self._life[life.replica] = None

    # -- decisions

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """The router's look at the replicas, and the scaler's evaluation, each at its interval."""
        now, inner = float(self._env.now), self._router
        if inner.interval is not None and now >= self._next_look - _ROUNDING:
            if self._numbers:
                inner.poll(self._seen)
            self._next_look = now + inner.interval
        if now >= self._next_decision - _ROUNDING:
            self._evaluate(now)
            self._next_decision = now + self._p.interval
        due = self._next_decision if inner.interval is None else min(self._next_decision, self._next_look)
        self.interval = max(due - now, _ROUNDING)
        return ()

    def _evaluate(self, now: float) -> None:
        parts = self._world.groups[0].parts
        if self._p.targets.gpu is not None:
            self._world.view.sync(0)
        busy: NDArray[np.float64] = parts.sum(axis=1) - parts[:, _HOST]
        self._samples.append((now, self._world.sent, busy))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self._p.window + _ROUNDING:
            self._samples.popleft()
        if self._samples[0][0] == now:
            return
        staying = [life for life in self._life if life is not None and isnan(life.drain)]
        current = len(staying)
        wish = self._scaler.decide(now, current, self._measure(now, busy, current))
        if not self._numbers and self._world.waiting:  # whatever the metrics say: somebody has to come
            wish = max(wish, 1)
        wish = min(max(wish, self._p.min), self._p.max)
        if wish != self.record.wishes[-1][1]:
            self.record.wishes.append((now, wish))
        if wish > current:
            free = [k for k, life in enumerate(self._life) if life is None][: wish - current]
            self.record.outs += bool(free)
            for k in free:
                self._env.process(self._start(k))
        elif wish < current:
            self.record.ins += 1
            for life in sorted(staying, key=self._last_to_go)[: current - wish]:
                self._stop(life)

    def _last_to_go(self, life: Life) -> tuple[bool, bool, float, int]:
        """Public ones go first, of these the ones that do not serve yet, then the youngest."""
        dedicated = self._scaler.dedicated
        return dedicated is None or life.replica < dedicated, not isnan(life.ready), -life.asked, -life.replica

    def _measure(self, now: float, busy: NDArray[np.float64], current: int) -> dict[str, float]:
        """The metrics of `sim.policy.scaler.METRICS`, per replica."""
        then, sent, busy_then = self._samples[0]
        numbers = self._seen.numbers
        gauges = self._world.view.gauges()[:, numbers]
        with np.errstate(invalid="ignore", divide="ignore"):
            kv = np.nan_to_num(gauges[2] / gauges[3], posinf=0.0)
        total = {
            "qps": (self._world.sent - sent) / (now - then),
            "gpu": float(np.minimum((busy - busy_then)[numbers] / (now - then), 1.0).sum()),
            "queue": float(gauges[1].sum()) + self._world.waiting,
            "kv": float(kv.sum()),
        }
        return {name: total[name] / max(current, 1) for name in self._p.targets.given}
