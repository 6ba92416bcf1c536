"""What a router is: a read-only view of the replicas goes in, the number of a replica comes out; the fleet does the rest.

Replicas are numbered through all pools. A router whose choice does not depend on their state says so (``stateless``) and routes whole
blocks of future arrivals in one call; the others are asked at every arrival.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sim.guard import Guard
from sim.policy import answers
from sim.policy.recovery import Recovery
from sim.policy.requests import Requests
from sim.units import Seconds

if TYPE_CHECKING:
    from sim.policy.gateway import GatewayParams
    from sim.policy.migration import MigrationParams
    from sim.rules import Rule


class Snapshot(Protocol):
    """The replicas as of now. Arrays are live views: read, do not keep."""

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """i8[n]: requests sent to each replica and not yet finished, as a gateway counts them."""

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, n]: running, waiting, KV in use, KV total, clock of each replica."""

    @property
    def now(self) -> float:
        """Simulated time in seconds."""

    def look(self) -> dict[str, NDArray[np.float64]]:
        """f8[n] by name (``sim.ledger.LOOK``): queue and memory of each replica exactly as of now. Costs O(requests in flight)."""

    def cached(self, block: Requests, row: int) -> NDArray[np.float64]:
        """f8[n]: KV blocks of a prompt in the prefix cache of each replica, as KV events tell it. Raises `NotModelledError` where there are none."""

    def running(self, replica: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Running requests in order of the batch. i8[m, 5]: id, slot, tokens with KV, tokens delivered, of the prompt; f8[m]: when they came."""


@dataclass(frozen=True)
class ReplicaFacts:
    """What is known of a replica before it serves: tokens per KV block and bytes of KV per token (all ranks).

    ``rank``: it is a data-parallel rank, and the router the engine's own balancer. ``role``: ``prefill`` or ``decode`` where that is disaggregated.
    """

    block_size: int = 16
    kv_bytes_per_token: float = 0.0
    engine: str = ""
    slots: int = 0
    """Requests of a full batch; 0: not known."""
    rank: bool = False
    role: str = ""


@dataclass(frozen=True)
class Relocation:
    """A running request is to move: its id, from which replica to which."""

    request: int
    source: int
    destination: int


SHORTEST_POLL: Final = 1e-3
"""Seconds between two looks of a router at its engines at least: each look is work, for as long as an engine has any."""
PollInterval = Annotated[Seconds, Field(ge=SHORTEST_POLL)]
"""Time between two looks, as a setting."""
CharactersPerToken = Annotated[float, Field(ge=0.01, le=128, description="how long a token is in characters")]
"""What routers that see text take a token for."""


class RouterParams(BaseModel):
    """Base of a router's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Router(ABC):
    """Chooses the replica of each request. ``replicas`` ≥ 1; ``rng`` is the run's named substream for routing."""

    name: ClassVar[str]
    Params: ClassVar[type[RouterParams]] = RouterParams
    params: RouterParams
    stateless: ClassVar[bool] = False
    elastic: ClassVar[bool] = False
    """Whether it may be asked among a changing set of replicas: it remembers none by number, or says in `members` how its memory changes."""
    interval: float | None = None
    """Seconds between two calls of `poll`; None: never called."""
    recovery: Recovery = Recovery()
    """What it does about a replica that has died."""
    coordinates: ClassVar[bool] = False
    """It keeps the queue itself: a `sim.policy.coordinator.Coordinator`."""
    guards: ClassVar[Mapping[str, Guard]] = {
        "choose": Guard(answers.one_replica, answers.row_of, show=True, limited=True),
        "choose_pair": Guard(answers.two_replicas, answers.row_of, show=True, limited=True),
        "choose_decode": Guard(answers.one_replica, answers.row_of, show=True, limited=True),
        "route": Guard(answers.rows, answers.block_of, show=True, limited=True),
        "poll": Guard(answers.moves, lambda snapshot: f"at {snapshot.now:.6g} s", show=True, limited=True),
        "setup": Guard(limited=True),
        "members": Guard(limited=True),
    }
    """How a router of one's own is watched (`sim.guard`)."""
    gateway: GatewayParams | None = None
    """Settings of a gateway that buffers and retries (`sim.fleet.gateway.GatewayParams`); None: a request without a replica is refused."""
    migration: MigrationParams | None = None
    """Settings of live migration (`sim.fleet.migration.MigrationParams`); None: running requests stay."""

    _compiled: Rule | None = None

    def __init__(self, params: RouterParams, replicas: int, rng: np.random.Generator) -> None:
        self.params = params
        self.replicas = replicas
        self.rng = rng

    def renewed(self, rng: np.random.Generator) -> Self:
        """One with the same settings that knows nothing yet: it has been started again."""
        return type(self)(self.params, self.replicas, rng)

    def route(self, block: Requests) -> NDArray[np.int32]:
        """i4[n]: the replica of each row of a request block. Only asked of stateless routers."""
        raise NotImplementedError

    def rule(self) -> Rule | None:
        """`choose` in compiled code, for runs in which nobody else acts: whole stretches of requests are then routed in one call. None: there is none.

        Each call answers with the same one. It has a memory of its own, which `members` and `poll` keep as they keep that of `choose`; a run asks one
        of the two, always. Only asked of the class that also has `choose`: who overrides that alone is asked as ever.
        """
        return None

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Told once before the run what the replicas are. Raises `ConfigError` for what they cannot do."""
        return

    def members(self, numbers: Sequence[int]) -> None:
        """The fleet scales: from now on place i of what the router sees and answers is replica ``numbers[i]`` (ascending, maybe none).

        Only asked where `elastic`. Who comes back under an old number has an empty cache.
        """
        self.replicas = len(numbers)

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """Every ``interval`` seconds: take in the state of the replicas, say which running requests should move."""
        return ()

    def rested(self, polls: int) -> None:
        """So many calls of `poll` until the next one are left out: nothing happens, and each would see what the last one saw."""
        return

    # -- disaggregated deployments: `sim.fleet.disaggregation` makes one router per side, or one for both

    whole: ClassVar[bool] = False
    """One router for both sides, asked with `choose_pair`; its replicas are those of all pools."""
    pairs: bool = False
    """Prefill and decode replica are chosen together at arrival; else the decode replica when the prompt is computed."""

    decides: bool = False
    """The decode side chooses first, and says whether a prefill replica is needed at all (`hands_over`)."""

    def hands_over(self, snapshot: Snapshot, block: Requests, row: int) -> bool:
        """Of a decode side that ``decides``: whether a prefill replica computes the prompt of the request it has just chosen a replica for."""
        return True

    def plays(self, role: str) -> None:
        """Told before `setup` that it chooses among the replicas of one role only."""
        return

    def choose_pair(self, snapshot: Snapshot, block: Requests, row: int) -> tuple[int, int]:
        """Of a ``whole`` router: prefill and decode replica, numbered over all pools; (−1, −1): none can be had."""
        raise NotImplementedError

    def choose_decode(self, snapshot: Snapshot, block: Requests, row: int, prefill: int) -> int:
        """Of a ``whole`` router without ``pairs``: the decode replica once ``prefill`` has computed the prompt."""
        raise NotImplementedError

    # -- what happens to the requests that it has sent

    hears: bool = False
    """Whether it is told of them (`on_sent`, `on_first_token`, `on_end`)."""

    def on_sent(self, number: int, replica: int, block: Requests, row: int, now: float) -> None:
        """A request goes to the replica of this number (as `members` numbers them); between prefill and decode pools, of the router's side."""
        return

    def on_first_token(self, number: int, now: float) -> None:
        """A request has its first token."""
        return

    def on_end(self, number: int, now: float) -> None:
        """A request has left its replica, for good."""
        return

    def revert(self) -> None:
        """The last choice is void, as the other side has no replica."""
        return

    def reached(self, choice: int, now: float) -> None:
        """The request of the so manyeth choice (from 0) goes to its replica only now: it was chosen ahead."""
        return

    @abstractmethod
    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """The replica for one row of a block, now; −1: none can be had."""
