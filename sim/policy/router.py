"""What a router is: a read-only view of the replicas goes in, the number of a replica comes out; the fleet does the rest.

Replicas are numbered through all pools. A router whose choice does not depend on their state says so (``stateless``) and routes whole
blocks of future arrivals in one call; the others are asked at every arrival.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Snapshot(Protocol):
    """The replicas as of now. Arrays are live views: read, do not keep."""

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """i8[n]: requests sent to each replica and not yet finished, as a gateway counts them."""

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, n]: running, waiting, KV in use, KV total, clock of each replica."""


class RouterParams(BaseModel):
    """Base of a router's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Router(ABC):
    """Chooses the replica of each request. ``replicas`` ≥ 1; ``rng`` is the run's named substream for routing."""

    name: ClassVar[str]
    Params: ClassVar[type[RouterParams]] = RouterParams
    stateless: ClassVar[bool] = False

    def __init__(self, params: Any, replicas: int, rng: np.random.Generator) -> None:
        self.params = params
        self.replicas = replicas
        self.rng = rng

    def route(self, block: Any) -> NDArray[np.int32]:
        """i4[n]: the replica of each row of a request block. Only asked of stateless routers."""
        raise NotImplementedError

    @abstractmethod
    def choose(self, snapshot: Snapshot, block: Any, row: int) -> int:
        """The replica for one row of a block, now."""
