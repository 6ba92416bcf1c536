"""Which of several models a request names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.workload.table import RequestBlock


class Mix:
    """Which model a request names: that of its class (``of_class``, −1: any), else drawn by ``shares`` from ``rng``.

    The turns of a session stay with the model of the first.
    """

    def __init__(
        self, shares: Sequence[float], rng: np.random.Generator, of_class: Sequence[int] = (), told: bool = False
    ) -> None:
        self.told = told
        """Whether the request table says which model it is."""
        total = np.cumsum(shares)
        self._edges = total / total[-1]
        self._rng = rng
        self._of_class = np.array(of_class, np.int32)
        self._sessions: dict[int, int] = {}

    def models(self, block: RequestBlock) -> NDArray[np.int32]:
        """i4[n]: the number of each request's model."""
        model = np.searchsorted(self._edges, self._rng.random(len(block)), side="right").astype(np.int32)
        for i in np.flatnonzero(block.session >= 0).tolist():
            model[i] = self._sessions.setdefault(int(block.session[i]), int(model[i]))
        if len(self._of_class):
            own = self._of_class[block.klass]
            model = np.where(own >= 0, own, model)
        return model

    def draw(self, block: RequestBlock, row: int) -> int:
        """The same for one request of a waiting client."""
        return int(self.models(block[row : row + 1])[0])
