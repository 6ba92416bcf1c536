"""Prompts as text with a number of output tokens: ``vllm bench serve --dataset-name custom`` and aiperf's single-turn files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.errors import DataError
from sim.registry import register
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._objects import Item, columns
from sim.workload.traces._text import Counter, TextParams, counter, filled, strings, text_block
from sim.workload.traces._turns import by_arrival
from sim.workload.traces._writing import prompts

if TYPE_CHECKING:
    import pyarrow as pa

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
    params: CustomParams
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

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block; one block where they have times, which need not be in order."""
        import pyarrow as pa

        numbers = [(name, pa.float64()) for name in (*_OUTPUTS, *_LENGTHS, "timestamp")]
        fields = pa.schema([(name, pa.string()) for name in _TEXTS] + numbers)
        count: Counter | None = None
        held: list[RequestBlock] = []
        first = 0
        for number, some in columns(path, fields, _from_table, _from_items, others=True):
            self.unused(path, some.names - _USED)
            timed = ~np.isnan(some.at)
            if first == 0:
                self.timed = bool(timed[0])
            if (timed != self.timed).any():
                place = f"item {number + int(np.argmax(timed != self.timed)) + 1}"
                raise DataError(str(path), f"{place}, key 'timestamp': must be in every object or in none")
            prompt, unknown = some.prompt, some.prompt == 0
            if unknown.any():
                count = count or counter(self.params, self)
                prompt = np.where(unknown, count.each(some.texts), prompt)
            if not some.output.all():
                self.note(f"answers have {self.params.output_tokens} tokens where the file does not say (settings.output_tokens)")
            output = np.where(some.output == 0, self.params.output_tokens, some.output)
            block = text_block(some.texts, prompt, output, first, some.at * 1e-3 if self.timed else None)
            first += len(block)
            if self.timed:
                held.append(block)
            else:
                yield block
        if held:
            yield by_arrival(RequestBlock.concat(held))


@dataclass(frozen=True)
class Prompts:
    """Some rows: ``texts`` (Arrow), tokens of prompts and outputs (0: the file does not say), ``at`` (ms, NaN: none), ``names`` of all keys."""

    texts: pa.Array
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    at: NDArray[np.float64]
    names: frozenset[str]


def _from_table(table: pa.Table) -> Prompts | None:
    import pyarrow.compute as pc

    texts = filled(pc.coalesce(*(table.column(name) for name in _TEXTS)))
    prompt, output, at = (
        pc.coalesce(*(table.column(name) for name in names)).to_numpy() for names in (_LENGTHS, _OUTPUTS, ("timestamp",))
    )
    for given in (prompt, output):
        if not (np.isnan(given) | ((given >= 1) & (given <= MAX_TOKENS) & (given == np.floor(given)))).all():
            return None
    if not (np.isnan(at) | ((at >= 0) & np.isfinite(at))).all() or pc.any(pc.equal(texts, "")).as_py():
        return None
    names = frozenset(name for name in table.column_names if table.column(name).null_count < table.num_rows)
    return Prompts(texts, np.nan_to_num(prompt).astype(np.int64), np.nan_to_num(output).astype(np.int64), at, names)


def _from_items(some: list[Item]) -> Prompts:
    texts, prompt, output, at = [], [], [], []
    for item in some:
        text = next((item.value[k] for k in _TEXTS if item.value.get(k) is not None), None)
        if not isinstance(text, str) or not text:
            item.fail("prompt", "must be a text", text)
        texts.append(text)
        prompt.append(_whole(item, _LENGTHS))
        output.append(_whole(item, _OUTPUTS))
        at.append(item.number("timestamp", item.value) if item.value.get("timestamp") is not None else float("nan"))
    names = frozenset(key for item in some for key, value in item.value.items() if value is not None)
    return Prompts(strings(texts), np.array(prompt, np.int64), np.array(output, np.int64), np.array(at), names)


def _whole(item: Item, names: tuple[str, ...]) -> int:
    """Tokens by the first of these keys; 0 where none is there."""
    key = next((k for k in names if item.value.get(k) is not None), None)
    return 0 if key is None else item.tokens(key, item.value)
