"""Vidur's traces: arrivals and lengths, and Frontier's with sessions and block ids."""

from __future__ import annotations

from typing import ClassVar

from sim.registry import register
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head
from sim.workload.traces.plain_csv import PlainCsv


@register("trace")
class Vidur(PlainCsv):
    """``arrived_at`` (s), ``num_prefill_tokens, num_decode_tokens``; Frontier adds ``session_id, block_hash_ids`` (``"11|22"``).

    *Source*: microsoft/vidur, trace request generator; its processed traces have lengths only.
    """

    name = "vidur"
    aliases = ("frontier",)
    rank: ClassVar[int] = 0
    holds: ClassVar[frozenset[str] | None] = frozenset(("times",))
    opening: ClassVar[str] = "arrived_at,num_prefill_tokens,num_decode_tokens\n"

    def fits(self, head: Head) -> bool:
        """Its names of lengths."""
        return head.kind in ("csv", "parquet") and set(head.keys) >= {"num_prefill_tokens", "num_decode_tokens"}

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One line a request."""
        columns = (block.arrival_s.tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist())
        return [f"{at!r},{prompt},{output}" for at, prompt, output in zip(*columns, strict=True)]
