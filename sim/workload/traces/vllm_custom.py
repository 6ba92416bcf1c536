"""Prompts as text with a number of output tokens: ``vllm bench serve --dataset-name custom`` and aiperf's single-turn files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import number_of
from sim.workload.traces._json import Item, items
from sim.workload.traces._text import TextParams, counter
from sim.workload.traces._turns import Request, block_of
from sim.workload.traces._writing import prompts

_TEXTS = ("prompt", "text", "text_input")
_OUTPUTS = ("output_tokens", "output_length", "expected_output_len", "output_len", "max_tokens")
_LENGTHS = ("prompt_len", "prompt_tokens", "input_length")
_DEFAULT = 256
_USED = frozenset((*_TEXTS, *_OUTPUTS, *_LENGTHS, "timestamp", "session_id"))


class CustomParams(TextParams):
    """Settings of text prompts."""

    output_tokens: int = Field(
        default=_DEFAULT, ge=1, le=MAX_TOKENS,
        description="output tokens where the file does not say (vllm bench serve --custom-output-len, 256)",
    )  # fmt: skip


@register("trace")
class VllmCustom(Trace):
    """JSON lines with ``prompt`` (or ``text``) and ``output_tokens`` (or ``output_length``); with ``timestamp`` (ms) when requests arrive.

    ``prompt_len`` says how many tokens a prompt has. Equal prompts are equal content.

    *Source*: vLLM, vllm/benchmarks/datasets.py, CustomDataset; aiperf, single-turn dataset.
    """

    name = "vllm-custom"
    aliases = ("aiperf-single-turn",)
    Params: ClassVar[type[Params]] = CustomParams
    holds = frozenset(("times",))

    def fits(self, head: Head) -> bool:
        """JSON lines with a text prompt."""
        return (
            head.kind in ("json", "jsonl")
            and isinstance(head.first, dict)
            and any(isinstance(head.first.get(k), str) for k in _TEXTS)
        )

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One object a request, with a text of as many common words as its prompt has tokens."""
        columns = (block.arrival_s.tolist(), block.output_tokens.tolist(), prompts(block))
        return [
            json.dumps({"prompt": text, "output_tokens": output, "timestamp": round(at * 1e3, 9)})
            for at, output, text in zip(*columns, strict=True)
        ]

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        count: Any = None
        requests: list[Request] = []
        times = None
        for item in items(path):
            self.unused(path, set(item.value) - _USED)
            text = next((item.value[k] for k in _TEXTS if k in item.value), None)
            if not isinstance(text, str) or not text:
                item.fail("prompt", "must be a text", text)
            timed = item.value.get("timestamp") is not None
            if times is None:
                times = timed
            if timed != times:
                item.fail("timestamp", "must be in every object or in none", item.value.get("timestamp"))
            at = item.number("timestamp", item.value) * 1e-3 if timed else 0.0
            known = next((key for key in _LENGTHS if item.value.get(key) is not None), None)
            if known is None and count is None:
                count = counter(self.params, self)
            tokens = count(text) if known is None else self._whole(item, known)
            requests.append(Request(at, tokens, self._output(item), -1, ((content.RECORDED + number_of(text), 0, tokens),)))
        self.timed = bool(times)
        return block_of(requests, sort=self.timed)

    def _output(self, item: Item) -> int:
        key = next((k for k in _OUTPUTS if item.value.get(k) is not None), None)
        if key is None:
            self.note(f"answers have {self.params.output_tokens} tokens where the file does not say (settings.output_tokens)")
            return int(self.params.output_tokens)
        return self._whole(item, key)

    def _whole(self, item: Item, key: str) -> int:
        value = item.number(key, item.value, 1)
        if value != int(value) or value > MAX_TOKENS:
            item.fail(key, "must be a whole number of tokens", value)
        return int(value)
