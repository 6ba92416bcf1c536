"""Instruction data sets as traffic: Alpaca, Dolly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.errors import DataError
from sim.registry import register
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._objects import Item, columns
from sim.workload.traces._text import TextParams, counter, filled, strings, text_block

if TYPE_CHECKING:
    import pyarrow as pa

_ANSWERS = ("output", "response")
_MORE = ("input", "context")
_NAMES = ("instruction", *_MORE, *_ANSWERS)
_PLAIN = {True: "{instruction}\n{more}", False: "{instruction}"}
_ALPACA = {
    True: "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{more}\n\n### Response:",
    False: "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:",
}


class InstructionParams(TextParams):
    """Settings of instruction data."""

    template: Literal["none", "alpaca"] = Field(
        default="none", description="what is sent: instruction and input with a line between, or put into Alpaca's own prompt"
    )


@register("trace")
class Instructions(Trace):
    """A JSON array or JSON lines of ``instruction, input, output`` (Alpaca) or ``instruction, context, response`` (Dolly), without times.

    Equal prompts are equal content. Rows without an answer are left out, which is said.

    *Source*: tatsu-lab/stanford_alpaca, alpaca_data.json and its prompts; databricks/databricks-dolly-15k.
    """

    name = "alpaca"
    aliases = ("dolly", "instructions")
    Params: ClassVar[type[Params]] = InstructionParams
    params: InstructionParams
    timed = False

    def fits(self, head: Head) -> bool:
        """An instruction with its answer."""
        return head.kind in ("json", "jsonl") and "instruction" in head.keys and bool(set(_ANSWERS) & set(head.keys))

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        import pyarrow as pa

        count = counter(self.params, self)
        first = without = 0
        fields = pa.schema([(name, pa.string()) for name in _NAMES])
        for number, texts in columns(path, fields, _from_table, _from_items):
            prompts = self._prompts(texts)
            tokens, answer = count.each(prompts), count.each(_either(texts, _ANSWERS))
            if not tokens.all():
                raise DataError(str(path), f"item {number + int(np.argmin(tokens)) + 1}, key 'instruction': must be a text")
            some = answer > 0
            without += int((~some).sum())
            if some.any():
                yield text_block(prompts.filter(pa.array(some)), tokens[some], answer[some], first)
            first += int(some.sum())
        if without:
            self.note(f"{path.name}: {without:,} rows without an answer are left out")
        if not first:
            raise DataError(str(path), "has no row with an answer")

    def _prompts(self, texts: dict[str, pa.Array]) -> pa.Array:
        """What is sent, one text a row."""
        import pyarrow.compute as pc

        asked, more = texts["instruction"], _either(texts, _MORE)
        forms = _ALPACA if self.params.template == "alpaca" else _PLAIN
        made = [_filled_in(forms[with_more], asked, more) for with_more in (True, False)]
        return pc.if_else(pc.not_equal(more, ""), *made)


def _filled_in(form: str, asked: pa.Array, more: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = {"{instruction}": asked, "{more}": more}
    parts = [values.get(part, pa.scalar(part, pa.large_string())) for part in re.split(r"({\w+})", form)]
    return pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))


def _either(texts: dict[str, pa.Array], names: tuple[str, str]) -> pa.Array:
    import pyarrow.compute as pc

    first, second = (texts[name] for name in names)
    return pc.if_else(pc.not_equal(first, ""), first, second)


def _from_table(table: pa.Table) -> dict[str, pa.Array]:
    return {name: filled(table.column(name)) for name in _NAMES}


def _from_items(some: list[Item]) -> dict[str, pa.Array]:
    for item in some:
        for name in _NAMES:
            if not isinstance(item.value.get(name), str | None):
                item.fail(name, "must be a text", item.value[name])
    return {name: strings([str(item.value.get(name) or "") for item in some]) for name in _NAMES}
