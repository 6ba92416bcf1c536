"""Agentic traces of the Weka form: one conversation an object, requests with hash ids of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from sim.errors import DataError
from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import number_of
from sim.workload.traces._objects import Item, items
from sim.workload.traces._turns import Request, Span, by_arrival, gathered


class WekaParams(Params):
    """Settings of an agentic trace."""

    block_tokens: int | None = Field(
        default=None, ge=1, description="tokens of one hash id; default: the file's block_size, else 64"
    )
    together: bool = Field(
        default=False,
        description="all conversations begin at time 0; else the traffic says when they begin, unless there is one only",
    )


@register("trace")
class Weka(Trace):
    """Objects ``{id, block_size, requests: [{t, type, in, out, hash_ids, api_time}]}``, as JSON, an array or JSON lines; ``t`` in s of the conversation.

    Hash ids are of their conversation only. A request arrives at its ``t``, whether the one before has been answered or not. Groups of
    sub-agents (``type: subagent``) are played at their own times when they carry requests.

    *Source*: callanjfox/agentic-coding-analysis and its readers in guidellm and BLIS.
    """

    name = "weka"
    aliases = ("agentx",)
    Params: ClassVar[type[Params]] = WekaParams
    params: WekaParams

    def fits(self, head: Head) -> bool:
        """A list of requests with ``t`` and ``in``."""
        requests = head.first.get("requests") if isinstance(head.first, dict) else None
        return isinstance(requests, list) and bool(requests) and isinstance(requests[0], dict) and {"t", "in"} <= set(requests[0])

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        made = gathered(self._every(path))
        if not len(made):
            raise DataError(str(path), "has no requests")
        self.note(f"{path.name}: a turn arrives at its recorded time, whether the one before has been answered or not")
        self.timed = self.params.together or not made.session.any()
        if self.timed:
            return by_arrival(made)
        made.arrival_s = made.arrival_s - made.arrival_s[0]
        return made

    def _every(self, path: Path) -> Iterator[Request]:
        for talk, item in enumerate(items(path)):
            rows = item.value.get("requests")
            if not isinstance(rows, list):
                item.fail("requests", "must be a list", rows)
            block = self._block(item)
            for i, row in enumerate(rows):
                yield from self._requests(item, row, f"requests[{i}]", talk, block)

    def starts(self, block: RequestBlock, times: object) -> RequestBlock:
        """The block when conversation k begins at ``times[k]``; its requests keep their times within it."""
        talk = np.unique(block.session, return_inverse=True)[1]
        block.arrival_s = block.arrival_s + np.asarray(times)[talk]
        return block

    def beginnings(self, block: RequestBlock) -> int:
        """Conversations."""
        return len(np.unique(block.session))

    def _block(self, item: Item) -> int:
        if self.params.block_tokens is not None:
            return int(self.params.block_tokens)
        return int(item.number("block_size", item.value, 1)) if item.value.get("block_size") is not None else 64

    def _requests(self, item: Item, row: object, where: str, talk: int, block: int) -> list[Request]:
        if not isinstance(row, Mapping):
            item.fail(where, "must be an object", row)
        if row.get("type") == "subagent":
            inner = row.get("requests")
            if not isinstance(inner, list):
                self.note(f"{item.path.name}: groups of sub-agents without requests are left out")
                return []
            return [r for i, x in enumerate(inner) for r in self._requests(item, x, f"{where}.requests[{i}]", talk, block)]
        at = item.number("t", row, name=f"{where}.t")
        prompt, output = (item.tokens(key, row, low, f"{where}.{key}") for key, low in (("in", 1), ("out", 0)))
        if output == 0:
            self.note(f"{item.path.name}: requests with out 0 have no answer and are left out")
            return []
        return [Request(at, prompt, output, talk, self._spans(item, row, where, prompt, block))]

    def _spans(self, item: Item, row: Mapping[str, object], where: str, prompt: int, block: int) -> tuple[Span, ...]:
        ids = row.get("hash_ids") or []
        if not isinstance(ids, list) or not all(type(x) is int or isinstance(x, str) for x in ids):
            item.fail(f"{where}.hash_ids", "must be a list of ids", ids)
        if not ids:
            return ()
        need = -(-prompt // block)
        if len(ids) > need:
            item.fail(
                f"{where}.hash_ids", f"a prompt of {prompt} tokens has at most {need} blocks of {block} tokens", f"{len(ids)} ids"
            )
        own = str(item.value.get("id", item.place))
        spans = [(content.RECORDED + number_of(f"{own}/{x}"), 0, block) for x in ids]
        spans[-1] = (spans[-1][0], 0, min(block, prompt - (len(ids) - 1) * block))
        rest = prompt - sum(s[2] for s in spans)
        return (*spans, (content.RECORDED + number_of(f"{own}/{where}"), 0, rest)) if rest > 0 else tuple(spans)
