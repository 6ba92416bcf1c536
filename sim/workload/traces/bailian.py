"""Qwen-Bailian traces: Mooncake's fields, with times in seconds and blocks of 16 tokens."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from sim.registry import register
from sim.workload.settings import Params
from sim.workload.traces._base import Head
from sim.workload.traces.mooncake import Mooncake, MooncakeParams


class BailianParams(MooncakeParams):
    """Settings of a Qwen-Bailian trace."""

    block_tokens: int = Field(default=16, ge=1, description="tokens of one hash id (published traces: 16)")


@register("trace")
class Bailian(Mooncake):
    """One JSON object per line: ``chat_id, parent_chat_id, timestamp`` (s), ``input_length, output_length, type, turn, hash_ids``.

    *Source*: github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
    """

    name = "bailian"
    aliases = ("qwen-bailian",)
    Params: ClassVar[type[Params]] = BailianParams
    params: BailianParams
    unit_s = 1.0
    holds = None
    harmless = frozenset(("chat_id", "parent_chat_id", "type", "turn"))

    def fits(self, head: Head) -> bool:
        """JSON lines with ``parent_chat_id``."""
        return head.kind == "jsonl" and set(head.keys) >= {"parent_chat_id", "timestamp", "input_length", "output_length"}
