"""The router is started anew with a cold tree: what it knew of prefixes, sessions and loads is gone. Running requests are not touched.

(Behind a proxy that keeps connections; a router that is the proxy itself breaks them: that is ``gateway_outage`` at the same time.)
"""

from __future__ import annotations

from sim.policy.fault import Fault, Hands, Unit
from sim.registry import register


@register("fault")
class RouterRestart(Fault):
    """It lasts no time."""

    name = "router_restart"
    touches = "router"
    scope = "fleet"

    def lasts(self, unit: Unit) -> float:
        """No time."""
        return 0.0

    def begin(self, hands: Hands, replica: int) -> None:
        """A new router."""
        hands.forget()

    def end(self, hands: Hands, replica: int) -> None:
        """Nothing to mend."""

    def words(self, replica: int) -> str:
        """As a clause."""
        return "the router was restarted with nothing in its memory"
