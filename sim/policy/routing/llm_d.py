"""llm-d's endpoint picker (EPP) with its built-in default configuration, or other weights. Source: llm-d/llm-d-router pkg/epp @ ebab6879.

Scores of queue and KV use are *polled*: between two scrapes all requests see the same numbers. Own counters (``active-request-scorer``,
``token-load-scorer``, the prefix index) move at once. Ties are drawn uniformly. The scorers are checked against upstream's unit tests (`servesim
conformance router`).
Prefixes are those that this router has sent (``approximate``), or what engines tell by KV events, as of now (``precise``).

*Prefill and decode pools*: both endpoints are chosen when a request comes. ``prefix-based-pd-decider`` (`disagg-profile-handler`) takes the decode endpoint
first, and a prefill endpoint only where enough of the prompt is not cached there; else the decode endpoint computes the prompt itself.

Flow control and shedding are admission policies (``flow_control``, ``priority_shedding``). Not modelled: lora-affinity-scorer, latency prediction, filters,
the weight of blocks below the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.errors import ConfigError
from sim.policy.gateways import llmd
from sim.policy.gateways.block_index import BlockIndex
from sim.policy.gateways.prompts import Pieces
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register

Scorer = Literal[
    "queue-scorer",
    "running-requests-size-scorer",
    "kv-cache-utilization-scorer",
    "prefix-cache-scorer",
    "active-request-scorer",
    "load-aware-scorer",
    "token-load-scorer",
    "session-affinity-scorer",
    "no-hit-lru-scorer",
]
_LEAST_BLOCK = 64
_BY_PREFIX = {"prefix-cache-scorer", "token-load-scorer", "no-hit-lru-scorer"}
Weight = float


def _default() -> dict[Scorer, Weight]:
    return {"queue-scorer": 2.0, "kv-cache-utilization-scorer": 2.0, "prefix-cache-scorer": 3.0}


class LlmDParams(RouterParams):
    """Settings of `LlmD`; scorers are named as in its configuration."""

    scorers: dict[Scorer, Weight] = Field(
        default_factory=_default,
        min_length=1,
        description="scorers and their weights",
    )
    picker: Literal["max-score-picker", "random-picker", "weighted-random-picker"] = Field(
        "max-score-picker", description="who of the scored is taken"
    )
    refresh_metrics_interval: float = Field(0.05, ge=0, le=3600, description="seconds between two scrapes of an engine's metrics")
    block_size_tokens: int = Field(
        16, ge=1, le=65_536, description="tokens per block of the prefix index; never below 64, and the engine's if larger"
    )
    lru_capacity_per_server: int = Field(31_250, ge=1, le=2**31, description="blocks per endpoint where the engine reports none")
    prefix: Literal["approximate", "precise"] = Field(
        "approximate", description="what is known of prefix caches: what was sent there, or what engines tell by KV events"
    )
    match_length_weight: float = Field(
        0.0, ge=0, le=1, description="prefix-cache-scorer: weight of the matched length against its share of the prompt"
    )
    queue_threshold_tokens: float = Field(
        4_194_304.0, gt=0, le=1e12, description="token-load-scorer: tokens in flight that score 0"
    )
    pd_decider: Literal["always-disagg-pd-decider", "prefix-based-pd-decider"] = Field(
        "always-disagg-pd-decider",
        description="whether a prefill endpoint is used for every request, or by what the decode endpoint has cached",
    )
    non_cached_tokens: int = Field(
        0,
        ge=0,
        le=2**31,
        description="prefix-based-pd-decider: uncached tokens from which on a prefill endpoint is used; 0: never",
    )
    prompt_tokens: int = Field(
        0, ge=0, le=2**31, description="prefix-based-pd-decider: shorter prompts stay on the decode endpoint"
    )


@dataclass(frozen=True)
class _Asked:
    """A request: ``matched``: blocks of its prompt by place, of ``total``; ``uncached``: tokens that are left to compute there."""

    matched: NDArray[np.float64]
    total: int
    uncached: NDArray[np.float64]
    session: int


class _Own:
    """What the picker itself has counted: tokens in flight, where sessions are, who got a request that nobody had anything of."""

    def __init__(self, sessions: bool) -> None:
        """``sessions``: where they are matters. In reality each client keeps that, in a header, so nothing forgets it."""
        self._with_sessions = sessions
        self.uncached = 0.0
        """Of the request that was chosen for last, at its endpoint."""
        self._tokens: dict[int, float] = {}
        self._open: dict[int, tuple[int, float]] = {}
        self._sessions: dict[int, int] = {}
        self._cold: dict[int, None] = {}

    def chosen(self, number: int, asked: _Asked, place: int) -> None:
        """An endpoint gets the request."""
        self.uncached = float(asked.uncached[place])
        if self._with_sessions and asked.session >= 0:
            self._sessions[asked.session] = number
        if not asked.matched.any():
            self._cold.pop(number, None)
            self._cold[number] = None

    def sent(self, request: int, number: int, tokens: float) -> None:
        """Tokens are in flight until the first of the answer."""
        self._open[request] = number, tokens
        self._tokens[number] = self._tokens.get(number, 0.0) + tokens

    def computed(self, request: int) -> None:
        """They are not any more."""
        number, tokens = self._open.pop(request, (-1, 0.0))
        if number in self._tokens:
            self._tokens[number] -= tokens

    def drop(self, number: int) -> None:
        """The endpoint is gone."""
        self._tokens.pop(number, None)
        self._cold.pop(number, None)
        self._open = {k: v for k, v in self._open.items() if v[0] != number}

    def in_flight(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Tokens by place."""
        return np.array([self._tokens.get(n, 0.0) for n in numbers])

    def session(self, session: int, numbers: Sequence[int]) -> NDArray[np.float64]:
        """``session-affinity-scorer``: 1 where the session was last."""
        return np.array([float(session >= 0 and self._sessions.get(session) == n) for n in numbers])

    def cold_order(self, numbers: Sequence[int]) -> list[int]:
        """Places: those that never got a cold request, then the one that got it longest ago."""
        at = {n: i for i, n in enumerate(self._cold)}
        return sorted(range(len(numbers)), key=lambda place: at.get(numbers[place], -1))


@register("router")
class LlmD(Router):
    """llm-d: weighted scores of polled load, own counters and an approximate prefix index."""

    name = "llm_d"
    aliases = ("llm-d", "epp")
    Params = LlmDParams
    params: LlmDParams
    elastic = True
    pairs = True

    def __init__(self, params: LlmDParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self.hears = "token-load-scorer" in params.scorers
        self.decides = params.pd_decider == "prefix-based-pd-decider"
        self._own = _Own("session-affinity-scorer" in params.scorers)
        self._latest: tuple[Requests | None, int] = (None, -1)
        self._numbers: Sequence[int] = range(replicas)
        self._block = max(params.block_size_tokens, _LEAST_BLOCK)
        self._index = BlockIndex(self._block, params.lru_capacity_per_server)
        self._scraped_at = -1.0
        self._metrics = np.zeros((4, replicas))

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Blocks as large as the engine's own. Raises `ConfigError` for a decider where there is nothing to decide."""
        if self.decides and facts and not facts[0].role:
            why = "decides between prefill and decode pools, of which there are none"
            raise ConfigError("router.pd_decider", self.params.pd_decider, why, "always-disagg-pd-decider")
        if self.params.prefix == "precise":
            self._block = facts[0].block_size
            return
        self._block = max(_LEAST_BLOCK, *(f.block_size for f in facts), self.params.block_size_tokens)
        self._index = BlockIndex(self._block, self.params.lru_capacity_per_server)

    def members(self, numbers: Sequence[int]) -> None:
        """Who left is forgotten."""
        for gone in set(self._numbers) - set(numbers):
            self._index.drop(gone)
            self._own.drop(gone)
        super().members(numbers)
        self._numbers = list(numbers)
        self._scraped_at = -1.0

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """Score all, pick one, remember its blocks."""
        self._scrape(snapshot)
        prompt, keys = int(block.prompt_tokens[row]), []
        if self.params.prefix == "precise":
            matched, total = snapshot.cached(block, row), prompt // self._block
        else:
            if self.decides or _BY_PREFIX & self.params.scorers.keys():
                keys = self._index.keys(Pieces(spans_of(block, row), prompt))
            matched, total = self._index.match(keys, self._numbers), len(keys)
        asked = _Asked(matched, total, np.maximum(prompt - matched * self._block, 0.0), int(block.session[row]))
        place = self._pick(llmd.total([(w, self._score(name, snapshot, asked)) for name, w in self.params.scorers.items()]))
        number = self._numbers[place]
        self._index.insert(keys, number)
        self._own.chosen(number, asked, place)
        self._latest = block, row
        return place

    def hands_over(self, snapshot: Snapshot, block: Requests, row: int) -> bool:
        """Whether enough of the prompt is not cached at the decode endpoint that was chosen last."""
        p, prompt = self.params, int(block.prompt_tokens[row])
        if p.non_cached_tokens == 0 or prompt < max(p.prompt_tokens, p.non_cached_tokens):
            return False
        return self._own.uncached >= p.non_cached_tokens

    def on_sent(self, number: int, replica: int, block: Requests, row: int, now: float) -> None:
        """Its tokens are in flight."""
        last, at = self._latest
        self._own.sent(number, replica, self._own.uncached if last is block and at == row else float(block.prompt_tokens[row]))

    def on_first_token(self, number: int, now: float) -> None:
        """Its prompt is computed."""
        self._own.computed(number)

    def on_end(self, number: int, now: float) -> None:
        """It is gone."""
        self._own.computed(number)

    def _scrape(self, snapshot: Snapshot) -> None:
        """What was read last, if that is younger than the interval. (The real scrapes run on clocks of their own, one per endpoint.)"""
        if self._scraped_at >= 0 and snapshot.now < self._scraped_at + self.params.refresh_metrics_interval:
            return
        self._metrics = np.array(snapshot.gauges()[:4], np.float64)
        interval = self.params.refresh_metrics_interval
        self._scraped_at = snapshot.now if interval == 0 else snapshot.now // interval * interval
        for place, number in enumerate(self._numbers):
            total = self._metrics[3, place]
            if total > 0:
                self._index.size(number, int(total))

    def _score(self, name: str, snapshot: Snapshot, asked: _Asked) -> llmd.Scores:
        running, waiting, used, total = self._metrics
        if name == "queue-scorer":
            return llmd.queue(waiting)
        if name == "running-requests-size-scorer":
            return llmd.queue(running)
        if name == "load-aware-scorer":
            return llmd.load_aware(waiting)
        if name == "active-request-scorer":
            return llmd.active_request(snapshot.outstanding)
        if name == "kv-cache-utilization-scorer":
            return llmd.kv_cache_utilization(np.divide(used, total, out=np.zeros_like(used), where=total > 0))
        if name == "token-load-scorer":
            return llmd.token_load(self._own.in_flight(self._numbers) + asked.uncached, self.params.queue_threshold_tokens)
        if name == "session-affinity-scorer":
            return self._own.session(asked.session, self._numbers)
        if name == "no-hit-lru-scorer":
            return llmd.no_hit_lru(bool(asked.matched.any()), self._own.cold_order(self._numbers))
        n = len(self._numbers)
        size, total = np.full(n, self._block), np.full(n, asked.total)
        return llmd.prefix_cache(asked.matched, total, size, self.params.match_length_weight)

    def _pick(self, scores: llmd.Scores) -> int:
        picker = self.params.picker
        if picker == "random-picker" or (picker == "weighted-random-picker" and not scores.any()):
            return int(self.rng.integers(0, scores.size))
        if picker == "weighted-random-picker":
            return int(self.rng.choice(scores.size, p=scores / scores.sum()))
        ties = np.flatnonzero(scores == scores.max())
        return int(ties[0]) if ties.size == 1 else int(ties[int(self.rng.integers(0, ties.size))])
