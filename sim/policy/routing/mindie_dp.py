"""How MindIE's front end assigns a request to a data-parallel rank: to the least loaded, the first of equals.

*Source*: MindIE-LLM 8b4871ad, ``src/engine``: requests go to the rank with the fewest of them. With ``deployment.dp`` MindIE uses it by itself.
"""

from __future__ import annotations

from sim.policy.requests import Requests
from sim.policy.router import Router, Snapshot
from sim.registry import register


@register("router")
class MindieDp(Router):
    """The rank with the fewest requests sent and not yet finished."""

    name = "mindie_dp"
    aliases = ("mindie-dp",)

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """O(replicas)."""
        return int(snapshot.outstanding.argmin())
