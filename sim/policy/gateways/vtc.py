"""The virtual token counter (VTC): who has been served least goes next.

*Source*: arXiv 2401.00588, and its artifact Ying1123/VTC-artifact @ 192c2e20, which differs from it: a client that comes back is lifted to the least
counter of the others only if others have requests queued; with nobody queued it is not lifted at all (the paper: to the counter of the
client that left the queue last).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Literal

Client = Hashable


class Counters:
    """One counter per client. ``weights``: by client, 1 unless given: increments are divided by it. Ties go to who came first of all."""

    def __init__(
        self,
        lift: Literal["paper", "artifact"] = "paper",
        input_weight: float = 1.0,
        output_weight: float = 2.0,
        weights: Mapping[int, float] | Mapping[str, float] | None = None,
    ) -> None:
        self._lift, self._input, self._output = lift, input_weight, output_weight
        self._weights = dict[Client, float]()
        for client, weight in (weights or {}).items():
            self._weights[client] = weight
        self.of: dict[Client, float] = {}
        """Service of each client so far, as the lifts leave it."""
        self._last_left: Client | None = None

    def arrive(self, client: Client, queued: Iterable[Client]) -> None:
        """A request of a client has come; ``queued``: clients with waiting requests, this request not counted."""
        mine = self.of.setdefault(client, 0.0)
        waiting = set(queued)
        if client in waiting:
            return
        if waiting:
            self.of[client] = max(mine, min(self.of[c] for c in waiting))
        elif self._lift == "paper" and self._last_left is not None:
            self.of[client] = max(mine, self.of[self._last_left])

    def next(self, queued: Iterable[Client]) -> Client:
        """Of the clients with waiting requests the one that goes next."""
        waiting = set(queued)
        return min((c for c in self.of if c in waiting), key=self.of.__getitem__)

    def admitted(self, client: Client, input_tokens: float, last: bool = False) -> None:
        """A request of a client is served from now on; ``last``: it was the client's last in the queue."""
        self.of[client] += self._input * input_tokens / self._weights.get(client, 1.0)
        if last:
            self._last_left = client

    def generated(self, client: Client, tokens: float) -> None:
        """Tokens of answers."""
        self.of[client] += self._output * tokens / self._weights.get(client, 1.0)
