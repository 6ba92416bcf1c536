"""The ``digs_scheduler``: which instance computes a request's prompt and which one decodes it, with limits and a queue.

A round (`GlobalScheduler.schedule`) runs when a request has come or one has released something, and every 100 ms: the queue is put in order;
the requests at its head get the prefill instance with the least demand that is under its limit, until there is none; those get the decode
instance with the least load that is under its limit, or go to the end of the queue. A limit is tested before the demand is added.
*Source*: ``global_scheduler.cpp``, ``framework/schedule_framework.cpp``, ``selectpolicy/load_balance_policy.cpp``, ``reorderingpolicy``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from sim.policy.motor.load import Demand, LoadCost, Resource

PERIOD: Final = 0.1
"""Seconds between two rounds without any notice."""
FCFS: Final = 1
SJF: Final = 2
LJF: Final = 3
MPRF: Final = 4  # longest matching prefix first; at this commit nobody sets the match, so the order stays
STATIC: Final = 1
LOAD_BALANCE: Final = 2


@dataclass
class Instance:
    """One server. ``role`` both: it decodes what it prefills. ``slots`` and ``blocks``: its capacity; ``links``: requests at once."""

    id: int
    slots: int
    blocks: int
    role: Literal["both", "prefill", "decode"] = "both"
    links: int = 1000
    prefill: Resource = field(default_factory=Resource)
    decode: Resource = field(default_factory=Resource)

    def reachable(self) -> bool:
        """``CheckConnection``: it takes one more."""
        return self.links > self.prefill.slots + self.decode.slots


class Allocation(NamedTuple):
    """A request goes to this pair of instances (by id)."""

    request: int
    prefill: int
    decode: int


class GlobalScheduler:
    """``limit_rate``: an instance may be asked for so much of its capacity (``res_limit_rate``); ``select_type`` `STATIC`: without limits."""

    def __init__(
        self,
        instances: Sequence[Instance],
        cost: LoadCost,
        *,
        reordering_type: int = FCFS,
        select_type: int = LOAD_BALANCE,
        limit_rate: float = 1.1,
        max_schedule_count: int = 10_000,
    ) -> None:
        self.instances = {i.id: i for i in instances}
        self._cost = cost
        self._order = reordering_type
        self._limited = select_type == LOAD_BALANCE
        self._rate = limit_rate
        self._most = max_schedule_count
        self._waiting: deque[int] = deque()
        self._scheduling: list[int] = []
        self._demand: dict[int, Demand] = {}
        self._at: dict[int, Allocation] = {}
        self._prefilling: set[int] = set()

    def add(self, request: int, demand: Demand) -> None:
        """A request has come; the next round sees it."""
        self._waiting.append(request)
        self._demand[request] = demand

    def withdraw(self, request: int) -> None:
        """A request that has no instance yet is given up."""
        for queue in (self._waiting, self._scheduling):
            if request in queue:
                queue.remove(request)
                del self._demand[request]

    @property
    def queued(self) -> int:
        """Requests without an instance."""
        return len(self._waiting) + len(self._scheduling)

    def prefill_ended(self, request: int) -> None:
        """Its first token is out: what it asked of the prefill instance is free."""
        if request in self._prefilling:
            self._prefilling.remove(request)
            self.instances[self._at[request].prefill].prefill.remove(self._demand[request])

    def ended(self, request: int) -> None:
        """It is over."""
        self.prefill_ended(request)
        self.instances[self._at.pop(request).decode].decode.remove(self._demand.pop(request))

    def schedule(self, used_blocks: Sequence[float]) -> list[Allocation]:
        """One round. ``used_blocks``: as each instance reported last, by id."""
        for _ in range(min(self._most, len(self._waiting))):
            self._scheduling.append(self._waiting.popleft())
        if self._order in (SJF, LJF):
            self._scheduling.sort(key=lambda r: self._demand[r].tokens, reverse=self._order == LJF)
        begun = self._prefill_instances()
        back, found = [], []
        decoders = [i for i in self.instances.values() if i.role == "decode"]
        for request, chosen in begun:
            where = self._decode_instance(self._demand[request], chosen, decoders, used_blocks)
            if where is None:
                chosen.prefill.remove(self._demand[request])
                back.append(request)
                continue
            where.decode.add(self._demand[request])
            self._prefilling.add(request)
            self._at[request] = Allocation(request, chosen.id, where.id)
            found.append(self._at[request])
        self._scheduling += back
        return found

    def _prefill_instances(self) -> list[tuple[int, Instance]]:
        """From the head of the queue, until there is no instance."""
        pool = [i for i in self.instances.values() if i.role != "decode"]
        out = []
        while self._scheduling:
            pool.sort(key=lambda i: i.prefill.total)
            chosen = next((i for i in pool if i.reachable() and self._under_limit(i, i.prefill)), None)
            if chosen is None:
                break
            request = self._scheduling.pop(0)
            chosen.prefill.add(self._demand[request])
            out.append((request, chosen))
        return out

    def _decode_instance(self, d: Demand, chosen: Instance, pool: list[Instance], used: Sequence[float]) -> Instance | None:
        """Among all decode instances (one group; each is linked to each prefill instance), or the instance itself."""
        if chosen.role == "both":
            pool = [chosen]
        most = max(i.decode.slots for i in pool) if pool else 0
        pool.sort(key=lambda i: self._cost.load(i.decode, most, used[i.id], d))
        return next((i for i in pool if i.reachable() and self._under_limit(i, i.decode)), None)

    def _under_limit(self, i: Instance, r: Resource) -> bool:
        return not self._limited or (r.slots <= int(i.slots * self._rate) and r.blocks <= int(i.blocks * self._rate))
