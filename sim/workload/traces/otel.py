"""OpenTelemetry traces of LLM calls: spans with the ``gen_ai`` attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sim.errors import DataError
from sim.registry import register
from sim.workload.table import MAX_TOKENS, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import labels
from sim.workload.traces._json import Item, items
from sim.workload.traces._turns import Request, block_of

_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime", "start_time_ns")


@register("trace")
class Otel(Trace):
    """OTLP JSON (``resourceSpans``), a span a line, or objects with a list ``spans``; a call is a span with ``gen_ai.usage`` tokens.

    Spans of one trace id are one session. Spans without token counts (tools, agents) are left out; calls of 0 output tokens too.

    *Source*: OpenTelemetry semantic conventions for generative AI; inference-perf and guidellm, OTel replay.
    """

    name = "otel"
    aliases = ("opentelemetry",)

    def fits(self, head: Head) -> bool:
        """Its keys."""
        names = set(head.keys)
        return head.kind in ("json", "jsonl") and bool(
            names & {"resourceSpans", "resource_spans", "spans"} or ("attributes" in names and names & set(_STARTS))
        )

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        requests: list[Request] = []
        others = silent = 0
        traces: list[Any] = []
        for item in items(path):
            for where, span in _spans(item):
                attributes = _attributes(span)
                prompt = next((attributes[k] for k in _INPUT if k in attributes), None)
                if prompt is None:
                    others += 1
                    continue
                output = next((attributes[k] for k in _OUTPUT if k in attributes), None)
                counts = [_count(item, f"{where}.attributes.{k}", v) for k, v in ((_INPUT[0], prompt), (_OUTPUT[0], output))]
                if counts[1] < 1 or counts[0] < 1:
                    silent += 1
                    continue
                requests.append(Request(_start(item, where, span), counts[0], counts[1]))
                traces.append(span.get("traceId") or span.get("trace_id") or item.value.get("trace_id"))
        if not requests:
            raise DataError(str(path), f"has no span with {_INPUT[0]} and {_OUTPUT[0]}")
        for request, session in zip(requests, labels(traces), strict=True):
            request.session = int(session)
        if others:
            self.note(f"{path.name}: {others:,} spans without token counts are left out")
        if silent:
            self.note(f"{path.name}: {silent:,} calls without prompt or output tokens are left out")
        return block_of(requests)


def _spans(item: Item) -> Iterator[tuple[str, Mapping[str, Any]]]:
    value = item.value
    groups = value.get("resourceSpans", value.get("resource_spans"))
    if groups is None and "spans" not in value:
        yield "span", value
        return
    found: list[Any] = [("spans", value.get("spans"))] if groups is None else []
    if groups is not None and not isinstance(groups, list):
        item.fail("resourceSpans", "must be a list", groups)
    for i, group in enumerate(groups or []):
        scopes: Any = group.get("scopeSpans", group.get("scope_spans", [])) if isinstance(group, Mapping) else []
        if not isinstance(scopes, list):
            item.fail(f"resourceSpans[{i}].scopeSpans", "must be a list", scopes)
        found += [
            (f"resourceSpans[{i}].scopeSpans[{j}].spans", s.get("spans")) for j, s in enumerate(scopes) if isinstance(s, Mapping)
        ]
    for where, spans in found:
        if not isinstance(spans, list):
            item.fail(where, "must be a list", spans)
        for k, span in enumerate(spans):
            if not isinstance(span, Mapping):
                item.fail(f"{where}[{k}]", "must be an object", span)
            yield f"{where}[{k}]", span


def _attributes(span: Mapping[str, object]) -> dict[str, Any]:
    found = span.get("attributes") or {}
    if isinstance(found, Mapping):
        return dict(found)
    out = {}
    for pair in found if isinstance(found, list) else ():
        if isinstance(pair, Mapping) and isinstance(pair.get("value"), Mapping):
            out[str(pair.get("key"))] = next(iter(pair["value"].values()), None)
    return out


def _count(item: Item, name: str, value: Any) -> int:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        item.fail(name, "must be a number of tokens", value)
    if not (0 <= found <= MAX_TOKENS) or found != int(found):
        item.fail(name, "must be a whole number of tokens", value)
    return int(found)


def _start(item: Item, where: str, span: Mapping[str, Any]) -> float:
    key = next((k for k in _STARTS if span.get(k) is not None), None)
    if key is None:
        item.fail(f"{where}.{_STARTS[0]}", "is missing")
    value = span[key]
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        try:
            return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        except ValueError:
            item.fail(f"{where}.{key}", "must be a time", value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        item.fail(f"{where}.{key}", "must be a time", value)
    if not 0 <= number < 1e20:
        item.fail(f"{where}.{key}", "must be a time of at least 0", value)
    scale = (
        1e-9
        if "nano" in key.lower() or key.endswith("_ns") or number > 1e16
        else 1e-6
        if number > 1e13
        else 1e-3
        if number > 1e11
        else 1.0
    )
    return number * scale
