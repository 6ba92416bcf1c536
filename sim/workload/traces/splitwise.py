"""splitwise-sim's traces."""

from __future__ import annotations

from typing import ClassVar

from sim.registry import register
from sim.workload import content
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head
from sim.workload.traces.plain_csv import PlainCsv


@register("trace")
class Splitwise(PlainCsv):
    """``request_id, request_type, application_id, arrival_timestamp`` (s), ``batch_size, prompt_size, token_size``.

    *Source*: Mutinifni/splitwise-sim, traces; a request of type 2 is one to a language model.
    """

    name = "splitwise"
    rank: ClassVar[int] = 0
    holds: ClassVar[frozenset[str] | None] = frozenset(("times",))
    opening: ClassVar[str] = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"

    def fits(self, head: Head) -> bool:
        """Its names."""
        return head.kind == "csv" and set(head.keys) >= {"arrival_timestamp", "prompt_size", "token_size"}

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One line a request."""
        number = (block.out_content % content.NUMBERS).tolist()
        columns = (number, block.arrival_s.tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist())
        return [f"{n},2,0,{at!r},1,{prompt},{output}" for n, at, prompt, output in zip(*columns, strict=True)]
