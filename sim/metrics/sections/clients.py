"""What clients did besides sending: attempts, retries, hedges, who gave up, what was computed for nobody, a storm of retries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from sim.ledger import Values as Array
from sim.metrics.clients import ClientRecord
from sim.metrics.facts import Facts
from sim.metrics.section import Extra, Section
from sim.metrics.storm import Storm
from sim.registry import register


@dataclass(frozen=True)
class Wasted(Section):
    """What engines computed for attempts whose answer nobody got. ``share``: of all tokens computed."""

    attempts: int
    prompt_tokens: int
    output_tokens: int
    share: float


@dataclass(frozen=True)
class ClientSeries(Section):
    """Over time, ``time_s`` being the middles of the bins: requests wanted, attempts sent for them, attempts that failed."""

    time_s: tuple[float, ...]
    wanted_per_s: tuple[float, ...]
    attempts_per_s: tuple[float, ...]
    failed_per_s: tuple[float, ...]


def _series(arrival: Array, c: ClientRecord, horizon: float) -> ClientSeries:
    end = max(horizon, float(arrival.max(initial=0.0)), float(c.failed_s.max(initial=0.0)), 1e-9)
    edges = np.linspace(0.0, end, int(np.clip(arrival.size // 20, 2, 120)) + 1)
    width = edges[1]
    wanted, again, failed = (np.histogram(a, edges)[0] / width for a in (arrival, c.retries_s, c.failed_s))
    middles = (edges[1:] + edges[:-1]) / 2
    return ClientSeries(*(tuple(v.tolist()) for v in (middles, wanted, wanted + again, failed)))


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
    series: ClientSeries

    @classmethod
    def of(cls, facts: Facts) -> Clients | None:
        """Of a run whose clients do more than wait."""
        c = cast("ClientRecord | None", facts.record.stations.get("clients"))
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
            storm=facts.storm,
            series=_series(columns["arrival_s"], c, facts.horizon),
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
