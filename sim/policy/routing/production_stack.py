"""The router of vLLM production-stack. Source: vllm-project/production-stack src/vllm_router @ a6c01db0; recorded decisions are matched.

What it calls QPS are the requests it routed to an engine within a window: blind to their length and to whether they have finished. Chunks of 128
characters are ``128 / characters_per_token`` tokens. ``kvaware`` asks an LMCache controller; here it knows the engines' own caches
as of now.

*Prefill and decode pools*: ``disaggregated_prefill`` sends all prompts to the first prefill endpoint and all answers to the first decode endpoint (it does
not balance); ``disaggregated_prefill_orchestrated`` takes the endpoints of either side in turn. The other policies stand on either side by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.errors import ConfigError
from sim.policy.gateways.production_stack import CHUNK, MOST_SETS, Arrivals, HashTrie, RoundRobin, Session, lowest_qps, named
from sim.policy.gateways.prompts import Pieces
from sim.policy.recovery import Recovery
from sim.policy.requests import Requests
from sim.policy.router import CharactersPerToken, ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register

if TYPE_CHECKING:
    from sim.policy.rules.in_turn import Turn
    from sim.rules import Rule


class ProductionStackParams(RouterParams):
    """Settings of `ProductionStack`, spelled as on its command line."""

    routing_logic: Literal[
        "roundrobin", "session", "prefixaware", "kvaware", "disaggregated_prefill", "disaggregated_prefill_orchestrated"
    ] = Field("roundrobin", description="how an engine is chosen; the last two between prefill and decode pools")
    request_stats_window: float = Field(60.0, gt=0, le=1e6, description="seconds over which requests per engine are counted")
    prefix_min_match_length: int = Field(
        0, ge=0, le=2**30, description="characters that must match; with fewer the lowest QPS decides"
    )
    kv_aware_threshold: int = Field(
        2000, ge=0, le=2**30, description="kvaware: tokens that may be missing from the cache of the engine"
    )
    characters_per_token: CharactersPerToken = 4.0
    max_instance_failover_reroute_attempts: int = Field(
        0,
        ge=0,
        le=1000,
        description="so often a request whose answer has not begun goes to another engine when one has died",
    )


@register("router")
class ProductionStack(Router):
    """vLLM production-stack: round robin, sessions on a hash ring, or a trie of prefixes."""

    name = "production_stack"
    Params = ProductionStackParams
    params: ProductionStackParams
    elastic = True

    def __init__(self, params: ProductionStackParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        more = params.max_instance_failover_reroute_attempts
        self.recovery = Recovery(attempts=1 + more) if more else Router.recovery
        self._numbers = list(range(replicas))
        self._urls = [named(i) for i in self._numbers]
        self._place = {url: i for i, url in enumerate(self._urls)}
        self._arrivals = Arrivals(params.request_stats_window)
        self._turns: dict[tuple[int, ...], NDArray[np.int64]] = {}
        self._block = 16
        self._turn = 0
        self._round, self._session = RoundRobin(), Session()
        self._chunk = max(round(CHUNK / params.characters_per_token), 1)
        self._trie = HashTrie(self._chunk)
        self._least = params.prefix_min_match_length / params.characters_per_token

    def members(self, numbers: Sequence[int]) -> None:
        """Other endpoints; what the trie says of those that left is not among the candidates any more."""
        super().members(numbers)
        self._numbers = list(numbers)
        self._urls = [named(i) for i in numbers]
        self._place = {url: i for i, url in enumerate(self._urls)}
        if self._compiled is not None:
            if self.params.routing_logic == "session":
                self._compiled.workers(numbers)
            else:
                self._compiled.replace(self._turn_of(tuple(numbers)))

    def rule(self) -> Rule | None:
        """Round robin and sessions."""
        logic = self.params.routing_logic
        if self._compiled is None and logic == "roundrobin":
            from sim.policy.rules.in_turn import by_count
            from sim.rules import Rule

            self._compiled = Rule(by_count, self._turn_of(tuple(self._numbers)))
        elif self._compiled is None and logic == "session":
            from sim.policy.rules.owned import OwnedRule

            self._compiled = OwnedRule(self._owner, self._numbers, self.params.request_stats_window)
        return self._compiled

    def _turn_of(self, numbers: tuple[int, ...]) -> Turn:
        """Of this set of endpoints."""
        from sim.policy.rules.in_turn import Turn

        if numbers not in self._turns and len(self._turns) >= MOST_SETS:
            self._turns.clear()
        return Turn(self._turns.setdefault(numbers, np.zeros(1, np.int64)))

    def _owner(self, session: int) -> int:
        """The place of a session's endpoint."""
        return self._place[self._session.choose(self._urls, f"session-{session}", {})]

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """One decision; its arrival is counted afterwards."""
        logic, now = self.params.routing_logic, snapshot.now
        if logic == "roundrobin":
            url = self._round.choose(self._urls)
        elif logic == "session":
            url = self._by_session(block, row, now)
        elif logic == "kvaware":
            url = self._kv(snapshot, block, row)
        elif logic == "disaggregated_prefill":
            url = self._urls[0]
        elif logic == "disaggregated_prefill_orchestrated":
            url = sorted(self._urls)[self._turn % len(self._urls)]
            self._turn += 1
        else:
            url = self._prefix(block, row, now)
        self._arrivals.add(url, now)
        return self._place[url]

    def _by_session(self, block: Requests, row: int, now: float) -> str:
        session = int(block.session[row])
        return self._session.choose(self._urls, None if session < 0 else f"session-{session}", self._arrivals.qps(now))

    def _kv(self, snapshot: Snapshot, block: Requests, row: int) -> str:
        """The first engine that has any of the prompt, unless too much is missing."""
        hits = snapshot.cached(block, row) * self._block
        place = int((hits > 0).argmax())
        if hits[place] == 0 or hits[place] < max(int(block.prompt_tokens[row]) - self.params.kv_aware_threshold, 0):
            return self._by_session(block, row, snapshot.now)
        return self._urls[place]

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Tokens of a block. Raises `ConfigError` for a disaggregated policy where there are no sides."""
        logic = self.params.routing_logic
        if logic.startswith("disaggregated") and not facts[0].role:
            raise ConfigError(
                "router.routing_logic", logic, "stands between prefill and decode pools, of which there are none", "roundrobin"
            )
        self._block = facts[0].block_size

    def _prefix(self, block: Requests, row: int, now: float) -> str:
        prompt = Pieces(spans_of(block, row), int(block.prompt_tokens[row]))
        length, owners = self._trie.match(prompt, self._urls)
        if length < self._least:
            url = lowest_qps(self._urls, self._arrivals.qps(now))
        else:
            able = sorted(owners)
            url = able[int(self.rng.integers(0, len(able)))]
        self._trie.insert(prompt, url)
        return url
