"""What a station is: one stop on the road of a request from its client to an engine, and of its outcome back.

    clients ─► gateway, queue, waiting room ─► whoever chooses the replica ─► whoever stands at the engines ─► engines
       ◄──────────────────────────────────── outcomes, refusals ────────────────────────────────────────────────┘

Stations are linked by `sim.fleet.wiring.wire`; a station speaks to ``then`` (towards the engines) and ``before`` (towards the clients) and knows no
other. Each method of the base passes on, so that a station says only what it does. What is new (retries, admission, faults, tiers of KV)
is a new station in a file of its own.

*Down*: `arrive` until a replica is chosen, then `submit`. *Up*: `ended`, `first_token`, `refused`, with the time at which it happens: engines run
ahead of the clock up to the next event, so that it may lie ahead of ``clock.now``; who does something then asks the clock to call at that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.fleet.request import Request
from sim.ledger import Values, request_row
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.fleet.ahead import Choice


class Station:
    """The base: passes everything on and keeps nothing."""

    then: Station
    before: Station
    watches: int = 0
    """Outcomes (flags of `sim.ledger`) that it has to hear of, of every request."""

    def __init__(self) -> None:
        self.held: MutableMapping[int, Request] = {}
        """Requests that stand here, by number."""

    @property
    def by_blocks(self) -> bool:
        """Whether future requests can be handed over in whole blocks (`arrive_block`): nothing here depends on what happens until they come."""
        return False

    @property
    def ahead(self) -> bool:
        """Whether the requests up to the next event can be handed over at once (`arrive_ahead`), though what happens until they come matters."""
        return False

    def start(self) -> None:
        """The run begins. Asked of each station, clients first."""

    # -- down

    def arrive(self, request: Request) -> bool:
        """A request has come, now. False if it cannot be taken now: nothing has happened then, and it may be tried again."""
        return self.then.arrive(request)

    def in_turn(self, request: Request) -> bool:
        """The same where whoever chooses is out of reach: to the next replica in turn."""
        return self.then.in_turn(request)

    def send(self, request: Request, replica: int, decode: int = -1) -> None:
        """The same where a station before has chosen the replica, and the one that decodes if that is another."""
        self.then.send(request, replica, decode)

    def submit(self, request: Request, replica: int) -> None:
        """A request goes to its replica, now."""
        self.then.submit(request, replica)

    def arrive_block(self, block: RequestBlock, first: int) -> None:
        """All requests of a block, the first of which is number ``first``, each at its time. Only asked where `by_blocks`."""
        self.then.arrive_block(block, first)

    def submit_block(self, block: RequestBlock, replica_of: NDArray[np.int32], first: int) -> None:
        """The same to the replicas ``replica_of`` (i4[n])."""
        self.then.submit_block(block, replica_of, first)

    def arrive_ahead(self, block: RequestBlock, lo: int, hi: int, first: int) -> None:
        """Rows [lo, hi) of a block, each at its time; nothing else of the world happens until then. Only asked where `ahead`."""
        self.then.arrive_ahead(block, lo, hi, first)

    def submit_ahead(self, block: RequestBlock, lo: int, hi: int, first: int, choice: Choice) -> None:
        """The same, each to the replica that ``choice`` (a `sim.fleet.ahead.Choice`) names then."""
        self.then.submit_ahead(block, lo, hi, first, choice)

    def withdraw(self, request: Request) -> bool:
        """The client of a request has gone, now. Who keeps requests drops it without a word: True, no outcome will come; an engine sends one."""
        return self.then.withdraw(request)

    # -- up

    def ended(self, request: Request, time: float, replica: int) -> None:
        """A request has left the engine at ``replica``, for good."""
        self.before.ended(request, time, replica)

    def first_token(self, request: Request, time: float) -> None:
        """A request has its first token."""
        self.before.first_token(request, time)

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """A request is given up outside the engines: its client gets an error. ``busy``: a server says that it has enough, by its own rules."""
        self.before.refused(request, time, busy)

    # -- in the end

    def rows(self) -> Iterable[Mapping[str, float]]:
        """Rows (`sim.ledger.request_row`) of requests that are here."""
        for r in self.held.values():
            yield request_row(id=r.number, arrival_s=r.arrival, prompt_tokens=r.prompt_tokens)

    def join(self, rows: dict[str, Values], requests: int) -> dict[str, Values]:
        """One row per request, where a request leaves several."""
        return rows

    def client_times(self, rows: dict[str, Values]) -> None:
        """The rows, ordered by number, with times as clients see them: for who knows better."""

    def totals(self) -> dict[str, float]:
        """What happened here: figures with names that begin with ``fleet_``."""
        return {}

    def notes(self) -> list[str]:
        """The same in sentences, for the report."""
        return []

    def leaves(self) -> Mapping[str, object]:
        """What sections of the summary are made from (`sim.metrics.sections`), by the name of the section."""
        return {}


def link(stations: list[Station]) -> None:
    """Each station to the next."""
    for here, there in pairwise(stations):
        here.then, there.before = there, here
