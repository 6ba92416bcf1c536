"""What a scaler is: figures of the fleet go in at every evaluation, the number of replicas to have comes out; the fleet does the rest.

The figures (`METRICS`) are means over the replicas there are, those still starting included: they carry nothing yet, and would be asked for
again at every evaluation if they were left out (Kubernetes' horizontal pod autoscaler counts pods that are not ready likewise).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.guard import Guard
from sim.policy import answers
from sim.policy.startup import Maintenance, Spot, Startup
from sim.units import Rate, Seconds

METRICS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "qps": "requests that arrive per second, over the window",
        "gpu": "share of time in which kernels run (steps without host overhead), over the window",
        "queue": "requests that wait, in the engines and at the gateway, as of now",
        "kv": "share of the KV memory in use, as of now",
    }
)
"""Per replica."""


class Targets(BaseModel):
    """Wanted values per replica; at least one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    qps: Rate | None = Field(None, le=1e9, description=METRICS["qps"] + ", such as 12/s")
    gpu: float | None = Field(None, gt=0, le=1, description=METRICS["gpu"] + ": 0.7 is 70 %")
    queue: float | None = Field(None, gt=0, le=1e9, description=METRICS["queue"])
    kv: float | None = Field(None, gt=0, le=1, description=METRICS["kv"])

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.given:
            raise ValueError(f"needs at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def given(self) -> dict[str, float]:
        """Those that were set, by name."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


MOST: Final = 1000


class LifeParams(BaseModel):
    """What every scaler is told: how many replicas there may be, and how they come and go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(1, ge=0, le=MOST, description="fewest replicas; 0 allows scaling to zero")
    max: int = Field(ge=1, le=MOST, description="most replicas, those that are draining included")
    interval: Seconds = Field(15.0, ge=0.1, le=1e6, description="time between two evaluations (assumed: as Kubernetes)")

    @property
    def looks(self) -> float:
        """Seconds between two looks at the replicas."""
        return self.interval

    startup: Startup = Field(default_factory=Startup, description="phases of a cold start")
    spot: Spot | None = Field(None, description="replicas on spot machines, which are taken away with notice")
    maintenance: tuple[Maintenance, ...] = Field((), max_length=1000, description="windows in which machines are out of service")
    pools: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="each pool is scaled by itself with these settings; here those of single pools, by name"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min > self.max:
            raise ValueError("min must not exceed max")
        if any(m.replicas > self.max for m in self.maintenance):
            raise ValueError("maintenance takes more replicas than max")
        return self


class ScalerParams(LifeParams):
    """Of scalers that hold metrics at targets."""

    targets: Targets = Field(description="wanted value per replica, by metric; with several, the largest number of replicas")
    window: Seconds = Field(30.0, ge=0.1, le=1e6, description="what qps and gpu are averaged over (assumed)")


class Fleet(NamedTuple):
    """One pool as of now. ``current``: replicas there are, starting ones included, draining ones not; the arrays are of those that serve.

    ``running``, ``waiting``: requests in each engine; ``kv``: share of KV memory in use; ``outside``: requests that wait before the engines, where only
    this pool can take them; ``arrived``: requests for it so far.
    """

    current: int
    running: NDArray[np.float64]
    waiting: NDArray[np.float64]
    kv: NDArray[np.float64]
    outside: int
    arrived: int

    @property
    def ready(self) -> int:
        """Replicas that serve."""
        return len(self.running)

    @property
    def in_flight(self) -> float:
        """Requests that have come and are not over."""
        return float(self.running.sum() + self.waiting.sum()) + self.outside


class Scaler(ABC):
    """Decides how many replicas there are. Registered with ``@register("scaler")``."""

    name: ClassVar[str]
    Params: ClassVar[type[LifeParams]] = ScalerParams
    params: LifeParams
    guards: ClassVar[Mapping[str, Guard]] = {
        "decide": Guard(
            answers.how_many,
            lambda now, current, metrics: f"at {now:.6g} s with {current} replicas and {dict(metrics)}",
            show=True,
            limited=True,
        ),
        "size": Guard(answers.how_many, lambda now, fleet, metrics: f"at {now:.6g} s with {fleet}", show=True, limited=True),
    }
    """How a scaler of one's own is watched (`sim.guard`)."""
    dedicated: int | None = None
    """Replicas that have machines of their own; further ones run on public machines and are the first to go. None: no such difference."""

    def __init__(self, params: LifeParams) -> None:
        self.params = params

    @abstractmethod
    def decide(self, now: float, current: int, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on, called in order of time. ``current``: replicas there are, starting ones included, draining ones not.

        ``metrics``: the values of ``params.targets``, per replica (all of it where there is none).
        """

    def size(self, now: float, fleet: Fleet, metrics: Mapping[str, float]) -> int:
        """The same with all that is known of the pool; what the fleet asks. Scalers that rest on other figures than metrics and targets define this."""
        return self.decide(now, fleet.current, metrics)


class PoolScaler(Scaler):
    """A scaler that rests on the pool itself (`Fleet`), not on metrics with targets: `size` is its decision."""

    def decide(self, now: float, current: int, metrics: Mapping[str, float]) -> int:
        """Nobody asks: raises TypeError."""
        raise TypeError(f"{type(self).__name__} decides by the pool: ask `size`")

    @abstractmethod
    def size(self, now: float, fleet: Fleet, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on, called in order of time."""


class Wishes:
    """A stabilisation window of ``seconds``: the largest number wished for within it holds. ``open``: a wish as old as the window has left it."""

    def __init__(self, seconds: float, open: bool = False) -> None:
        self._seconds, self._open = seconds, open
        self._seen: deque[tuple[float, int]] = deque()

    def most(self, now: float, wish: int, current: int | None = None) -> int:
        """The largest, with this one. ``current``: what there is, which counts as wished for at the first look."""
        seen, oldest = self._seen, now - self._seconds
        if current is not None and not seen:
            seen.append((now, current))
        while seen and (seen[0][0] < oldest or (self._open and seen[0][0] == oldest)):
            seen.popleft()
        seen.append((now, wish))
        return max(w for _, w in seen)
