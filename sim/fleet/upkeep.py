"""What happens to the machines of a pool that scales, whatever its autoscaler wants: spot machines are taken back, others are maintained.

A replica that is told to go takes nothing new from then on, as one that an autoscaler lets go; the autoscaler sees one replica fewer and asks for another.
When a spot machine's notice is over, what is left of its requests fails. During maintenance the pool can have so many fewer replicas.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sim.fleet.clock import Clock
from sim.metrics.scaling import Life
from sim.policy.startup import Maintenance

if TYPE_CHECKING:
    from sim.fleet.scaling import ElasticPool
    from sim.policy.scaler import LifeParams

About = TypeVar("About")


class Upkeep:
    """``pool``: a `sim.fleet.scaling.ElasticPool`; ``rng``: the substream for times until machines are taken back."""

    def __init__(self, clock: Clock, pool: ElasticPool, params: LifeParams, rng: np.random.Generator) -> None:
        self._clock, self._pool, self._spot, self._windows, self._rng = clock, pool, params.spot, params.maintenance, rng
        self.away = 0
        """Replicas that cannot be had now."""
        self.reclaimed = self.cut_off = self.maintained = 0
        """Machines that were taken back, requests that failed with them, replicas that were drained for maintenance."""

    def start(self) -> None:
        """What has a time."""
        for k, life in self._pool.there():
            self.born(k, life)
        for window in self._windows:
            self._at(window.start, self._begin, window)
        for time in self._spot.at if self._spot is not None else ():
            self._at(time, self._take_back, None)

    def born(self, k: int, life: Life) -> None:
        """A replica has a machine now."""
        spot = self._spot
        if spot is not None and spot.mtbf is not None and k >= spot.on_demand:
            self._at(self._clock.now + float(self._rng.exponential(spot.mtbf)), self._take_back, life)

    def _at(self, time: float, what: Callable[[About], None], about: About) -> None:
        """An alarm that does not keep the run from ending."""
        called = False

        def task() -> float:
            nonlocal called
            if not called:
                called = True
                return max(time, self._clock.now)
            what(about)
            return float("inf")

        self._clock.repeat(task)

    def _take_back(self, life: Life | None) -> None:
        """A notice, for a replica or for the oldest on a spot machine."""
        spot = self._spot
        assert spot is not None, "only spot machines are taken back"
        if life is None:
            able = [(x.asked, k) for k, x in self._pool.there() if k >= spot.on_demand]
            if not able:
                return
            k = min(able)[1]
            life = self._pool.life(k)
            assert life is not None, "it is there"
        else:
            k = life.replica - self._pool.first
        if self._pool.life(k) is not life or not isnan(life.drain) or not isnan(life.gone):
            return
        self.reclaimed += 1
        self._pool.stop(k, life, "taken back")
        if isnan(life.gone):
            self._at(self._clock.now + spot.notice, self._end, (k, life))

    def _end(self, about: tuple[int, Life]) -> None:
        k, life = about
        if isnan(life.gone):
            self.cut_off += self._pool.kill(k, life)

    def _begin(self, window: Maintenance) -> None:
        self.away += window.replicas
        self.maintained += self._pool.shrink(self.away)
        self._at(self._clock.now + window.duration, self._finish, window)

    def _finish(self, window: Maintenance) -> None:
        self.away -= window.replicas

    def totals(self) -> dict[str, float]:
        """Figures for the summary, of what is configured."""
        out: dict[str, float] = {}
        if self._spot is not None:
            out |= {"fleet_spot_reclaimed": float(self.reclaimed), "fleet_spot_cut_off": float(self.cut_off)}
        if self._windows:
            out["fleet_maintenance_drained"] = float(self.maintained)
        return out
