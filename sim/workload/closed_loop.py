"""Clients that wait for an answer before they ask again."""

from __future__ import annotations

from sim.errors import ConfigError
from sim.workload.base import Traffic
from sim.workload.table import RequestBlock


class ClosedLoop:
    """What each of ``concurrency`` clients asks next. A source of data only: the fleet decides when.

    Single requests are handed out in their order, to whoever asks. A session belongs to the client that began it: its turns
    come one by one, then the client begins the next session. What is handed out depends on the order of asking only, never on
    time. ``paced``: a request is sent at its ``arrival_s`` when its client has asked for it before.
    """

    def __init__(self, concurrency: int, think_time: float, traffic: Traffic, paced: bool = False) -> None:
        if concurrency < 1:
            raise ConfigError("traffic.closed_loop.concurrency", concurrency, "must be at least 1")
        self.concurrency, self.think_time, self.total, self.paced = concurrency, think_time, traffic.total, paced
        self._traffic = traffic
        self._blocks = traffic.conversations()
        self._block: RequestBlock | None = None
        self._row = 0
        self._next_turn: dict[int, tuple[RequestBlock, int]] = {}

    def fresh(self) -> ClosedLoop:
        """The same clients with nothing asked yet."""
        return self.over(self._traffic)

    def over(self, traffic: Traffic) -> ClosedLoop:
        """The same clients asking for the requests of ``traffic``."""
        return ClosedLoop(self.concurrency, self.think_time, traffic, self.paced)

    def next(self, client: int) -> tuple[RequestBlock, int] | None:
        """The next request of a client as (block, row), or None when there are no more.

        ``arrival_s`` of the block is the caller's to write.
        """
        if client in self._next_turn:
            block, row = self._next_turn.pop(client)
        else:
            if self._block is None or self._row == len(self._block):
                self._block, self._row = next(self._blocks, None), 0
            if self._block is None:
                return None
            block, row = self._block, self._row
            self._row = _end_of_session(block, row)
        following = row + 1
        if following < len(block) and block.session[row] >= 0 and block.session[following] == block.session[row]:
            self._next_turn[client] = block, following
        return block, row


def _end_of_session(block: RequestBlock, row: int) -> int:
    session, end = block.session[row], row + 1
    while session >= 0 and end < len(block) and block.session[end] == session:
        end += 1
    return end
