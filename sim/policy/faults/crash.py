"""A serving process dies and is started again on the same machine: requests and KV are lost, weights are read anew."""

from __future__ import annotations

from sim.policy.fault import Hands, Unit
from sim.policy.faults._replica import ReplicaFault, ReplicaFaultParams
from sim.registry import register


class CrashParams(ReplicaFaultParams):
    """``for``: until it serves again; by default the cold start without machine and image. ``mtbf`` is per replica and has no default."""


@register("fault")
class Crash(ReplicaFault):
    """The process dies; vLLM's API server fails all requests and exits, SGLang's process group resets all connections."""

    name = "crash"
    Params = CrashParams
    params: CrashParams
    crashes = True

    def lasts(self, unit: Unit) -> float:
        """As set, or a cold start."""
        return float(self.params.for_ or unit.restart_s)

    def begin(self, hands: Hands, replica: int) -> None:
        """It dies."""
        hands.crash(replica)

    def end(self, hands: Hands, replica: int) -> None:
        """It serves again."""
        hands.restart(replica)

    def words(self, replica: int) -> str:
        """As a clause."""
        return f"replica {replica} died"
