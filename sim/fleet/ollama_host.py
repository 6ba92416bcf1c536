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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import simpy

from sim.engine.schedulers.ollama.layout import LoadRequiredFullError
from sim.engine.schedulers.ollama.params import OllamaParams, classic_layout, memory_rule, placement
from sim.engine.schedulers.ollama.placement import must_evict, predicted_vram
from sim.engine.schedulers.ollama.residency import Residency, Runner, keep_alive, max_loaded_models, ready_after, recovery_wait
from sim.fleet.request import Request

if TYPE_CHECKING:
    from sim.fleet.build import Plan

UNLOAD: Final = 1.0
"""Seconds until the memory of a runner that was told to go is back. Upstream calls 0.5 to 1.5 s typical; this is the middle."""
_ROUNDING: Final = 1e-9  # of SimPy's clock, which adds up delays


def _settings(p: Plan) -> OllamaParams:
    assert isinstance(p.params, OllamaParams), "`sim.fleet.checks` lets only Ollama share a card"
    return p.params


@dataclass(frozen=True)
class Needs:
    """What one model asks of the host. Bytes and seconds; ``vram``: weights and KV cache on the card, compute buffers left out."""

    vram: int
    load: float
    session: float

    @classmethod
    def of(cls, p: Plan) -> Needs:
        """Of a planned pool."""
        settings = _settings(p)
        weights, kv = memory_rule(settings).sizes(p.model).on_card(placement(settings, p.site))
        load = ready_after(float(p.model.weight_bytes()) / settings.load_bandwidth)
        return cls(int(weights + kv), load, keep_alive(settings.OLLAMA_KEEP_ALIVE))


def fits(p: Plan, needs: Needs, used: float) -> bool:
    """``requireFull``: whether the model fits beside runners that take ``used`` bytes of its accelerator."""
    m, settings = p.model, _settings(p)
    assert settings.num_ctx is not None, "planned settings are resolved"
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


class Outlet(Protocol):
    """What a host does to the world. Models are numbered as the pools of the scenario."""

    def submit(self, request: Request, model: int) -> None:
        """A request goes to the model's engine, now."""

    def busy(self, request: Request) -> None:
        """It is answered 503, now."""

    def unloaded(self, model: int) -> None:
        """The model's process has ended; the next one has an empty cache."""

    def share(self, model: int, processes: int) -> None:
        """The model's steps from now on run on a card that so many processes share evenly."""


class OllamaHost:
    """Between arrivals and engines: one server, one card. Model k of ``plans`` has requests of class k."""

    def __init__(self, clock: simpy.Environment, plans: Sequence[Plan], outlet: Outlet) -> None:
        self._outlet = outlet
        self._env = clock
        self._names = [p.name for p in plans]
        self._number = {name: k for k, name in enumerate(self._names)}
        self._needs = {p.name: Needs.of(p) for p in plans}
        self._plan = {p.name: p for p in plans}
        settings, self._card = plans[0].params, plans[0].accelerator
        assert isinstance(settings, OllamaParams)
        most = max_loaded_models(settings.OLLAMA_MAX_LOADED_MODELS, 1)
        self._residency: Residency[Request] = Residency(self._room, most, settings.OLLAMA_MAX_QUEUE)
        self._model_of: dict[int, str] = {}
        self._asked: dict[int, float] = {}
        self.held: dict[int, Request] = {}
        """Requests that wait for their model, by number."""
        self._timer = float("inf")
        self.log: list[tuple[float, str, str]] = []
        """(time, ``load`` | ``ready`` | ``evict`` | ``expire`` | ``unloaded``, model), in order of time."""
        self._serving = Counter[str]()
        self._shares = dict.fromkeys(self._names, 1)
        self._busy, self._since, self._together = 0, 0.0, 0.0
        self.busy = 0
        self.waits: list[float] = []
        """Seconds that requests waited for their model, in the order they got it."""

    # -- what happens

    def arrive(self, request: Request) -> None:
        """A request for its model has come, now: it is sent, waits, or is answered 503."""
        key, number = self._names[request.model], request.number
        answer = self._residency.submit(key, request, self._needs[key].session)
        if answer == "busy":
            self.busy += 1
            self._outlet.busy(request)
            return
        self._model_of[number] = key
        if answer == "use":
            self._send(request, key)
            return
        self._asked[number] = float(self._env.now)
        self.held[number] = request
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

    def _send(self, request: Request, key: str) -> None:
        """To the model's engine."""
        self._outlet.submit(request, self._number[key])
        self._serving[key] += 1
        if self._serving[key] == 1:
            self._share()

    def _share(self) -> None:
        """Models that serve requests share the card evenly: it changes between processes after a slice of time."""
        busy = [key for key in self._names if self._serving[key]]
        for key in busy:
            if self._shares[key] != len(busy):
                self._shares[key] = len(busy)
                self._outlet.share(self._number[key], len(busy))
        now = float(self._env.now)
        self._together += (now - self._since) * (self._busy > 1)
        self._busy, self._since = len(busy), now

    def _follow(self) -> None:
        """Do what the scheduler says until it has to wait for something."""
        while (action := self._residency.next_action()) is not None:
            if action.do == "use":
                for request in (self._residency.take_head(), *self._residency.take_waiting(action.key)):
                    self.waits.append(float(self._env.now) - self._asked.pop(request.number))
                    del self.held[request.number]
                    self._send(request, action.key)
            elif action.do == "load":
                self._note("load", action.key)
                self._env.process(self._load(action.key))
            else:
                self._note("evict", action.key)
                if self._residency.idle_evictee():
                    self._env.process(self._unload(action.key))

    def _load(self, key: str) -> Generator[simpy.Event, object, None]:
        needs = self._needs[key]
        yield self._env.timeout(needs.load)
        self._note("ready", key)
        self._residency.loaded(key, needs.vram, self._env.now)
        self._follow()

    def _unload(self, key: str) -> Generator[simpy.Event, object, None]:
        apple = self._card.vendor == "apple"
        vram = self._residency.runners[key].vram
        yield self._env.timeout(recovery_wait(lambda t: vram if t >= UNLOAD else 0.0, vram, discrete=not apple, metal=apple))
        self._note("unloaded", key)
        self._outlet.unloaded(self._number[key])
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

    @property
    def loads(self) -> dict[str, float]:
        """Seconds that a load of each model takes."""
        return {name: self._needs[name].load for name in self._names}

    @property
    def together(self) -> float:
        """Seconds in which two models or more computed at once."""
        return self._together

    def reloads(self) -> list[str]:
        """Models that were loaded again, in order."""
        seen: set[str] = set()
        again = []
        for _, kind, key in self.log:
            if kind == "load":
                again += [key] if key in seen else []
                seen.add(key)
        return again
