"""Instruction data sets as traffic: Alpaca, Dolly."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from sim.errors import DataError
from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import number_of
from sim.workload.traces._json import items
from sim.workload.traces._text import TextParams, counter
from sim.workload.traces._turns import Request, block_of

_ANSWERS = ("output", "response")
_MORE = ("input", "context")
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
    timed = False

    def fits(self, head: Head) -> bool:
        """An instruction with its answer."""
        return head.kind in ("json", "jsonl") and "instruction" in head.keys and bool(set(_ANSWERS) & set(head.keys))

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        count = counter(self.params, self)
        requests: list[Request] = []
        without = 0
        for item in items(path):
            texts = {}
            for name in ("instruction", *_MORE, *_ANSWERS):
                value = item.value.get(name)
                if value is not None and not isinstance(value, str):
                    item.fail(name, "must be a text", value)
                texts[name] = value or ""
            asked, more = texts["instruction"], texts["input"] or texts["context"]
            if self.params.template == "alpaca":
                prompt = _ALPACA[bool(more)].format(instruction=asked, more=more)
            else:
                prompt = f"{asked}\n{more}" if more else asked
            tokens, answer = count(prompt), count(texts["output"] or texts["response"])
            if not tokens:
                item.fail("instruction", "must be a text", item.value.get("instruction"))
            if not answer:
                without += 1
                continue
            requests.append(Request(0.0, tokens, answer, -1, ((content.RECORDED + number_of(prompt), 0, tokens),)))
        if without:
            self.note(f"{path.name}: {without:,} rows without an answer are left out")
        if not requests:
            raise DataError(str(path), "has no row with an answer")
        return block_of(requests, sort=False)
