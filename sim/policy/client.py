"""What a client does besides sending: how long it waits for what, when it tries again, when it sends a second request beside the first.

One file per client in `sim.policy.clients`; the fleet does the rest (`sim.fleet.attempts`). A *request* is what the traffic wants; an *attempt* is
one time that it is sent. A client never knows more than its own clock and what came back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import inf
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sim.guard import Guard
from sim.policy import answers
from sim.units import Seconds

CONNECT: Final = "connect"
TIMEOUT: Final = "timeout"
BUSY: Final = "overloaded"
ERROR: Final = "error"
BROKEN: Final = "broken"
FAILURES: Final[Mapping[str, str]] = {
    CONNECT: "no connection: refused, or none within the time-out",
    TIMEOUT: "no answer within the time-out",
    BUSY: "a server said that it has enough (429, 503)",
    ERROR: "a server failed before the first byte of the answer (500, 502, connection reset)",
    BROKEN: "the answer broke off after its first byte",
}
"""How an attempt can fail."""


class Patience(BaseModel):
    """How long somebody waits for the first token, over all attempts, before they leave."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Seconds = Field(gt=0, le=1e6, description="mean waiting time at which they leave")
    distribution: Literal["exponential", "fixed"] = Field("exponential", description="of that time over the requests")

    def draw(self, rng: np.random.Generator) -> float:
        """Of one request, in seconds."""
        return float(self.mean) if self.distribution == "fixed" else float(rng.exponential(self.mean))


class ClientParams(BaseModel):
    """What all clients are told. A client of a library has that library's settings beside these, spelled as there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: bool = Field(True, description="answers come token by token; false: in one piece, so the first byte is the last")
    patience: Patience | None = Field(None, description="somebody waits for the first token and leaves; null: for ever")
    deadline: Seconds | None = Field(
        None, gt=0, description="from the first attempt to the end of the answer, all attempts together"
    )
    hedge_after: Seconds | None = Field(
        None,
        gt=0,
        description="without a first token by then a second attempt is sent; the first to answer wins, others are cancelled",
    )
    max_hedges: int = Field(1, ge=1, le=8, description="attempts that may run beside the first")


class Client(ABC):
    """Registered with ``@register("client")``. Times in seconds; infinity: no limit."""

    name: ClassVar[str]
    Params: ClassVar[type[ClientParams]] = ClientParams
    params: ClientParams
    source: ClassVar[str] = ""
    """Where its rules come from."""
    guards: ClassVar[Mapping[str, Guard]] = {
        "delay": Guard(answers.seconds, lambda attempt, *_: f"before attempt {attempt + 2}", limited=True),
        "retries": Guard(answers.yes_or_no, lambda failure: f"after {failure!r}", limited=True),
    }

    def __init__(self, params: ClientParams) -> None:
        self.params = params

    @property
    @abstractmethod
    def attempts(self) -> int:
        """Most attempts in a row, the first one included."""

    @property
    def connect(self) -> float:
        """Time-out of making a connection."""
        return inf

    @property
    def first_byte(self) -> float:
        """Time-out from sending to the first byte of the answer. Between later bytes nothing is watched (see `sim.fleet.attempts`)."""
        return inf

    @property
    def total(self) -> float:
        """Time-out of a whole attempt."""
        return inf

    @property
    def deadline(self) -> float:
        """From the first attempt to the end of the answer."""
        return float(self.params.deadline or inf)

    @abstractmethod
    def retries(self, failure: str) -> bool:
        """Whether it tries again after a failure (one of `FAILURES`), if attempts are left."""

    @abstractmethod
    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        """Pause before the next attempt when number ``attempt`` (from 0) has failed."""
