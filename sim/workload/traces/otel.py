"""OpenTelemetry traces of LLM calls: spans with the ``gen_ai`` attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np

from sim.document import Json, Table
from sim.errors import DataError
from sim.registry import register
from sim.workload.table import MAX_TOKENS, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import labels
from sim.workload.traces._objects import Item, columns, items
from sim.workload.traces._otel_table import INPUT, OUTPUT, STARTS, Calls, nanoseconds, shape_of


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
            names & {"resourceSpans", "resource_spans", "spans"} or ("attributes" in names and names & set(STARTS))
        )

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        found: list[Calls] = []
        others = 0
        shape = shape_of([span for _, span in _spans(next(items(path, 1 << 16)))])
        for _, (calls, without) in columns(path, shape.fields, shape.calls, _from_items):
            found.append(calls)
            others += without
        start, prompt, output, session = (np.concatenate([calls[k] for calls in found]) for k in range(4))
        some = (prompt > 0) & (output > 0)
        if not some.any():
            raise DataError(str(path), f"has no span with {INPUT[0]} and {OUTPUT[0]}")
        if others:
            self.note(f"{path.name}: {others:,} spans without token counts are left out")
        if not some.all():
            self.note(f"{path.name}: {int((~some).sum()):,} calls without prompt or output tokens are left out")
        order = np.flatnonzero(some)[np.argsort(start[some], kind="stable")]
        at = (start[order] - start[order[0]]) * 1e-9
        return RequestBlock.of(at, prompt[order], output[order], session=session[order])


def _from_items(some: list[Item]) -> tuple[Calls, int]:
    others = 0
    rows: list[tuple[int, int, int]] = []
    traces: list[Json] = []
    for item in some:
        for where, span in _spans(item):
            attributes = _attributes(span)
            prompt = next((attributes[k] for k in INPUT if k in attributes), None)
            if prompt is None:
                others += 1
                continue
            output = next((attributes[k] for k in OUTPUT if k in attributes), None)
            counts = [_count(item, f"{where}.attributes.{k}", v) for k, v in ((INPUT[0], prompt), (OUTPUT[0], output))]
            rows.append((_start(item, where, span) if min(counts) > 0 else 0, counts[0], counts[1]))
            traces.append(span.get("traceId") or span.get("trace_id") or item.value.get("trace_id"))
    start, prompts, outputs = np.array(rows, np.int64).reshape(-1, 3).T
    return (start, prompts, outputs, labels(traces)), others


def _spans(item: Item) -> Iterator[tuple[str, Table]]:
    value = item.value
    groups = value.get("resourceSpans", value.get("resource_spans"))
    if groups is None and "spans" not in value:
        yield "span", value
        return
    found: list[tuple[str, Json]] = [("spans", value.get("spans"))] if groups is None else []
    if groups is not None and not isinstance(groups, list):
        item.fail("resourceSpans", "must be a list", groups)
    for i, group in enumerate(groups or []):
        scopes: Json = group.get("scopeSpans", group.get("scope_spans", [])) if isinstance(group, Mapping) else []
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


def _attributes(span: Table) -> dict[str, Json]:
    found = span.get("attributes") or {}
    if isinstance(found, Mapping):
        return dict(found)
    out = {}
    for pair in found if isinstance(found, list) else ():
        if isinstance(pair, Mapping) and isinstance(pair.get("value"), Mapping):
            out[str(pair.get("key"))] = next(iter(pair["value"].values()), None)
    return out


def _count(item: Item, name: str, value: Json) -> int:
    try:
        found = float(cast("str | float", value))  # anything else is refused below
    except (TypeError, ValueError, OverflowError):
        item.fail(name, "must be a number of tokens", value)
    if not (0 <= found <= MAX_TOKENS) or found != int(found):
        item.fail(name, "must be a whole number of tokens", value)
    return int(found)


def _start(item: Item, where: str, span: Table) -> int:
    """Nanoseconds."""
    key = next((k for k in STARTS if span.get(k) is not None), None)
    if key is None:
        item.fail(f"{where}.{STARTS[0]}", "is missing")
    try:
        return int(nanoseconds(key, np.array([span[key]], object))[0])
    except (TypeError, ValueError, OverflowError):
        item.fail(f"{where}.{key}", "must be a time of at least 0", span[key])
