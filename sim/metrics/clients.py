"""What clients did besides sending, as the run leaves it: attempts, retries, what was computed for nobody."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sim.ledger import Values as Array


class Waste(NamedTuple):
    """What engines computed for attempts that nobody got the answer of. ``gap_s``: seconds between their tokens."""

    attempts: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    gap_s: float = 0.0


@dataclass
class ClientRecord:
    """Of one run. Times in seconds."""

    client: str
    source: str = ""
    hedges: int = 0
    hedges_won: int = 0
    left: int = 0
    """Requests whose users left before the first token."""
    deadlines: int = 0
    """Requests that ended because their deadline had come."""
    rerouted: int = 0
    """Attempts that a gateway sent again, unseen by the client."""
    waste: Waste = field(default_factory=Waste)
    failures: dict[str, int] = field(default_factory=dict)
    """Attempts that failed, by `sim.policy.client.FAILURES`."""
    retries_s: Array = field(default_factory=lambda: np.zeros(0))
    """f8[n]: when attempts after the first were sent."""
    hedges_s: Array = field(default_factory=lambda: np.zeros(0))
    """f8[n]: when those of them were sent that are a second copy beside the first."""
    failed_s: Array = field(default_factory=lambda: np.zeros(0))
    """f8[n]: when attempts failed."""
    given_up_s: Array = field(default_factory=lambda: np.zeros(0))
    """f8[n]: when requests were given up."""

    def close(self, waste: Waste, kinds: Mapping[str, int], *times: array[float]) -> None:
        """The run is over. ``times``: of attempts after the first, of hedges, of failures and of requests given up."""
        self.waste, self.failures = waste, dict(sorted(kinds.items()))
        self.retries_s, self.hedges_s, self.failed_s, self.given_up_s = (
            np.sort(np.frombuffer(a)) if a else np.zeros(0) for a in times
        )

    @property
    def after_failures_s(self) -> Array:
        """f8[n]: when attempts were sent because one before had failed."""
        times, counts = np.unique(self.retries_s, return_counts=True)
        np.subtract.at(counts, np.searchsorted(times, self.hedges_s), 1)
        found: Array = np.repeat(times, counts)
        return found
