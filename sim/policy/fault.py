"""What a fault is: something breaks at a time, or every now and then, and is mended after a while. One file each in `sim.policy.faults`.

A fault says what breaks, when and for how long, and asks the fleet to do it (`Hands`); what becomes of the requests is the business of engines, router
and clients. Faults come by script (``at``, one time or several) or at random: to each unit by itself with exponential times of mean ``mtbf`` between
a repair and the next failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sim.units import Seconds, parse_seconds


class Hands(Protocol):
    """What a fault may have done to the fleet, now. Replicas are numbered over all pools."""

    def crash(self, replica: int) -> None:
        """The serving process dies, with all requests and all KV in it, and does not listen any more."""

    def restart(self, replica: int) -> None:
        """A new process with an empty cache listens in its place."""

    def slow(self, replica: int, factor: float) -> None:
        """What its accelerators do takes ``factor`` times as long from its next step on; 1: as ever."""

    def shut(self, hangs: bool) -> None:
        """The gateway breaks off all connections and takes no new one: it refuses them, or (``hangs``) lets them wait."""

    def open(self) -> None:
        """The gateway works again."""

    def forget(self) -> None:
        """The router starts anew: trees, counters and sessions are empty."""

    def store(self, there: bool) -> None:
        """The remote store of KV is lost with all it keeps; ``there``: an empty one takes its place."""

    def link(self, factor: float) -> None:
        """The links between prefill and decode replicas carry ``factor`` times as much; 0: nothing; 1: as ever."""


@dataclass(frozen=True)
class Unit:
    """A replica: its accelerators, and the seconds from a crash to serving again in place and on another machine."""

    replica: int
    accelerators: int = 1
    restart_s: float = 90.0
    replace_s: float = 150.0


class FaultParams(BaseModel):
    """When and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    at: tuple[Seconds, ...] | None = Field(None, min_length=1, description="when it happens: a time, or several")
    for_: Seconds | None = Field(None, alias="for", gt=0, le=1e8, description="how long it lasts; null: as the fault says")
    mtbf: Seconds | None = Field(None, ge=0.01, le=1e12, description="instead of at: mean time from a repair to the next failure")
    repair: Literal["fixed", "exponential"] = Field("fixed", description="how the times of repair are distributed around ``for``")

    @field_validator("at", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return (parse_seconds(value),) if isinstance(value, int | float | str) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.at is not None and self.mtbf is not None:
            raise ValueError("happens at given times (at) or at random (mtbf), not both")
        if self.at is not None and list(self.at) != sorted(set(self.at)):
            raise ValueError("at must name different times in ascending order")
        return self


class Fault(ABC):
    """Registered with ``@register("fault")``."""

    name: ClassVar[str]
    Params: ClassVar[type[FaultParams]] = FaultParams
    crashes: ClassVar[bool] = False
    """Whether processes die."""
    default_mtbf: ClassVar[float | None] = None
    """Seconds, where there is a source for it; of what `rate` says."""
    source: ClassVar[str] = ""
    """Of `default_mtbf`."""
    scope: ClassVar[Literal["replica", "fleet"]] = "replica"
    touches: ClassVar[Literal["process", "speed", "gateway", "router", "link", "store"]] = "process"
    """What breaks: requests are cut off where it is a process or the gateway."""

    def __init__(self, params: FaultParams) -> None:
        self.params = params

    @property
    def mtbf(self) -> float:
        """Mean seconds between a repair and the next failure; as set, or by its source."""
        return float(self.params.mtbf or self.default_mtbf or np.inf)

    def rate(self, unit: Unit) -> float:
        """Failures per second of a unit that works."""
        return 1.0 / self.mtbf

    def lasts(self, unit: Unit) -> float:
        """Seconds until it is mended, on average."""
        return float(self.params.for_ or 0.0)

    def concerns(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """The units that it can happen to."""
        return units

    @abstractmethod
    def begin(self, hands: Hands, replica: int) -> None:
        """It happens (``replica`` −1: to the fleet)."""

    @abstractmethod
    def end(self, hands: Hands, replica: int) -> None:
        """It is mended."""

    @abstractmethod
    def words(self, replica: int) -> str:
        """What has happened, as a short clause: ``replica 0 died``."""
