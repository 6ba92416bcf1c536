"""Input files of the OpenAI Batch API: requests without times, for an offline run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from sim.errors import NotModelledError
from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import number_of
from sim.workload.traces._objects import Item, items
from sim.workload.traces._text import Counter, TextParams, counter
from sim.workload.traces._turns import Request, Span, gathered

_ENDPOINTS = ("/v1/chat/completions", "/v1/completions")
_LIMITS = ("max_completion_tokens", "max_tokens")


class OpenAiBatchParams(TextParams):
    """Settings of a batch file: answers are not in it."""

    output_tokens: int = Field(default=256, ge=1, le=MAX_TOKENS, description="tokens of an answer; a request's limit cuts it")


@register("trace")
class OpenAiBatch(Trace):
    """``{"custom_id", "method", "url", "body": {"model", "messages" | "prompt", "max_tokens"}}``, one request a line, as ``vllm run-batch`` reads.

    The file has no answers: each has ``settings.output_tokens``, or the request's ``max_tokens`` where that is fewer. Equal messages at the
    beginning of two requests are equal content. Images and audio in messages are refused.

    *Source*: OpenAI, Batch API reference, request input object; vLLM, vllm/entrypoints/openai/run_batch.py.
    """

    name = "openai-batch"
    Params: ClassVar[type[Params]] = OpenAiBatchParams
    params: OpenAiBatchParams
    timed = False

    def fits(self, head: Head) -> bool:
        """A body and a url in each line."""
        return head.kind in ("json", "jsonl") and {"body", "url"} <= set(head.keys)

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        count = counter(self.params, self)
        made = gathered(self._one(item, count) for item in items(path))
        self.note(
            f"{path.name} has no answers: they have {self.params.output_tokens} tokens, or max_tokens where that is fewer (settings.output_tokens)"
        )
        return made

    def _one(self, item: Item, count: Counter) -> Request:
        url, body = item.value.get("url"), item.value.get("body")
        if url not in _ENDPOINTS:
            raise NotModelledError("traffic.trace.path", str(item.path), f"{item.place} calls {url!r}", ", ".join(_ENDPOINTS))
        if not isinstance(body, Mapping):
            item.fail("body", "must be an object", body)
        spans: list[Span] = []
        for text in self._texts(item, body):
            tokens = count(text)
            if tokens:
                spans.append((content.RECORDED + number_of(text), 0, tokens))
        if not spans:
            item.fail("body.messages", "has no text", None)
        key = next((k for k in _LIMITS if body.get(k) is not None), None)
        limit = MAX_TOKENS if key is None else int(item.number(key, body, 1, f"body.{key}"))
        return Request(0.0, sum(s[2] for s in spans), min(int(self.params.output_tokens), limit), -1, tuple(spans))

    def _texts(self, item: Item, body: Mapping[str, object]) -> list[str]:
        if "prompt" in body:
            if not isinstance(body["prompt"], str):
                item.fail("body.prompt", "must be one text", body["prompt"])
            return [body["prompt"]]
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
            item.fail("body.messages", "must be a list of messages", messages)
        out = []
        for i, message in enumerate(messages):
            parts = message.get("content")
            parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts or []
            for part in parts:
                kind = part.get("type") if isinstance(part, Mapping) else None
                if kind != "text":
                    raise NotModelledError(
                        "traffic.trace.path",
                        str(item.path),
                        f"{item.place}, message {i}: a part of type {kind!r} is not modelled",
                        "text",
                    )
                out.append(str(part.get("text") or ""))
        return out
