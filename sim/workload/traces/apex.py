"""APEX traces: JSON lines with times in ns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sim.registry import register
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import Clock, tokens
from sim.workload.traces._json import Fields, json_pieces

_NAMES = ("StartTimeOffset", "ContextTokens", "GeneratedTokens")


@register("trace")
class Apex(Trace):
    """``StartTimeOffset`` (ns), ``ContextTokens``, ``GeneratedTokens``, an object a line; prompts as text are not looked at.

    *Source*: microsoft/apex_plus, traces.
    """

    name = "apex"
    holds = frozenset(("times",))

    def fits(self, head: Head) -> bool:
        """Its keys."""
        return head.kind == "jsonl" and set(head.keys) >= set(_NAMES)

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        clock, first = Clock(1e-9), 0
        for records in json_pieces(path, Fields(_NAMES)):
            prompt, output = (tokens(records.source, records[name]) for name in _NAMES[1:])
            self.unused(path, records.others - {"Prompt", "prompt"})
            yield RequestBlock.of(clock.arrivals(records.source, records[_NAMES[0]]), prompt, output, first)
            first += len(prompt)

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One object a request."""
        columns = (
            (block.arrival_s * 1e9).round().astype("int64").tolist(),
            block.prompt_tokens.tolist(),
            block.output_tokens.tolist(),
        )
        return [
            f'{{"StartTimeOffset": {at}, "ContextTokens": {p}, "GeneratedTokens": {o}}}'
            for at, p, o in zip(*columns, strict=True)
        ]
