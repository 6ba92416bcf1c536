"""The whole scenario."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, StrictInt, field_validator, model_validator

from sim.config.base import Admission, Clients, Fault, Router, Scaling, Section
from sim.config.deployment import Deployment, Pool, Transfer
from sim.config.economics import Economics
from sim.config.model import Model
from sim.config.slo import Slo
from sim.config.traffic import Traffic
from sim.units import Seconds


class Record(Section):
    """What is recorded."""

    timeseries: bool = Field(True, description="record time series of every replica")
    token_times: bool = Field(
        False,
        description="record when each token reached its client (16 bytes a token; steps one by one): exports hold these gaps",
    )
    max_points: int = Field(2000, ge=2, le=100_000, multiple_of=2, description="most points per time series; memory follows it")


class Expectation(Section):
    """Bounds of one figure of the summary: ``{min, max}``, either alone, or ``{value, tolerance}``."""

    min: float | None = Field(None, allow_inf_nan=False, description="at least")
    max: float | None = Field(None, allow_inf_nan=False, description="at most")
    value: float | None = Field(None, allow_inf_nan=False, description="about this")
    tolerance: float | None = Field(None, ge=0, allow_inf_nan=False, description="relative to value: 0.05 is ±5 %")

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if (self.value is None) != (self.tolerance is None):
            raise ValueError("value and tolerance go together")
        if self.value is None and self.min is None and self.max is None:
            raise ValueError("needs min, max, or value with tolerance")
        return self


class Scenario(Section):
    """A runnable question."""

    name: str = Field(
        "scenario", min_length=1, max_length=80, pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$", description="name of the result"
    )
    question: str = Field("", description="what this scenario answers")
    expect: dict[str, Expectation] = Field(default_factory=dict, description="expected answers, by dotted path of the summary")
    seed: StrictInt = Field(0, ge=0, le=2**63 - 1, description="seed of all random streams")
    model: Model
    traffic: Traffic
    deployment: Deployment | None = Field(None, description="one pool of replicas")
    pools: tuple[Pool, ...] | None = Field(None, min_length=1, description="several pools, instead of a deployment")
    transfer: Transfer | None = Field(None, description="links between the prefill and decode pools")
    router: Router = Field(default_factory=lambda: Router(name="round_robin"), validate_default=True)
    admission: tuple[Admission, ...] = Field(
        (),
        max_length=16,
        description="before the router: rate limits, queues, priorities, fairness; one after the other, the first outermost",
    )
    scaling: Scaling | None = Field(None, description="autoscaling; null: the deployment keeps its replicas")
    clients: Clients | None = Field(
        None, description="time-outs, retries, hedging, patience; null: clients wait for ever and try once"
    )
    faults: tuple[Fault, ...] = Field((), max_length=64, description="what breaks: by script (at, for) or at random (mtbf)")
    slo: Slo = Field(default_factory=Slo)
    economics: Economics | None = Field(None, description="prices, power and grid: adds money, energy and carbon to the result")
    record: Record = Field(default_factory=Record)
    until: Seconds | None = Field(None, gt=0, description="end of the simulated time; requests in flight then are cut off")
    warmup: Seconds = Field(0.0, description="leave requests that arrive within so much time out of the statistics")

    @field_validator("admission", "faults", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, str | Mapping) else () if value is None else value

    @model_validator(mode="after")
    def _one_place(self) -> Scenario:
        if (self.deployment is None) == (self.pools is None):
            raise ValueError("needs exactly one of deployment and pools")
        names = [p.name for p in self.pools or ()]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two pools are named {name!r}")
        roles = {p.role for p in self.pools or ()}
        if roles - {None} and roles != {"prefill", "decode"}:
            raise ValueError("with roles, every pool needs one, and there must be both prefill and decode pools")
        if self.transfer is not None and roles != {"prefill", "decode"}:
            raise ValueError("transfer is between pools with the roles prefill and decode")
        return self
