"""The door of the gateway, which can be shut (`sim.policy.faults.gateway_outage`)."""

from __future__ import annotations

from sim.fleet.attempts import HANGING, UNREACHABLE
from sim.fleet.clock import Clock
from sim.fleet.request import Request
from sim.fleet.station import Station


class Front(Station):
    """Next to the clients."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._shut = self._hangs = False

    def shut(self, hangs: bool) -> None:
        """Nobody comes in."""
        self._shut, self._hangs = True, hangs

    def open(self) -> None:
        """Whoever still waits comes in, in order."""
        self._shut = False
        waiting = list(self.held.values())
        self.held.clear()
        for request in waiting:
            request.status = 0
            if not self.then.arrive(request):
                self.before.refused(request, self._clock.now, True)

    def arrive(self, request: Request) -> bool:
        """Refused, or kept, while it is shut."""
        if not self._shut:
            return self.then.arrive(request)
        if self._hangs:
            request.status = HANGING
            self.held[request.number] = request
        else:
            request.status = UNREACHABLE
            self.before.refused(request, self._clock.now)
        return True

    def withdraw(self, request: Request) -> bool:
        """One that waits goes."""
        return self.held.pop(request.number, None) is not None or self.then.withdraw(request)
