"""What clients did besides sending: attempts, retries, hedges, who gave up, what was computed for nobody, a storm of retries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.metrics.clients import ClientRecord
from sim.metrics.facts import Facts
from sim.metrics.section import Extra, Section
from sim.metrics.storm import Storm, storm
from sim.registry import register


@dataclass(frozen=True)
class Wasted(Section):
    """What engines computed for attempts whose answer nobody got. ``share``: of all tokens computed."""

    attempts: int
    prompt_tokens: int
    output_tokens: int
    share: float


@register("section")
@dataclass(frozen=True)
class Clients(Extra):
    """What clients did when they got no answer. Attempts: times that requests were sent; every request has one outcome all the same."""

    name = "clients"

    client: str
    source: str
    attempts: int
    attempts_per_request: float | None
    failed_attempts: Mapping[str, int]
    hedges: int
    hedges_won: int
    left: int
    deadlines: int
    rerouted: int
    given_up: int
    wasted: Wasted
    storm: Storm | None

    @classmethod
    def of(cls, facts: Facts) -> Clients | None:
        """Of a run whose clients do more than wait."""
        c: ClientRecord | None = facts.record.stations.get("clients")
        if c is None:
            return None
        columns = facts.columns
        n, done = int(columns["id"].size), columns["status"] == 0
        attempts = n + int(c.retries_s.size)
        useful = int((columns["prompt_tokens"] - columns["cached_tokens"] + columns["output_tokens"])[done].sum(dtype=np.int64))
        lost = c.waste.prompt_tokens + c.waste.output_tokens
        return cls(
            client=c.client,
            source=c.source,
            attempts=attempts,
            attempts_per_request=attempts / n if n else None,
            failed_attempts=c.failures,
            hedges=c.hedges,
            hedges_won=c.hedges_won,
            left=c.left,
            deadlines=c.deadlines,
            rerouted=c.rerouted,
            given_up=int(c.given_up_s.size),
            wasted=Wasted(
                c.waste.attempts, c.waste.prompt_tokens, c.waste.output_tokens, lost / (lost + useful) if lost + useful else 0.0
            ),
            storm=storm(columns["arrival_s"], c.retries_s, facts.ok),
        )

    def sentences(self) -> list[str]:
        """In words, for the first screen."""
        out = []
        if self.attempts_per_request is not None and (self.attempts_per_request > 1.0 or self.given_up):
            text = f"clients ({self.client}) sent {self.attempts:,} attempts, {self.attempts_per_request:.2f} per request"
            if self.given_up:
                text += f"; {self.given_up:,} requests were given up"
                text += f", {self.left:,} of them by users who left" if self.left else ""
            if self.wasted.share >= 0.005:
                text += f"; {self.wasted.share:.0%} of all tokens were computed for nobody"
            out.append(text)
        if self.hedges:
            out.append(f"{self.hedges:,} second attempts were sent beside the first, {self.hedges_won:,} of them answered first")
        return out + (self.storm.sentences() if self.storm is not None else [])
