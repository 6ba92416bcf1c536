"""LLMServingSim workloads: JSON lines, single requests or sessions of dependent ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from sim.document import Table, loads
from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace, TurnParams
from sim.workload.traces._columns import numbers, tokens
from sim.workload.traces._json import Fields, json_pieces
from sim.workload.traces._objects import Item, items
from sim.workload.traces._source import Source
from sim.workload.traces._turns import Request, Span, block_of

_MORE = frozenset(("sub_requests", "input_tok_ids"))


class LlmServingSimParams(TurnParams):
    """Settings of an LLMServingSim workload."""

    block_tokens: int = Field(
        default=16, ge=1, description="where token ids are given prompts are compared in blocks of so many tokens"
    )


@register("trace")
class LlmServingSim(Trace):
    """``{input_toks, output_toks, arrival_time_ns[, input_tok_ids]}`` or ``{session_id, arrival_time_ns, sub_requests: [{input_toks, output_toks,
    tool_duration_ns}]}``, one a line.

    Token ids give shared prefixes. The sub-requests of a session wait for each other (``settings.delays``).

    *Source*: casys-kaist/LLMServingSim, workloads.
    """

    name = "llmservingsim"
    Params: ClassVar[type[Params]] = LlmServingSimParams
    params: LlmServingSimParams
    holds = frozenset(("times",))

    def fits(self, head: Head) -> bool:
        """Its key of times."""
        return "arrival_time_ns" in head.keys and head.kind in ("json", "jsonl")

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One object a request, without token ids."""
        names = ("input_toks", "output_toks", "arrival_time_ns")
        at = np.round(block.arrival_s * 1e9).astype(np.int64).tolist()
        columns = zip(block.prompt_tokens.tolist(), block.output_tokens.tolist(), at, strict=True)
        return [json.dumps(dict(zip(names, row, strict=True))) for row in columns]

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        plain = _lengths(path)
        if plain is not None:
            return plain
        requests: list[Request] = []
        for number, item in enumerate(items(path)):
            at = item.number("arrival_time_ns", item.value) * 1e-9
            if "sub_requests" in item.value:
                requests += self._session(item, at, number)
            else:
                requests.append(self._one(item, item.value, at, -1, ""))
        return block_of(requests)

    def _session(self, item: Item, at: float, session: int) -> list[Request]:
        parts = item.value["sub_requests"]
        if not isinstance(parts, list) or not all(isinstance(p, Mapping) for p in parts):
            item.fail("sub_requests", "must be a list of objects", parts)
        if len(parts) > 1 and self.params.delays == "ignore":
            why = "requests that wait for a tool have no time stamps of their own"
            raise self.refuse(item.path, "sub_requests", why, "settings.delays: wait or after_arrival")
        waits = self.params.delays == "wait"
        out: list[Request] = []
        tool = 0.0
        for i, part in enumerate(parts):
            at += 0.0 if waits else tool
            out.append(self._one(item, part, at, session, f"sub_requests[{i}]."))
            out[-1].wait = tool if waits and i else None
            tool = item.number("tool_duration_ns", part) * 1e-9 if part.get("tool_duration_ns") is not None else 0.0
        if not waits:
            self.note(f"{item.path.name}: tool times count from the arrival of the request before, not from its answer")
        return out

    def _one(self, item: Item, row: Table, at: float, session: int, where: str) -> Request:
        prompt, output = (item.tokens(key, row, name=where + key) for key in ("input_toks", "output_toks"))
        ids = row.get("input_tok_ids")
        if ids is None:
            return Request(at, prompt, output, session)
        if not isinstance(ids, list) or len(ids) != prompt:
            item.fail(
                f"{where}input_tok_ids",
                f"must be a list of {prompt} token ids",
                f"{len(ids)} ids" if isinstance(ids, list) else ids,
            )
        return Request(at, prompt, output, session, _blocks(ids, self.params.block_tokens))


def _lengths(path: Path) -> RequestBlock | None:
    """A file of single requests without token ids, by columns; None where some row has more, or the first line is no object."""
    try:
        first = loads(next(Source(path).pieces()).data.lstrip().splitlines()[0])
    except ValueError:
        return None
    if not isinstance(first, dict) or _MORE & set(first):
        return None
    parts = []
    for records in json_pieces(path, Fields(("input_toks", "output_toks", "arrival_time_ns"))):
        if records.others & _MORE:
            return None
        source = records.source
        at = numbers(source, records["arrival_time_ns"], "must be a time of at least 0")
        if (at < 0).any():
            source.fail_at(
                int(np.argmax(at < 0)), "arrival_time_ns", float(at[np.argmax(at < 0)]), "must be a time of at least 0"
            )
        parts.append((at * 1e-9, tokens(source, records["input_toks"]), tokens(source, records["output_toks"])))
    at, prompt, output = (np.concatenate(x) for x in zip(*parts, strict=True))
    order = np.argsort(at, kind="stable")
    return RequestBlock.of(at[order] - at[order[0]], prompt[order], output[order])


def _blocks(ids: list[int], size: int) -> tuple[Span, ...]:
    """Spans of token ids: a block's content is named by itself and all before it."""
    out, state = [], hashlib.blake2b(digest_size=8)
    for lo in range(0, len(ids), size):
        state.update(repr(ids[lo : lo + size]).encode())
        number = int.from_bytes(state.digest(), "big") % content.NUMBERS
        out.append((content.RECORDED + number, 0, min(size, len(ids) - lo)))
    return tuple(out)
