"""What an admission policy is: requests knock at the door of a fleet; it lets them through, keeps them waiting in its own order, or refuses them.

It knows what a gateway knows: who asks (the tenant: the request's class), priority, length of the prompt, the client's limit on the answer,
when first tokens and ends come by, and what it reads from the replicas (`Seen`). Several policies stand one after the other,
in the order in which a scenario lists them; `sim.fleet.door` does what they say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from sim.guard import Guard
from sim.policy import answers
from sim.policy.router import Snapshot


class Ticket(NamedTuple):
    """What is known of a request at the door. ``came``: seconds; ``max_tokens``: the client's limit on the answer."""

    number: int
    tenant: int
    priority: int
    prompt_tokens: int
    max_tokens: int
    came: float


class Seen(Snapshot, Protocol):
    """What a policy sees of the replicas, as of now."""

    def delivered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """i8[m], i8[m]: number of each request in the engines, and the tokens of its answer so far. Costs O(requests in flight)."""


class AdmissionParams(BaseModel):
    """Base of an admission policy's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Admission(ABC):
    """Registered with ``@register("admission")``. ``replicas``: behind the door at the start; ``rng``: the run's substream for this policy.

    Asked at every arrival, first token (where `hears_first_tokens`) and end, and at the time that `wake` says; always `expired` before `release`.
    """

    name: ClassVar[str]
    Params: ClassVar[type[AdmissionParams]] = AdmissionParams
    params: AdmissionParams
    hears_first_tokens: ClassVar[bool] = False
    guards: ClassVar[Mapping[str, Guard]] = {
        "offer": Guard(answers.yes_or_no, lambda ticket, snapshot: f"at {float(snapshot.now):.6g} s", show=True, limited=True),
        "release": Guard(answers.numbers, lambda snapshot: f"at {float(snapshot.now):.6g} s", show=True, limited=True),
        "expired": Guard(answers.numbers, lambda now: f"at {now:.6g} s", limited=True),
    }
    """How a policy of one's own is watched (`sim.guard`)."""

    def __init__(self, params: AdmissionParams, replicas: int, rng: np.random.Generator) -> None:
        self.params = params
        self.replicas = replicas
        self.rng = rng

    @abstractmethod
    def offer(self, ticket: Ticket, snapshot: Seen) -> bool:
        """A request has come, now. False: it is refused; else it waits until `release` or `expired` names it, which may be at once."""

    @abstractmethod
    def release(self, snapshot: Seen) -> Sequence[int]:
        """Numbers of the waiting requests that go on now, in this order."""

    def expired(self, now: float) -> Sequence[int]:
        """Numbers of the waiting requests that are refused now."""
        return ()

    def wake(self, now: float) -> float:
        """When to be asked again though nothing has happened; inf: never. Asked after every round."""
        return inf

    def first_token(self, ticket: Ticket, now: float) -> None:
        """A request that went on has its first token."""
        return

    def ended(self, ticket: Ticket, now: float, output_tokens: int) -> None:
        """A request that went on is over; ``output_tokens`` of an answer that was given, 0 of one that was not."""
        return

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """The client of a waiting request has gone. Policies with a queue of their own take it out."""
        return


class Line:
    """Requests that wait, first come, first served, each at most ``patience`` seconds; a building block of policies."""

    def __init__(self, most: float = inf, patience: float = inf) -> None:
        self._most, self._patience = most, patience
        self._waiting: deque[Ticket] = deque()
        self._gone: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting) - len(self._gone)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return len(self) >= self._most

    def put(self, ticket: Ticket) -> None:
        """At the end."""
        self._waiting.append(ticket)

    @property
    def head(self) -> Ticket | None:
        """Who is next."""
        while self._waiting and self._waiting[0].number in self._gone:
            self._gone.discard(self._waiting.popleft().number)
        return self._waiting[0] if self._waiting else None

    def take(self) -> Ticket:
        """The head leaves."""
        return self._waiting.popleft()

    def drop(self, number: int) -> None:
        """Somewhere in the middle one leaves."""
        self._gone.add(number)

    def late(self, now: float) -> list[int]:
        """Those whose patience is at its end leave."""
        out = []
        while (head := self.head) is not None and head.came + self._patience <= now:
            out.append(self.take().number)
        return out

    def due(self) -> float:
        """When the patience of the head ends; inf if nobody waits."""
        return inf if (head := self.head) is None else head.came + self._patience
