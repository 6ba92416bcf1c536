"""Conversations as text: ShareGPT, LMSYS-Chat-1M, WildChat, and message lists of the OpenAI form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.errors import DataError
from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import is_parquet
from sim.workload.traces._objects import Item, columns
from sim.workload.traces._text import Counter, TextParams, contents, counter, filled, strings
from sim.workload.traces._writing import text as words

if TYPE_CHECKING:
    import pyarrow as pa

_LISTS = ("conversations", "conversation", "messages")
_ANSWERS = ("gpt", "assistant", "model", "bot", "chatgpt", "bing", "bard")
_BATCH = 1 << 14
_WHO, _WHAT = ("from", "role"), ("value", "content")
_ASKS = ("human", "user", "system", "tool", "function")


class ShareGptParams(TextParams):
    """Settings of conversations."""

    turns: Literal["first", "all"] = Field(
        default="first",
        description="first: the first question and its answer, as serving benchmarks sample it; all: every answer, its prompt all that was said before",
    )


@register("trace")
class ShareGpt(Trace):
    """A JSON array, JSON lines or a Parquet file of conversations: ``conversations: [{from, value}]`` (ShareGPT), ``conversation: [{role, content}]`` (LMSYS,
    WildChat) or ``messages``. They have no arrival times.

    Equal messages at the beginning of two conversations (a system prompt) are equal content. Conversations without an answer are left out.
    """

    name = "sharegpt"
    aliases = ("lmsys", "wildchat")
    Params: ClassVar[type[Params]] = ShareGptParams
    params: ShareGptParams
    timed = False
    holds = frozenset(("prefixes",))
    ends_with = ".json"
    opening = "[\n"
    between = ",\n"
    closing = "\n]\n"

    def fits(self, head: Head) -> bool:
        """A list of messages in every object."""
        if head.kind == "parquet":
            return bool(set(_LISTS) & set(head.keys))
        return head.kind in ("json", "jsonl") and any(
            isinstance(head.first.get(k), list) for k in _LISTS if isinstance(head.first, dict)
        )

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """A conversation a request: question and answer of as many common words as they have tokens; what prompts share is a message of its own."""
        off = block.span_off.tolist()
        own = block.out_content.tolist()
        out = []
        for row, (tokens, answer) in enumerate(zip(block.prompt_tokens.tolist(), block.output_tokens.tolist(), strict=True)):
            number = own[row] % content.NUMBERS
            pieces = [tuple(int(x[k]) for x in block.spans[1:]) for k in range(off[row], off[row + 1])]
            asked = [{"from": "human", "value": words(*piece)} for piece in pieces or [(content.PROMPT + number, 0, tokens)]]
            said = {"from": "gpt", "value": words(content.OUTPUT + number, 0, answer)}
            out.append(json.dumps({"id": str(number), "conversations": [*asked, said]}))
        return out

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        count = counter(self.params, self)
        first = without = 0
        found = _parquet(path) if is_parquet(path) else columns(path, _fields(), _from_table, _from_items)
        for number, said in found:
            block, silent = self._block(said, count, number, first)
            first, without = first + len(block), without + silent
            if len(block):
                yield block
        if without:
            self.note(f"{path.name}: {without:,} conversations without an answer are left out")
        if not first:
            raise DataError(str(path), "has no conversation with an answer")

    def _block(self, said: Messages, count: Counter, number: int, first: int) -> tuple[RequestBlock, int]:
        """The requests of some conversations, and how many of those have none."""
        import pyarrow as pa

        tokens = count.each(said.texts)
        end = np.cumsum(said.counts)
        begin, talk = end - said.counts, np.repeat(np.arange(len(end)), said.counts)
        asked = ~said.answers & (tokens > 0)
        before = np.concatenate([[0], np.cumsum(asked)])
        row = np.flatnonzero(said.answers & (tokens > 0) & (before[:-1] > before[begin[talk]]))  # an answer to something
        if self.params.turns == "first":
            row = row[np.unique(talk[row], return_index=True)[1]]
        own = content.OUTPUT + first + np.arange(len(row))
        ids = np.zeros(len(asked), np.int64)
        ids[asked] = contents(said.texts.filter(pa.array(asked)))
        if self.params.turns == "all":
            ids[row] = own
        piece = np.flatnonzero(ids)  # all that prompts consist of
        low, high = np.searchsorted(piece, begin[talk[row]]), np.searchsorted(piece, row)
        off = np.concatenate([[0], np.cumsum(high - low)])
        flat = piece[np.arange(off[-1]) + np.repeat(low - off[:-1], high - low)]
        total = np.concatenate([[0], np.cumsum(tokens[piece])])
        block = RequestBlock.of(
            np.zeros(len(row)), total[high] - total[low], tokens[row], first,
            session=talk[row] + number if self.params.turns == "all" else np.full(len(row), -1),
            spans=(off, ids[flat], np.zeros(len(flat), np.int64), tokens[flat]),
        )  # fmt: skip
        return block, len(end) - len(np.unique(talk[row]))


@dataclass(frozen=True)
class Messages:
    """Messages of some conversations, one after the other: how many each has, which are ``answers``, and their ``texts`` (Arrow)."""

    counts: NDArray[np.int64]
    answers: NDArray[np.bool_]
    texts: pa.Array


def _fields() -> pa.Schema:
    import pyarrow as pa

    message = pa.struct([(name, pa.string()) for name in (*_WHO, *_WHAT)])
    return pa.schema([(name, pa.list_(message)) for name in _LISTS])


def _from_table(table: pa.Table) -> Messages | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pc.coalesce(*(table.column(name) for name in _LISTS))
    return _from_lists(lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists)


def _parquet(path: Path) -> Iterator[tuple[int, Messages]]:
    """As `columns`, of the form in which LMSYS-Chat-1M and WildChat are published."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path)
        key = next((name for name in _LISTS if name in file.schema_arrow.names), None)
        if key is None:
            raise DataError(
                str(path), f"has no column {' or '.join(_LISTS)}; its columns: {', '.join(file.schema_arrow.names)[:200]}"
            )
        for batch in file.iter_batches(_BATCH, columns=[key]):
            lists = batch.column(0)
            said = _from_lists(lists) if pa.types.is_list(lists.type) and pa.types.is_struct(lists.type.value_type) else None
            if said is None:
                where = f"rows {number + 1} to {number + len(lists)}, column {key!r}"
                raise DataError(
                    str(path), f"{where}: must be lists of messages with one of {', '.join((*_ASKS[:3], *_ANSWERS[:2]))}"
                )
            yield number, said
            number += len(lists)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"is not a Parquet file ({error})") from None


def _from_lists(lists: pa.ListArray) -> Messages | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = lists.flatten()
    here = {
        field.name: flat.field(field.name)
        for field in flat.type
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    }
    if not (set(_WHO) & set(here) and set(_WHAT) & set(here)):
        return None
    who, what = (pc.coalesce(*(here[name] for name in names if name in here)) for names in (_WHO, _WHAT))
    roles = pc.dictionary_encode(who)
    known = [role.lower() in _ANSWERS for role in roles.dictionary.to_pylist()]
    if lists.null_count or flat.null_count or who.null_count or _wrong(roles.dictionary.to_pylist()):
        return None
    counts = np.asarray(pc.list_value_length(lists), np.int64)
    return Messages(counts, np.array(known, bool)[np.asarray(roles.indices)], filled(what))


def _wrong(roles: list[str]) -> bool:
    return any(role.lower() not in (*_ANSWERS, *_ASKS) for role in roles)


def _from_items(some: list[Item]) -> Messages:
    talks = [_messages(item) for item in some]
    flat = [message for talk in talks for message in talk]
    counts = np.array([len(talk) for talk in talks], np.int64)
    return Messages(counts, np.array([role in _ANSWERS for role, _ in flat], bool), strings([text for _, text in flat]))


def _messages(item: Item) -> list[tuple[str, str]]:
    key = next((k for k in _LISTS if item.value.get(k) is not None), None)
    if key is None:
        item.fail("conversations", "is missing", list(item.value)[:5])
    found = item.value[key]
    if not isinstance(found, list):
        item.fail(key, "must be a list of messages", found)
    out = []
    for i, message in enumerate(found):
        if not isinstance(message, Mapping):
            item.fail(f"{key}[{i}]", "must be an object", message)
        by, said = (next((k for k in names if message.get(k) is not None), names[-1]) for names in (_WHO, _WHAT))
        role, text = message.get(by), message.get(said)
        if not isinstance(role, str) or _wrong([role]):
            item.fail(f"{key}[{i}].{by}", f"must be one of {', '.join((*_ASKS[:3], *_ANSWERS[:2]))}", role)
        if isinstance(text, list):  # parts of the OpenAI form
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, Mapping))
        if text is not None and not isinstance(text, str):
            item.fail(f"{key}[{i}].{said}", "must be text", text)
        out.append((role.lower(), text or ""))
    return out
