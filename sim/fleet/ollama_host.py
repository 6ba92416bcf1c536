"""Several models on one accelerator under one Ollama: the queue in front of them, 503, loads, evictions, keep-alive.

Each model is a pool with one engine; `sim.engine.schedulers.ollama.residency` decides, this keeps time. A request goes to its engine only
while its model is loaded. Loading takes the file's size over ``load_bandwidth``, seen at the next poll of the runner's health; an unload
takes `UNLOAD` seconds until its memory is back. *Source*: ollama/ollama fb3076099687 server/sched.go; v0.24.0 for its own runners.

Models that serve requests at the same time share the accelerator: the driver gives every process its slices of time, so a step takes as
many times as long as there are such models. A step that is under way when their number changes keeps its duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import simpy

from sim.engine.schedulers.ollama.layout import LoadRequiredFullError
from sim.engine.schedulers.ollama.params import classic_layout, memory_rule, placement
from sim.engine.schedulers.ollama.placement import must_evict, predicted_vram
from sim.engine.schedulers.ollama.residency import Residency, Runner, keep_alive, max_loaded_models, ready_after, recovery_wait
from sim.errors import ConfigError, NotModelledError

UNLOAD: Final = 1.0
"""Seconds until the memory of a runner that was told to go is back. Upstream calls 0.5 to 1.5 s typical; this is the middle."""
_ROUNDING: Final = 1e-9  # of SimPy's clock, which adds up delays
_TEXT_BITS, _STARTS = 44, 1 << 15  # of a content id's 60 bits: the text's number, the number of the start above it
_SHARED = ("runner", "OLLAMA_MAX_QUEUE", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_GPU_OVERHEAD")  # settings of the one server


def check_host(plans: Sequence[Any], router: str) -> None:
    """Whether the pools can be the models of one Ollama. Raises `ConfigError`, `NotModelledError`."""
    first = plans[0]
    for p in plans:
        if p.scheduler.name != "ollama":
            raise NotModelledError(
                f"{p.field}.model",
                p.model.name,
                f"several models in one fleet are not modelled under {p.scheduler.name}",
                "ollama",
            )
        if p.replicas > 1 or p.layout.tp > 1:
            field = f"{p.field}.{'replicas' if p.replicas > 1 else 'tp'}"
            raise NotModelledError(field, max(p.replicas, p.layout.tp), "several models share one accelerator of one host", "1")
        if p.accelerator.name != first.accelerator.name:
            raise ConfigError(
                f"{p.field}.accelerator", p.accelerator.name, "all models share one accelerator", first.accelerator.name
            )
        for name in _SHARED:
            if getattr(p.params, name) != getattr(first.params, name):
                here, there = getattr(p.params, name), getattr(first.params, name)
                raise ConfigError(f"{p.field}.engine.{name}", here, "is a setting of the server, one for all models", str(there))
    if router != "round_robin":
        raise NotModelledError("router", router, "requests name their model, so nothing is left to route", "round_robin")


@dataclass(frozen=True)
class Needs:
    """What one model asks of the host. Bytes and seconds; ``vram``: weights and KV cache on the card, compute buffers left out."""

    vram: int
    load: float
    session: float

    @classmethod
    def of(cls, p: Any) -> Needs:
        """Of a planned pool."""
        weights, kv = memory_rule(p.params).sizes(p.model).on_card(placement(p.params, p.site))
        load = ready_after(float(p.model.weight_bytes()) / p.params.load_bandwidth)
        return cls(int(weights + kv), load, keep_alive(p.params.OLLAMA_KEEP_ALIVE))


def fits(p: Any, needs: Needs, used: float) -> bool:
    """``requireFull``: whether the model fits beside runners that take ``used`` bytes of its accelerator."""
    m, settings = p.model, p.params
    free = max(int(p.accelerator.memory_bytes - used), 0)
    weights, head_dim = float(m.weight_bytes()), m.hidden // max(m.heads, 1)
    slots, batch = settings.OLLAMA_NUM_PARALLEL, settings.n_ubatch
    if settings.runner == "llama-server":
        predicted = predicted_vram(int(weights), m.layers, m.kv_heads, head_dim, settings.num_ctx, slots, m.max_position)
        return not must_evict(predicted, batch, free)
    try:
        classic_layout(settings, p.site, free, True)
    except LoadRequiredFullError:
        return False
    return True


class OllamaHost:
    """Between arrivals and engines. ``world``: the `sim.fleet.world.World`; model k of ``plans`` is its replica k and its class k.

    ``rng`` draws which model a request names, by the pools' shares; the turns of a session stay with the model of the first.
    """

    def __init__(self, world: Any, plans: Sequence[Any], rng: np.random.Generator) -> None:
        self._world = world
        self._env: simpy.Environment = world.env
        self._rng = rng
        self._names = [p.name for p in plans]
        self._number = {name: k for k, name in enumerate(self._names)}
        self._needs = {p.name: Needs.of(p) for p in plans}
        self._plan = {p.name: p for p in plans}
        shares = np.cumsum([p.share for p in plans])
        self._edges = shares / shares[-1]
        self._sessions: dict[int, int] = {}
        settings, self._card = plans[0].params, plans[0].accelerator
        most = max_loaded_models(settings.OLLAMA_MAX_LOADED_MODELS, 1)
        self._residency = Residency(self._room, most, settings.OLLAMA_MAX_QUEUE)
        self._model_of: dict[int, str] = {}
        self._asked: dict[int, float] = {}
        self._timer = float("inf")
        self._starts = Counter[str]()
        self.log: list[tuple[float, str, str]] = []
        """(time, ``load`` | ``ready`` | ``evict`` | ``expire`` | ``unloaded``, model), in order of time."""
        self._serving = Counter[str]()
        self._shares = dict.fromkeys(self._names, 1)
        self._busy, self._since, self._together = 0, 0.0, 0.0
        self.busy = 0
        self.waits: list[float] = []
        """Seconds that requests waited for their model, in the order they got it."""

    def assign(self, block: Any) -> Any:
        """The block with the number of each request's model as its class."""
        klass = np.searchsorted(self._edges, self._rng.random(len(block)), side="right").astype(np.int32)
        for i in np.flatnonzero(block.session >= 0).tolist():
            klass[i] = self._sessions.setdefault(int(block.session[i]), int(klass[i]))
        return replace(block, klass=klass)

    def draw(self, block: Any, row: int) -> int:
        """The same for one request of a waiting client."""
        klass = int(np.searchsorted(self._edges, self._rng.random(), side="right"))
        session = int(block.session[row])
        return self._sessions.setdefault(session, klass) if session >= 0 else klass

    # -- what happens

    def arrive(self, request: Any, klass: int) -> None:
        """A request for model ``klass`` has come, now: it is sent, waits, or is answered 503."""
        key, number = self._names[klass], request[2]
        answer = self._residency.submit(key, request, self._needs[key].session)
        if answer == "busy":
            self.busy += 1
            self._world.refuse(request)
            return
        self._model_of[number] = key
        if answer == "use":
            self._send(request, key)
            return
        self._asked[number] = float(self._env.now)
        self._world.hold(request)
        self._follow()

    def finished(self, number: int) -> None:
        """A request has ended, now."""
        key = self._model_of.pop(number)
        self._serving[key] -= 1
        if self._serving[key] == 0:
            self._share()
        gone = self._residency.finished(key, self._env.now)
        if gone and self._residency.evicting == key:
            self._env.process(self._unload(key))
        elif gone:
            self._residency.runners[key].expires = self._env.now
            self._expire()
        else:
            self._arm()

    def _room(self, key: str, others: Sequence[Runner]) -> bool:
        return fits(self._plan[key], self._needs[key], sum(r.vram for r in others))

    def _send(self, request: Any, key: str) -> None:
        """To the model's engine. A cache does not outlive its process, so each start of it sees texts that it has never seen."""
        block, row, number, watch = request
        start = self._starts[key] % _STARTS
        if start > 0 and block.span_id.size:
            one = block[row : row + 1]
            shift = start << _TEXT_BITS
            block, row = replace(one, span_id=one.span_id + shift, out_content=one.out_content + shift), 0
        self._world.submit((block, row, number, watch), self._number[key])
        self._serving[key] += 1
        if self._serving[key] == 1:
            self._share()

    def _share(self) -> None:
        """Models that serve requests share the card evenly: it changes between processes after a slice of time."""
        busy = [key for key in self._names if self._serving[key]]
        for key in busy:
            if self._shares[key] != len(busy):
                self._shares[key] = len(busy)
                self._world.groups[self._number[key]].share_device(len(busy), float(self._env.now))
        now = float(self._env.now)
        self._together += (now - self._since) * (self._busy > 1)
        self._busy, self._since = len(busy), now

    def _follow(self) -> None:
        """Do what the scheduler says until it has to wait for something."""
        while (action := self._residency.next_action()) is not None:
            if action.do == "use":
                for request in (self._residency.take_head(), *self._residency.take_waiting(action.key)):
                    self.waits.append(float(self._env.now) - self._asked.pop(request[2]))
                    self._send(request, action.key)
            elif action.do == "load":
                self._note("load", action.key)
                self._env.process(self._load(action.key))
            else:
                self._note("evict", action.key)
                if self._residency.idle_evictee():
                    self._env.process(self._unload(action.key))

    def _load(self, key: str) -> Generator[simpy.Event, Any, None]:
        needs = self._needs[key]
        yield self._env.timeout(needs.load)
        self._note("ready", key)
        self._residency.loaded(key, needs.vram, self._env.now)
        self._follow()

    def _unload(self, key: str) -> Generator[simpy.Event, Any, None]:
        apple = self._card.vendor == "apple"
        vram = self._residency.runners[key].vram
        yield self._env.timeout(recovery_wait(lambda t: vram if t >= UNLOAD else 0.0, vram, discrete=not apple, metal=apple))
        self._note("unloaded", key)
        self._starts[key] += 1
        self._residency.unloaded(key)
        self._expire()
        self._follow()

    def _expire(self) -> None:
        """Unload what has been idle for its keep-alive; one at a time, as no load begins before the memory is back."""
        gone = self._residency.expired(self._env.now + _ROUNDING)
        if gone and self._residency.evicting is None:
            self._note("expire", gone[0])
            self._residency.evicting = gone[0]
            self._env.process(self._unload(gone[0]))
        self._arm()

    def _arm(self) -> None:
        """A timer for the next keep-alive that ends."""
        now = self._env.now
        due = min((r.expires for r in self._residency.runners.values() if r.expires > now + _ROUNDING), default=float("inf"))
        if due < self._timer or (self._timer <= now and due < float("inf")):
            self._timer = due
            self._env.timeout(due - now).callbacks.append(lambda _: self._ring(due))

    def _ring(self, due: float) -> None:
        if due == self._timer:
            self._timer = float("inf")
        self._expire()

    def _note(self, what: str, key: str) -> None:
        self.log.append((float(self._env.now), what, key))

    # -- results

    def _count(self, what: str) -> int:
        return sum(kind == what for _, kind, _ in self.log)

    def _reloads(self) -> list[str]:
        seen: set[str] = set()
        again = []
        for _, kind, key in self.log:
            if kind == "load":
                again += [key] if key in seen else []
                seen.add(key)
        return again

    def totals(self) -> dict[str, float]:
        """Figures for the summary, in requests and seconds."""
        waits = np.array(self.waits or [0.0])
        return {
            "fleet_model_loads": float(self._count("load")),
            "fleet_model_reloads": float(len(self._reloads())),
            "fleet_model_load_s": float(sum(self._needs[key].load for _, kind, key in self.log if kind == "load")),
            "fleet_model_reload_s": float(sum(self._needs[key].load for key in self._reloads())),
            "fleet_model_evictions": float(self._count("evict")),
            "fleet_model_expiries": float(self._count("expire")),
            "fleet_model_waits": float(len(self.waits)),
            "fleet_model_wait_mean_s": float(waits.mean()),
            "fleet_model_wait_max_s": float(waits.max()),
            "fleet_busy_503": float(self.busy),
            "fleet_models_together_s": self._together,
        }

    def notes(self) -> list[str]:
        """What the host did, in sentences for the report, and what is not modelled about it."""
        t = {k.removeprefix("fleet_"): v for k, v in self.totals().items()}
        each = ", ".join(
            f"{name} {sum(kind == 'load' and key == name for _, kind, key in self.log):,} × {self._needs[name].load:.2f} s"
            for name in self._names
        )
        loads = (
            f"models were loaded {t['model_loads']:,.0f} times ({each}), {t['model_load_s']:,.1f} s of loading in all; "
            f"{t['model_evictions']:,.0f} unloaded to make room, {t['model_expiries']:,.0f} after their keep-alive"
        )
        out = [loads]
        if self.waits:
            out.append(
                f"{len(self.waits):,} requests waited for their model, {t['model_wait_mean_s']:.1f} s on average, "
                f"{t['model_wait_max_s']:.1f} s at most; reloading what had been unloaded took {t['model_reload_s']:,.1f} s"
            )
        if self.busy:
            out.append(f"{self.busy:,} requests were answered 503: OLLAMA_MAX_QUEUE requests waited for models already")
        if self._together:
            out.append(
                f"for {self._together:,.1f} s two models or more computed at once and shared the card evenly; "
                "a step under way when another begins or ends keeps its time"
            )
        out.append(
            f"assumed: memory is back {UNLOAD:g} s after an unload begins; load times are weight bytes over load_bandwidth"
        )
        return out
