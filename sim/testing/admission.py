"""The laws of admission policies."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from math import inf
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sim import guard
from sim.config import settings
from sim.policy.admitting import Admission, Ticket
from sim.testing._base import refuses_unknown_settings, subject
from sim.testing.routers import Engines

_SERVICE_S = 2.0
_ROUNDS = 10_000


class _Fleet(Engines):
    """Replicas that are made up: as many requests running as have been let through, and little KV in use."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        super().__init__(n, rng)
        self.outstanding[:] = 0
        for rows in self._rows.values():
            rows[:] = 0.0
        self._rows["total_blocks"][:] = 1000.0
        self._rows["seen_until"][:] = np.inf

    def hold(self, change: int, at: int) -> None:
        """A request more or less on a replica."""
        self.outstanding[at % self.n] += change
        self._rows["running"][at % self.n] += change

    def delivered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Nobody says how far answers are."""
        return np.zeros(0, np.int64), np.zeros(0, np.int64)


class AdmissionLaws:
    """What every admission policy keeps. Say ``policy``, and ``settings`` where it needs some.

    Requests of three tenants and three priorities knock in bursts before ``replicas`` replicas that are made up, and some give up waiting. A number
    is named by `release` or `expired` once, and only while it waits; nobody is kept for ever once nothing runs any more and time goes on as `wake`
    says; a single request before an idle fleet goes on at once; the same seed gives the same answers; nothing that it is shown is changed;
    unknown settings are refused by name.
    """

    policy: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, object]] = {}
    requests: ClassVar[int] = 150
    replicas: ClassVar[int] = 2

    def make(self, seed: int = 0) -> Admission:
        """The policy under test."""
        cls: Any = guard.guarded(subject("admission", self.policy, self), Admission, everything=True)
        made: Admission = cls(settings(cls.Params, self.settings, "admission"), self.replicas, np.random.default_rng(seed))
        return made

    def _tickets(self, rng: np.random.Generator) -> list[Ticket]:
        came = np.cumsum(rng.choice([0.0, 0.01, 1.0], self.requests) * rng.exponential(size=self.requests))
        tenant, priority = rng.integers(0, 3, (2, self.requests))
        prompt, most = rng.integers(1, 3000, self.requests), rng.integers(1, 500, self.requests)
        rows = zip(tenant.tolist(), priority.tolist(), prompt.tolist(), most.tolist(), came.tolist(), strict=True)
        return [Ticket(i, *row) for i, row in enumerate(rows)]

    def _run(self, tickets: list[Ticket], seed: int) -> list[tuple[str, int, float]]:
        """What becomes of each, in order: (``on``, ``late``, ``refused`` or ``left``, number, time)."""
        policy, rng = self.make(seed), np.random.default_rng(seed)
        seen = _Fleet(self.replicas, rng)
        waiting: dict[int, Ticket] = {}
        story: list[tuple[str, int, float]] = []
        events: list[tuple[float, int, str, Ticket]] = []
        serial = 0

        def later(time: float, what: str, ticket: Ticket) -> None:
            nonlocal serial
            serial += 1
            heappush(events, (time, serial, what, ticket))

        def leave(number: int, what: str) -> Ticket:
            assert number in waiting, f"it names request {number}, which does not wait ({what})"
            story.append((what, number, seen.now))
            return waiting.pop(number)

        def rounds() -> None:
            for _ in range(_ROUNDS):
                late = list(policy.expired(seen.now)) if waiting else []
                for number in late:
                    leave(number, "late")
                gone = list(policy.release(seen)) if waiting else []
                for number in gone:
                    ticket = leave(number, "on")
                    seen.hold(1, number)
                    later(seen.now + 0.2 * _SERVICE_S, "first", ticket)
                    later(seen.now + float(rng.exponential(_SERVICE_S)) + 0.2 * _SERVICE_S, "end", ticket)
                if not late and not gone:
                    break
            else:
                raise AssertionError("release and expired never come to an end")
            if waiting:
                time = policy.wake(seen.now)
                assert time > seen.now, "wake names a time that has passed"
                if time < inf:
                    later(max(time, seen.now), "wake", next(iter(waiting.values())))

        for ticket in tickets:
            later(ticket.came, "knock", ticket)
            if rng.random() < 0.1:
                later(ticket.came + float(rng.exponential(_SERVICE_S)), "leave", ticket)
        for _ in range(_ROUNDS):
            if not events:
                return story + [("kept", number, seen.now) for number in waiting]
            seen.now, _, what, ticket = heappop(events)
            if what == "knock":
                if policy.offer(ticket, seen):
                    waiting[ticket.number] = ticket
                else:
                    story.append(("refused", ticket.number, seen.now))
            elif what == "leave" and ticket.number in waiting:
                policy.withdraw(ticket, seen.now)
                leave(ticket.number, "left")
            elif what == "first" and policy.hears_first_tokens:
                policy.first_token(ticket, seen.now)
            elif what == "end":
                seen.hold(-1, ticket.number)
                policy.ended(ticket, seen.now, ticket.max_tokens)
            rounds()
        raise AssertionError("it wakes again and again, and the world never comes to rest")

    def test_each_request_leaves_once_and_nobody_is_kept_for_ever(self) -> None:
        """Whatever it answers beside numbers of requests that wait raises `PluginError` out of the guard, or fails here."""
        for seed in range(5):
            story = self._run(self._tickets(np.random.default_rng(seed)), seed)
            numbers = [number for _, number, _ in story]
            assert sorted(numbers) == list(range(self.requests))
            kept = [number for what, number, _ in story if what == "kept"]
            assert not kept, f"requests {kept} wait for ever, though nothing runs"

    def test_the_same_seed_gives_the_same_answers(self) -> None:
        """Randomness comes from ``rng`` alone."""
        tickets = self._tickets(np.random.default_rng(3))
        assert self._run(tickets, 3) == self._run(tickets, 3)

    def test_one_request_before_an_idle_fleet_goes_on_at_once(self) -> None:
        """Whoever it is."""
        for tenant in range(3):
            story = self._run([Ticket(0, tenant, tenant, 100, 50, 1.0)], 0)
            assert [s for s in story if s[0] != "left"] == [("on", 0, 1.0)]

    def test_unknown_settings_are_refused(self) -> None:
        """By their name."""
        refuses_unknown_settings(subject("admission", self.policy, self))
