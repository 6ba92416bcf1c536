"""Several models on shared cards: the hosts behind a router.

Each host is one server with one card and all the models (`ollama_host`); model k's engine on host h is replica ``k · hosts + h``. The router chooses the
host, as a load balancer before several servers does: it sees a host as the sum of its models, requests that wait for a load included.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sim.fleet.clock import Clock
from sim.fleet.engines import Engines
from sim.fleet.ollama_host import UNLOAD, OllamaHost
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts

if TYPE_CHECKING:
    from sim.fleet.build import Plan
    from sim.fleet.view import View

N = TypeVar("N", np.int64, np.float64)


class HostView:
    """What a router sees of the hosts (`sim.policy.router.Snapshot`)."""

    def __init__(self, view: View, hosts: Sequence[OllamaHost]) -> None:
        self._view, self._hosts = view, hosts
        self.replicas = len(hosts)
        self.facts: list[ReplicaFacts] = view.facts[: len(hosts)]

    @property
    def now(self) -> float:
        """Simulated time."""
        return float(self._view.now)

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """i8[host]."""
        found: NDArray[np.int64] = self._sum(self._view.outstanding) + np.array([len(h.held) for h in self._hosts])
        return found

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, host]: sums over the models, and the latest clock."""
        rows = self._view.gauges()
        return np.stack([*(self._sum(row) for row in rows[:4]), rows[4].reshape(-1, self.replicas).max(axis=0)])

    def look(self) -> dict[str, NDArray[np.float64]]:
        """f8[host] by name: sums over the models."""
        found = {name: self._sum(values) for name, values in self._view.look().items() if name != "seen_until"}
        return found | {"seen_until": np.full(self.replicas, np.inf)}

    def delivered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of all engines."""
        return self._view.delivered()

    def cached(self, block: Requests, row: int) -> NDArray[np.float64]:
        """Not of Ollama: refused by name."""
        return self._view.cached(block, row)

    def running(self, replica: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Not of hosts."""
        raise NotImplementedError

    def _sum(self, values: NDArray[N]) -> NDArray[N]:
        found: NDArray[N] = values.reshape(-1, self.replicas).sum(axis=0)
        return found


class _Door:
    """What host number ``host`` does to the world."""

    def __init__(self, owner: Hosts, host: int) -> None:
        self._owner, self._host = owner, host

    def submit(self, request: Request, model: int) -> None:
        self._owner.then.submit(request, self._owner.replica(model, self._host))

    def busy(self, request: Request) -> None:
        self._owner.busy += 1
        request.replica = self._owner.replica(request.model, self._host)
        self._owner.refused(request, self._owner.now, busy=True)

    def unloaded(self, model: int) -> None:
        self._owner.engines.restarted(self._owner.replica(model, self._host))

    def share(self, model: int, processes: int) -> None:
        self._owner.engines.groups[self._owner.replica(model, self._host)].share_device(processes, self._owner.now)


class Hosts(Station):
    """Where a chosen replica is a host. ``engines``: one group per model and host."""

    watches = 1  # ends

    def __init__(self, clock: Clock, plans: Sequence[Plan], engines: Engines, hosts: int) -> None:
        super().__init__()
        self._clock, self.engines = clock, engines
        self.hosts = [OllamaHost(clock, plans, _Door(self, k)) for k in range(hosts)]
        self.held = ChainMap(*(host.held for host in self.hosts))
        self.view = HostView(engines.view, self.hosts)
        self.busy = 0

    @property
    def now(self) -> float:
        """Simulated time."""
        return float(self._clock.now)

    def replica(self, model: int, host: int) -> int:
        """The number of a model's engine on a host."""
        return model * len(self.hosts) + host

    def submit(self, request: Request, replica: int) -> None:
        """The server decides when its engine gets it."""
        self.hosts[replica].arrive(request)

    def ended(self, request: Request, time: float, replica: int) -> None:
        """The server hears of it, too."""
        host = self.hosts[replica % len(self.hosts)]
        self._clock.call(time, lambda: host.finished(request.number))
        self.before.ended(request, time, replica)

    # -- results

    def _count(self, what: str, model: str | None = None) -> int:
        return sum(kind == what and model in (None, key) for host in self.hosts for _, kind, key in host.log)

    def totals(self) -> dict[str, float]:
        """Figures for the summary, in requests and seconds."""
        loads = self.hosts[0].loads
        waits = np.array([w for host in self.hosts for w in host.waits] or [0.0])
        again = [key for host in self.hosts for key in host.reloads()]
        return {
            "fleet_model_loads": float(self._count("load")),
            "fleet_model_reloads": float(len(again)),
            "fleet_model_load_s": float(sum(loads[key] for host in self.hosts for _, kind, key in host.log if kind == "load")),
            "fleet_model_reload_s": float(sum(loads[key] for key in again)),
            "fleet_model_evictions": float(self._count("evict")),
            "fleet_model_expiries": float(self._count("expire")),
            "fleet_model_waits": float(sum(len(host.waits) for host in self.hosts)),
            "fleet_model_wait_mean_s": float(waits.mean()),
            "fleet_model_wait_max_s": float(waits.max()),
            "fleet_busy_503": float(self.busy),
            "fleet_models_together_s": sum(host.together for host in self.hosts),
        }

    def notes(self) -> list[str]:
        """What the hosts did, in sentences for the report, and what is not modelled about them."""
        t = {k.removeprefix("fleet_"): v for k, v in self.totals().items()}
        each = ", ".join(f"{name} {self._count('load', name):,} × {load:.2f} s" for name, load in self.hosts[0].loads.items())
        loads = (
            f"models were loaded {t['model_loads']:,.0f} times ({each}), {t['model_load_s']:,.1f} s of loading in all; "
            f"{t['model_evictions']:,.0f} unloaded to make room, {t['model_expiries']:,.0f} after their keep-alive"
        )
        out = [loads]
        if t["model_waits"]:
            out.append(
                f"{t['model_waits']:,.0f} requests waited for their model, {t['model_wait_mean_s']:.1f} s on average, "
                f"{t['model_wait_max_s']:.1f} s at most; reloading what had been unloaded took {t['model_reload_s']:,.1f} s"
            )
        if t["models_together_s"]:
            out.append(
                f"for {t['models_together_s']:,.1f} s two models or more computed at once and shared the card evenly; "
                "a step under way when another begins or ends keeps its time"
            )
        out.append(
            f"assumed: memory is back {UNLOAD:g} s after an unload begins; load times are weight bytes over load_bandwidth"
        )
        return out
