"""The remote store of KV is lost with all it kept, and a new one starts empty; while it is out (``for``) nothing is found there and nothing kept."""

from __future__ import annotations

from sim.policy.fault import Fault, Hands
from sim.registry import register


@register("fault")
class StoreLoss(Fault):
    """At once there again, unless ``for`` says otherwise. Requests that are loading when it happens get what they load."""

    name = "store_loss"
    touches = "store"
    scope = "fleet"

    def begin(self, hands: Hands, replica: int) -> None:
        """Everything in it is gone."""
        hands.store(False)

    def end(self, hands: Hands, replica: int) -> None:
        """It keeps again what it is given."""
        hands.store(True)

    def words(self, replica: int) -> str:
        """As a clause."""
        return "the remote store of KV was lost with all it kept"
