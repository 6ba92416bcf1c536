"""An accelerator becomes slow, by heat or a fault of its memory: the replica waits for its slowest rank at every step."""

from __future__ import annotations

from pydantic import Field

from sim.policy.fault import Hands, Unit
from sim.policy.faults._replica import ReplicaFault, ReplicaFaultParams
from sim.registry import register


class SlowParams(ReplicaFaultParams):
    """How slow. No distribution of such times has been published for inference: ``for`` is assumed to be a minute."""

    factor: float = Field(2.0, gt=1, le=1000, description="kernels take so many times as long")


@register("fault")
class Slow(ReplicaFault):
    """Requests stay where they are; routers that do not look go on sending."""

    name = "slow"
    touches = "speed"
    Params = SlowParams
    params: SlowParams

    def lasts(self, unit: Unit) -> float:
        """As set, or a minute."""
        return float(self.params.for_ or 60.0)

    def begin(self, hands: Hands, replica: int) -> None:
        """From its next step on."""
        hands.slow(replica, self.params.factor)

    def end(self, hands: Hands, replica: int) -> None:
        """As before."""
        hands.slow(replica, 1.0)

    def words(self, replica: int) -> str:
        """As a clause."""
        return f"replica {replica} became {self.params.factor:g} times slower"
