"""A scenario: everything that decides a run."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sim.config.deployment import Deployment, Pool, Router
from sim.config.goals import Expectation, Record, Slo, Target
from sim.config.model import Model
from sim.config.section import Section
from sim.config.traffic import Traffic
from sim.units import Seconds


class Scenario(Section):
    """One runnable question. The same scenario gives the same result, to the byte."""

    name: str = Field(
        "scenario", pattern=r"^\w[\w .+-]*$", max_length=100, description="names the result; default: the file's name"
    )
    question: str | None = Field(None, description="what this scenario answers, in words")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of every random stream")
    model: Model = Field(description="what is served")
    traffic: Traffic = Field(description="who sends what and when")
    deployment: Deployment | None = Field(None, description="what serves it: one pool of replicas")
    pools: tuple[Pool, ...] | None = Field(None, min_length=1, description="several pools instead of one deployment")
    router: Router = Field(Router(name="round_robin"), description="which replica gets a request")
    slo: Slo | None = Field(None, description="targets of latency")
    record: Record = Field(Record(), description="what is kept")
    until: Target | None = Field(None, description="simulated time at which the run ends; default: when all requests are done")
    warmup: Seconds = Field(0.0, description="requests that arrive earlier than this are left out of the statistics")
    expect: dict[str, Expectation] | None = Field(
        None, description="figures of the summary, by dotted path, and what they should be"
    )

    @model_validator(mode="after")
    def _one_deployment(self) -> Self:
        if (self.deployment is None) == (self.pools is None):
            raise ValueError("needs exactly one of deployment and pools")
        names = [p.name for p in self.pools or ()]
        if len(set(names)) < len(names):
            raise ValueError(f"pools need names of their own, got {', '.join(names)}")
        if self.until is not None and self.warmup >= self.until:
            raise ValueError("warmup must be shorter than until")
        return self
