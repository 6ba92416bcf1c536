"""The figures of a run that every study keeps: the summary without what is the same in every run (evidence) or long (replicas, classes)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from sim.metrics.latency import Latency
from sim.metrics.limits import Bottleneck
from sim.metrics.scaling import ScalingFigures
from sim.metrics.section import ABSENT, Section
from sim.metrics.slo import SloFigures
from sim.metrics.steady import Steady
from sim.metrics.summary import Requests, Summary, Throughput, Tokens
from sim.metrics.utilisation import Utilisation


@dataclass(frozen=True, kw_only=True)
class Figures(Section):
    """Parts of a `Summary`, under its names."""

    name: str
    seed: int
    complete: bool
    context: Mapping[str, str | float]
    requests: Requests
    duration_s: float
    simulated_s: float
    latency: Latency
    throughput: Throughput
    steady: Steady
    slo: SloFigures
    utilisation: Utilisation
    tokens: Tokens
    preemptions: int
    steps: int
    fleet: Mapping[str, float] | None = field(default=None, metadata=ABSENT)
    scaling: ScalingFigures | None = field(default=None, metadata=ABSENT)
    bottleneck: Bottleneck
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Those of a run."""
        return cls(**{f.name: getattr(summary, f.name) for f in fields(cls)})
