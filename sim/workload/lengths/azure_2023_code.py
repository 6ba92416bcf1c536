"""Code-completion traffic as a large provider saw it."""

from __future__ import annotations

from sim.registry import register
from sim.workload.lengths._fitted import Fitted


@register("length")
class Azure2023Code(Fitted):
    """Lengths fitted to the Azure LLM inference trace 2023, code service (8,819 requests, November 2023).

    *Source*: ``profiles/traffic/azure-2023-code.yaml``. *Valid range*: prompts of 3–7,437 and outputs of 6–1,899 tokens.
    """

    name = "azure-2023-code"
