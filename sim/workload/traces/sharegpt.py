"""Conversations as text: ShareGPT, LMSYS-Chat-1M, WildChat, and message lists of the OpenAI form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sim.errors import DataError
from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import number_of
from sim.workload.traces._json import Item, items
from sim.workload.traces._text import TextParams, counter
from sim.workload.traces._turns import Request, Talk, block_of
from sim.workload.traces._writing import text as words

_LISTS = ("conversations", "conversation", "messages")
_ANSWERS = ("gpt", "assistant", "model", "bot", "chatgpt", "bing", "bard")
_ASKS = ("human", "user", "system", "tool", "function")


class ShareGptParams(TextParams):
    """Settings of conversations."""

    turns: Literal["first", "all"] = Field(
        default="first",
        description="first: the first question and its answer, as serving benchmarks sample it; all: every answer, its prompt all that was said before",
    )


@register("trace")
class ShareGpt(Trace):
    """A JSON array or JSON lines of conversations: ``conversations: [{from, value}]`` (ShareGPT), ``conversation: [{role, content}]`` (LMSYS,
    WildChat) or ``messages``. They have no arrival times.

    Equal messages at the beginning of two conversations (a system prompt) are equal content. Conversations without an answer are left out.
    """

    name = "sharegpt"
    aliases = ("lmsys", "wildchat")
    Params: ClassVar[type[Params]] = ShareGptParams
    timed = False
    holds = frozenset(("prefixes",))
    ends_with = ".json"
    opening = "[\n"
    between = ",\n"
    closing = "\n]\n"

    def fits(self, head: Head) -> bool:
        """A list of messages in every object."""
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

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        count = counter(self.params, self)
        requests: list[Request] = []
        without = 0
        for number, item in enumerate(items(path)):
            found = self._turns(item, number, count, len(requests))
            without += not found
            requests += found
        if without:
            self.note(f"{path.name}: {without:,} conversations without an answer are left out")
        if not requests:
            raise DataError(str(path), "has no conversation with an answer")
        return block_of(requests, sort=False)

    def _turns(self, item: Item, session: int, count: Any, first: int) -> list[Request]:
        talk = Talk()
        out: list[Request] = []
        for role, text in _messages(item):
            tokens = count(text)
            if role not in _ANSWERS:
                talk.add(content.RECORDED + number_of(text), tokens)
            elif tokens and talk.tokens:
                own = content.OUTPUT + first + len(out)
                out.append(
                    Request(0.0, talk.tokens, tokens, session if self.params.turns == "all" else -1, tuple(talk.said), own)
                )
                if self.params.turns == "first":
                    break
                talk.add(own, tokens)
        return out


def _messages(item: Item) -> list[tuple[str, str]]:
    key = next((k for k in _LISTS if k in item.value), None)
    if key is None:
        item.fail("conversations", "is missing", list(item.value)[:5])
    found = item.value[key]
    if not isinstance(found, list):
        item.fail(key, "must be a list of messages", found)
    out = []
    for i, message in enumerate(found):
        if not isinstance(message, Mapping):
            item.fail(f"{key}[{i}]", "must be an object", message)
        role, text = message.get("from", message.get("role")), message.get("value", message.get("content"))
        if not isinstance(role, str) or role.lower() not in (*_ANSWERS, *_ASKS):
            item.fail(
                f"{key}[{i}].{'from' if 'from' in message else 'role'}",
                f"must be one of {', '.join((*_ASKS[:3], *_ANSWERS[:2]))}",
                role,
            )
        if isinstance(text, list):  # parts of the OpenAI form
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, Mapping))
        if text is not None and not isinstance(text, str):
            item.fail(f"{key}[{i}].{'value' if 'value' in message else 'content'}", "must be text", text)
        out.append((role.lower(), text or ""))
    return out
