"""One request on its road through the stations."""

from __future__ import annotations

from sim.workload.table import RequestBlock


class Request:
    """Row ``row`` of a `sim.workload.table.RequestBlock`, as request ``number`` of the run.

    ``arrival``: when it left its client (s). ``watch``: of which outcomes the engines tell (flags of `sim.engine.state`). ``model``: the
    number of the pool whose model it names, where there are several. ``client``: who waits for the answer; −1: nobody.
    ``replica``: where it is, −1: not yet at an engine; ``came``: since when (s). ``status``: how it left the engine, where anybody watches ends and
    first tokens (`sim.metrics.record`).
    """

    __slots__ = ("arrival", "block", "came", "client", "model", "number", "replica", "row", "status", "watch")

    def __init__(
        self, block: RequestBlock, row: int, number: int, arrival: float, watch: int = 0, model: int = 0, client: int = -1
    ) -> None:
        self.block, self.row, self.number, self.arrival = block, row, number, arrival
        self.watch, self.model, self.client = watch, model, client
        self.replica, self.came, self.status = -1, 0.0, 0

    @property
    def prompt_tokens(self) -> int:
        """Length of its prompt."""
        return int(self.block.prompt_tokens[self.row])

    @property
    def priority(self) -> int:
        """As the traffic says."""
        return int(self.block.priority[self.row])
