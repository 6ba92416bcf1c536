"""Before everything else of a fleet: the door, where an admission policy (`sim.policy.admitting`) keeps requests waiting, or refuses them.

Rounds take place when a request has come, when one that went on has its first token or is over, and when the policy wants to be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from sim import registry
from sim.fleet.clock import Clock
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.policy.admitting import Admission, Seen, Ticket
from sim.streams import stream

if TYPE_CHECKING:
    from sim.config.base import Admission as Section


class Door(Station):
    """``view``: what the policy sees of the replicas. ``label``: its name in results."""

    def __init__(self, clock: Clock, policy: Admission, view: Seen, label: str) -> None:
        super().__init__()
        self._clock, self._policy, self._view, self._label = clock, policy, view, label
        self.watches = 1 | (2 if policy.hears_first_tokens else 0)
        self._tickets: dict[int, Ticket] = {}
        self._begun: set[int] = set()  # those that have their first token
        self._alarm = inf
        self._waits = self._refused = self._late = 0

    def arrive(self, request: Request) -> bool:
        """A request has come, now."""
        block, row, number = request.block, request.row, request.number
        ticket = Ticket(
            number,
            int(block.tenant[row]) or request.model or int(block.klass[row]),
            int(block.priority[row]),
            int(block.prompt_tokens[row]),
            int(block.max_tokens[row]),
            self._clock.now,
        )
        if not self._policy.offer(ticket, self._view):
            self._refused += 1
            self.before.refused(request, self._clock.now, True)
            return True
        self.held[number] = request
        self._tickets[number] = ticket
        self._round()
        self._waits += number in self.held
        return True

    def withdraw(self, request: Request) -> bool:
        """Told to the policy, if it is here; else to who has it, and its place is free if it is gone there without an outcome."""
        gone = self.held.pop(request.number, None) is not None
        if gone:
            self._policy.withdraw(self._tickets.pop(request.number), self._clock.now)
        else:
            gone = self.then.withdraw(request)
            if gone:
                self._over(request, 0)
        if gone:
            self._round()
        return gone

    def _round(self) -> None:
        now = self._clock.now
        while self.held:
            late = self._policy.expired(now)
            for number in late:
                request = self.held.pop(number)
                del self._tickets[number]
                self._late += 1
                self.before.refused(request, now, True)
            gone = self._policy.release(self._view)
            for number in gone:
                self._let_through(self.held.pop(number))
            if not late and not gone:
                break
        self._set_alarm(now)

    def _let_through(self, request: Request) -> None:
        if not self.then.arrive(request):
            self._over(request, 0)
            self.before.refused(request, self._clock.now)

    def _set_alarm(self, now: float) -> None:
        if not self.held:
            return
        time = self._policy.wake(now)
        if time < self._alarm and time < inf:
            self._alarm = time
            self._clock.call(time, lambda: self._ring(time))

    def _ring(self, time: float) -> None:
        if time == self._alarm:
            self._alarm = inf
            self._round()

    # -- outcomes

    def first_token(self, request: Request, time: float) -> None:
        """Told to the policy at its time."""
        if request.number in self._tickets and self._policy.hears_first_tokens:
            self._begun.add(request.number)
            self._clock.call(time, lambda: self._began(request))
        self.before.first_token(request, time)

    def _began(self, request: Request) -> None:
        ticket = self._tickets.get(request.number)
        if ticket is not None:
            self._policy.first_token(ticket, self._clock.now)
            self._round()

    def ended(self, request: Request, time: float, replica: int) -> None:
        """Likewise."""
        self._later_over(request, time)
        self.before.ended(request, time, replica)

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """Somebody behind the door has given it up."""
        self._later_over(request, time)
        self.before.refused(request, time, busy)

    def _later_over(self, request: Request, time: float) -> None:
        if request.number not in self._tickets or request.number in self.held:
            return
        begun = not self._policy.hears_first_tokens or request.number in self._begun
        output = int(request.block.output_tokens[request.row]) if begun else 0

        def over() -> None:
            self._over(request, output)
            self._round()

        self._clock.call(time, over)

    def _over(self, request: Request, output: int) -> None:
        ticket = self._tickets.pop(request.number, None)
        self._begun.discard(request.number)
        if ticket is not None:
            self._policy.ended(ticket, self._clock.now, output)

    # -- in the end

    def totals(self) -> dict[str, float]:
        """Requests that waited at the door, that were refused at once, and after waiting."""
        return {
            f"fleet_{self._label}_waited": float(self._waits),
            f"fleet_{self._label}_refused": float(self._refused),
            f"fleet_{self._label}_timed_out": float(self._late),
        }


def doors(clock: Clock, sections: Sequence[Section], seed: int, view: Seen) -> list[Station]:
    """A door for each ``admission`` section of a scenario, the first outermost."""
    out: list[Station] = []
    names: list[str] = []
    for policy in make_policies(sections, len(view.outstanding), seed):
        names.append(policy.name)
        n = names.count(policy.name)
        out.append(Door(clock, policy, view, policy.name if n == 1 else f"{policy.name}_{n}"))
    return out


def make_policies(sections: Sequence[Section], replicas: int, seed: int) -> list[Admission]:
    """The policies of a scenario's ``admission`` sections, outermost first. Raises `ConfigError`."""
    from sim.config import settings

    out = []
    for i, section in enumerate(sections):
        field = f"admission[{i}]"
        cls = registry.lookup("admission", section.name, f"{field}.name")
        params = settings(cls.Params, section.settings, field)
        out.append(cls(params, replicas, stream(seed, f"admission.{i}")))
    return out
