"""The links between prefill and decode replicas carry less, or nothing for a while (a flap).

Flaps: an operator's cable links recovered in about 12 s, once in 7.5 min (mymdbook.github.io/xai_link_flap, one unreviewed note); the default of
``for`` is that of the usual case.
"""

from __future__ import annotations

from pydantic import Field

from sim.policy.fault import Fault, FaultParams, Hands, Unit
from sim.registry import register


class LinkParams(FaultParams):
    """How much is left."""

    factor: float = Field(
        0.0, ge=0, lt=1, description="share of the bandwidth that is left; 0: the link is down and transfers wait"
    )


@register("fault")
class Link(Fault):
    """Transfers that are under way arrive as they would have; later ones take longer, or wait."""

    name = "link"
    touches = "link"
    Params = LinkParams
    params: LinkParams
    scope = "fleet"

    def lasts(self, unit: Unit) -> float:
        """As set, or 12 s."""
        return float(self.params.for_ or 12.0)

    def begin(self, hands: Hands, replica: int) -> None:
        """From now on."""
        hands.link(self.params.factor)

    def end(self, hands: Hands, replica: int) -> None:
        """As before."""
        hands.link(1.0)

    def words(self, replica: int) -> str:
        """As a clause."""
        left = self.params.factor
        return (
            "the links between prefill and decode were down"
            if left == 0
            else f"the links between prefill and decode carried {left:.0%}"
        )
