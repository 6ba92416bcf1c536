"""Routers that keep the queue themselves: they say which waiting requests go where, in rounds (`sim.fleet.coordinator` asks them)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from sim.policy.requests import Requests
from sim.policy.router import Router, Snapshot


class Dispatch(NamedTuple):
    """A request goes to a replica, and to ``decode`` after its prompt; −1: it stays."""

    request: int
    replica: int
    decode: int = -1


class Coordinator(Router):
    """Requests are known by number. Replicas are numbered through all pools, also where pools have roles."""

    whole = True
    coordinates = True
    period: float = 0.1
    """Seconds between two rounds while requests wait and nothing happens."""
    patience: float = float("inf")
    """Seconds after which a request without a replica fails."""
    capacity: float = float("inf")
    """Requests at once, waiting ones included; more are refused."""

    @abstractmethod
    def arrive(self, snapshot: Snapshot, number: int, block: Requests, row: int) -> None:
        """A request has come; the next round, at once, may send it."""

    @abstractmethod
    def dispatch(self, snapshot: Snapshot) -> Sequence[Dispatch]:
        """A round: requests that go to their replicas now."""

    @abstractmethod
    def withdraw(self, number: int) -> None:
        """A waiting request is given up."""

    @abstractmethod
    def prompt_computed(self, number: int) -> None:
        """A request has its first token."""

    @abstractmethod
    def ended(self, number: int) -> None:
        """A request that was sent is over."""

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """Never asked: requests come by `arrive`."""
        return -1

    def choose_pair(self, snapshot: Snapshot, block: Requests, row: int) -> tuple[int, int]:
        """Asked for a request that its decode replica gave back: it goes to the replicas that it had."""
        return -1, -1
