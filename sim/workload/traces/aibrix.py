"""AIBrix workloads: JSON lines of time stamps, each with the requests that are sent then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sim.document import Table
from sim.errors import DataError
from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import labels, number_of
from sim.workload.traces._objects import Item, items
from sim.workload.traces._text import Counter, TextParams, counter
from sim.workload.traces._turns import Request, by_arrival, gathered

if TYPE_CHECKING:
    from sim.document import Json

_USED = frozenset(("prompt", "prompt_length", "output_length", "session_id"))


class AibrixParams(TextParams):
    """Settings of an AIBrix workload."""

    output_tokens: int = Field(
        default=128,
        ge=1,
        le=MAX_TOKENS,
        description="output tokens where output_length is null (the client's --output-token-limit)",
    )


@register("trace")
class Aibrix(Trace):
    """``{"timestamp": ms, "requests": [{prompt, prompt_length, output_length, session_id}]}``, one time stamp a line.

    Equal prompts are equal content; lengths are those of the file, tokens of the text where it has none.

    *Source*: vllm-project/aibrix, benchmarks/generator/workload_generator/README.md; time stamps in ms by benchmarks/client/README.md.
    """

    name = "aibrix"
    Params: ClassVar[type[Params]] = AibrixParams
    params: AibrixParams

    def fits(self, head: Head) -> bool:
        """A time stamp with a list of requests."""
        first = head.first if isinstance(head.first, Mapping) else {}
        return head.kind in ("json", "jsonl") and "timestamp" in first and isinstance(first.get("requests"), list)

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        made = gathered(self._requests(path))
        if not len(made):
            raise DataError(str(path), "has no requests")
        return by_arrival(made)

    def _requests(self, path: Path) -> Iterator[Request]:
        count = counter(self.params, self)
        for item in items(path):
            at = item.number("timestamp", item.value) * 1e-3
            rows = item.value.get("requests")
            if not isinstance(rows, list):
                item.fail("requests", "must be a list", rows)
            for i, row in enumerate(rows):
                if not isinstance(row, Mapping):
                    item.fail(f"requests[{i}]", "must be an object", row)
                yield self._one(item, row, at, f"requests[{i}].", count)

    def _one(self, item: Item, row: Mapping[str, Json], at: float, where: str, count: Counter) -> Request:
        self.unused(item.path, set(row) - _USED)
        text = row.get("prompt")
        if text is not None and not isinstance(text, str):
            item.fail(where + "prompt", "must be a text", text)
        prompt = self._tokens(item, row, "prompt_length", where)
        if prompt is None:
            prompt = count(text) if text else 0
            if not prompt:
                item.fail(where + "prompt_length", "must be a number where there is no prompt", row.get("prompt_length"))
        output = self._tokens(item, row, "output_length", where)
        if output is None:
            self.note(f"answers have {self.params.output_tokens} tokens where output_length is null (settings.output_tokens)")
            output = int(self.params.output_tokens)
        session = -1 if row.get("session_id") is None else int(labels([row["session_id"]])[0])
        return Request(at, prompt, output, session, ((content.RECORDED + number_of(text), 0, prompt),) if text else ())

    def _tokens(self, item: Item, row: Table, key: str, where: str) -> int | None:
        return None if row.get(key) is None else item.tokens(key, row, name=where + key)
