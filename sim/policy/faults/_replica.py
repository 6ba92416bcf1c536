"""Faults of single replicas."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sim.errors import ConfigError
from sim.policy.fault import Fault, FaultParams, Unit


class ReplicaFaultParams(FaultParams):
    """Which replica."""

    replica: int | None = Field(
        None, ge=0, description="number of the replica, over all pools; null: the first by script, all at random"
    )


class ReplicaFault(Fault):
    """It happens to one replica by script, to each by itself at random."""

    params: ReplicaFaultParams

    def concerns(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """The one that is named. Raises `ConfigError` for one that is not there."""
        chosen = self.params.replica
        if chosen is None:
            return units if self.params.at is None else units[:1]
        if chosen >= len(units):
            raise ConfigError("faults.replica", chosen, "is no replica of this fleet", f"0 to {len(units) - 1}")
        return [units[chosen]]
