"""Chat traffic as a large provider saw it."""

from __future__ import annotations

from sim.registry import register
from sim.workload.lengths._fitted import Fitted


@register("length")
class Azure2023Conv(Fitted):
    """Lengths fitted to the Azure LLM inference trace 2023, conversation service (19,366 requests, November 2023).

    *Source*: ``profiles/traffic/azure-2023-conv.yaml``. *Valid range*: prompts of 2–14,050 and outputs of 7–1,000 tokens.
    """

    name = "azure-2023-conv"
