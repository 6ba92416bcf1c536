"""Power of two choices: the less loaded of two replicas drawn at random (Mitzenmacher 2001; Envoy's ``LEAST_REQUEST`` default)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from sim.policy.requests import Requests
from sim.policy.router import Router, RouterParams, Snapshot
from sim.registry import register

if TYPE_CHECKING:
    from sim.rules import Rule


class PowerOfTwoParams(RouterParams):
    """Settings of `PowerOfTwo`."""

    choices: int = Field(2, ge=1, le=64, description="replicas drawn per request, with replacement")


@register("router")
class PowerOfTwo(Router):
    """The least loaded of a few replicas drawn uniformly; the first drawn wins a tie."""

    name = "power_of_two"
    Params = PowerOfTwoParams
    params: PowerOfTwoParams
    elastic = True

    def rule(self) -> Rule:
        """The same draws."""
        if self._compiled is None:
            from sim.policy.rules.fewest import Drawn, of_drawn
            from sim.rules import Rule

            self._compiled = Rule(of_drawn, Drawn(np.array([self.params.choices], np.int64)))
        return self._compiled

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """Compares ``choices`` draws."""
        drawn = self.rng.integers(0, self.replicas, self.params.choices)
        return int(drawn[int(np.argmin(snapshot.outstanding[drawn]))])
