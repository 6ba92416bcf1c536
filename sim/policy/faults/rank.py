"""An accelerator fails and takes its replica down with it, however many ranks that has: it comes back on another machine.

*Source* of the rate: Llama 3 405B was trained on 16,384 H100 for 54 days with 419 unexpected interruptions (arXiv 2407.21783, by way of
glennklockwood.com/garden/component-reliability): one per 2,112 GPU-days, all causes together. A replica of n accelerators fails n times as often.
"""

from __future__ import annotations

from sim.policy.fault import Hands, Unit
from sim.policy.faults._replica import ReplicaFault, ReplicaFaultParams
from sim.registry import register


class RankParams(ReplicaFaultParams):
    """``mtbf`` is per accelerator. ``for``: until the replica serves again; by default the cold start on another machine."""


@register("fault")
class Rank(ReplicaFault):
    """One of the accelerators of a replica fails."""

    name = "rank"
    Params = RankParams
    params: RankParams
    crashes = True
    default_mtbf = 2112.0 * 86400.0
    source = "419 unexpected interruptions of 16,384 H100 in 54 days (Llama 3, arXiv 2407.21783): one per 2,112 GPU-days"

    def rate(self, unit: Unit) -> float:
        """Of all its accelerators."""
        return unit.accelerators / self.mtbf

    def lasts(self, unit: Unit) -> float:
        """As set, or a cold start with machine and image."""
        return float(self.params.for_ or unit.replace_s)

    def begin(self, hands: Hands, replica: int) -> None:
        """The whole replica dies."""
        hands.crash(replica)

    def end(self, hands: Hands, replica: int) -> None:
        """It serves again."""
        hands.restart(replica)

    def words(self, replica: int) -> str:
        """As a clause."""
        return f"an accelerator of replica {replica} failed and took it down"
