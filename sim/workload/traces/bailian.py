"""Qwen-Bailian traces: Mooncake's fields, with times in seconds and blocks of 16 tokens."""

from __future__ import annotations

from pydantic import Field

from sim.registry import register
from sim.workload.settings import Params
from sim.workload.traces.mooncake import Mooncake


class BailianParams(Params):
    """Settings of a Qwen-Bailian trace."""

    block_tokens: int = Field(default=16, ge=1, description="tokens of one hash id (published traces: 16)")
    spread: bool = Field(default=False, description="spread requests of one time stamp evenly up to the next one")


@register("trace")
class Bailian(Mooncake):
    """One JSON object per line: ``chat_id, parent_chat_id, timestamp`` (s), ``input_length, output_length, type, turn, hash_ids``.

    *Source*: github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
    """

    name = "bailian"
    aliases = ("qwen-bailian",)
    Params = BailianParams
    unit_s = 1.0
    foreign = False
