"""What the balancer between the data-parallel ranks of an engine sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from sim.policy.requests import Requests

if TYPE_CHECKING:
    from sim.fleet.ranks import RankedGroup


class RankView:
    """The ranks of one engine as its balancer sees them (`sim.policy.router.Snapshot`)."""

    def __init__(self, owner: RankedGroup, replica: int) -> None:
        self._owner = owner
        self._part = slice(replica * owner.ranks, (replica + 1) * owner.ranks)
        self.now = 0.0

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """Requests sent to each rank and not yet finished."""
        return self._owner.inner.outstanding[self._part]

    def outstanding_of(self, clients: int) -> NDArray[np.int64]:
        """i8[clients, ranks]: the same by API server; the n-th request of the engine came through server n mod ``clients``."""
        return self._owner.by_client(clients)[:, self._part]

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, ranks], as of the last decision of each rank."""
        self._owner.catch_up(self.now)
        return self._owner.inner.gauges()[:, self._part]

    def look(self) -> dict[str, NDArray[np.float64]]:
        """Queue and memory of the ranks; the names that balancers use."""
        running, waiting, used, total, _ = self.gauges()
        return {"running": running, "waiting": waiting, "used_blocks": used, "total_blocks": total}

    def cached(self, block: Requests, row: int) -> NoReturn:
        """Not of ranks."""
        raise NotImplementedError

    def running(self, replica: int) -> NoReturn:
        """Not for balancers."""
        raise NotImplementedError
