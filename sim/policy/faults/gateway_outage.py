"""The gateway in front of all replicas is out: connections break, new ones are refused or hang."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sim.policy.fault import Fault, FaultParams, Hands, Unit
from sim.registry import register


class GatewayOutageParams(FaultParams):
    """How it looks to clients."""

    new: Literal["refused", "hang"] = Field(
        "refused", description="what becomes of new connections: refused at once, or left waiting"
    )


@register("fault")
class GatewayOutage(Fault):
    """Whoever streams through it loses the answer; the engines hear of it as of any client that goes."""

    name = "gateway_outage"
    touches = "gateway"
    Params = GatewayOutageParams
    params: GatewayOutageParams
    scope = "fleet"

    def lasts(self, unit: Unit) -> float:
        """As set, or half a minute."""
        return float(self.params.for_ or 30.0)

    def begin(self, hands: Hands, replica: int) -> None:
        """All connections break."""
        hands.shut(self.params.new == "hang")

    def end(self, hands: Hands, replica: int) -> None:
        """It works again."""
        hands.open()

    def words(self, replica: int) -> str:
        """As a clause."""
        return "the gateway was out"
