"""A trace for ui.perfetto.dev (or chrome://tracing): every request through gateway, queue, prefill, transfer and decode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.metrics.sections.events import Events
from sim.metrics.sections.kv_tiers import MEDIA, KvTiers
from sim.metrics.sections.links import Links
from sim.registry import register
from sim.report.exports._base import Export
from sim.report.words import extra

if TYPE_CHECKING:
    from sim.document import Json
    from sim.ledger import Values
    from sim.metrics.result import Result

_STAGES: Final = (
    ("gateway", "arrival_s", "taken_s"),
    ("queue", "taken_s", "first_scheduled_s"),
    ("prefill", "first_scheduled_s", "prefill_end_s"),
    ("wait for KV memory", "prefill_end_s", "kv_allocated_s"),
    ("KV transfer", "kv_allocated_s", "kv_arrived_s"),
    ("decode queue", "kv_arrived_s", "decode_start_s"),
    ("decode", "decode_start_s", "finish_s"),
)
_BEFORE: Final = ("earlier attempts", "arrival_s", "sent_s")
_TOGETHER: Final = (*_STAGES[:2], ("prefill", "first_scheduled_s", "first_token_s"), ("decode", "first_token_s", "finish_s"))
_STATUS: Final = ("finished", "rejected", "failed", "in flight at the end")
_GAUGES: Final = {"running": "running", "waiting": "waiting", "kv_use": "KV use"}
_REQUESTS, _EVENTS, _FIRST_REPLICA = 1, 2, 100


@register("export")
class Perfetto(Export):
    """Trace Event JSON, times in µs of the simulation. Process *requests* has one nested slice a request with its stages inside; every replica is
    a process with the prefills and decodes it does and its gauges. Flow arrows join a request's stages across replicas; search for ``request 17``.
    """

    name = "perfetto"
    file = "perfetto.json"

    def text(self, result: Result) -> Iterator[str]:
        """Events, one a line."""
        yield '{"displayTimeUnit":"ms","traceEvents":[\n'
        first = True
        for event in events(result):
            yield ("" if first else ",\n") + json.dumps(event, allow_nan=False, separators=(",", ":"))
            first = False
        yield "\n]}\n"


def events(result: Result) -> Iterator[dict[str, Json]]:
    """All events of a result."""
    yield _named(_REQUESTS, "requests", 0)
    for i, row in enumerate(result.summary.replicas):
        yield _named(_FIRST_REPLICA + i, row.name or f"replica {i}", i + 1)
    c = result.columns
    apart = "prefill_end_s" in c
    for i in range(len(c["id"])):
        stages = _STAGES if apart and np.isfinite(c["prefill_end_s"][i]) else _TOGETHER
        if "sent_s" in c and c["sent_s"][i] > c["arrival_s"][i]:  # the time that counts is not the first
            stages = (_BEFORE, (stages[0][0], "sent_s", stages[0][2]), *stages[1:])
        yield from _request(c, i, stages)
    yield from _counters(result)
    yield from _links(result)
    yield from _tiers(result)
    yield from _happened(result)


def _happened(result: Result) -> Iterator[dict[str, Json]]:
    """Faults, storms, scaling: slices of a process of their own."""
    found = extra(result.summary, Events)
    if found is None:
        return
    yield _named(_EVENTS, "events", -1)
    for k, e in enumerate(found.events):
        here: dict[str, Json] = {"cat": e.kind, "id": k, "pid": _EVENTS, "tid": 1, "name": e.words}
        yield {"ph": "b", "ts": _us(e.start_s), **here}
        yield {"ph": "e", "ts": _us(e.end_s), **here}


def _named(pid: int, name: str, order: int) -> dict[str, Json]:
    return {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name, "sort_index": order}}


def _request(c: Mapping[str, Values], i: int, stages: tuple[tuple[str, str, str], ...]) -> Iterator[dict[str, Json]]:
    number = int(c["id"][i])
    begin = float(c["arrival_s"][i])
    times = [float(c[name][i]) for stage in stages for name in stage[1:] if name in c]
    end = max(t for t in (begin, *times) if np.isfinite(t))
    told = {
        "prompt_tokens": int(c["prompt_tokens"][i]), "output_tokens": int(c["output_tokens"][i]), "cached_tokens": int(c["cached_tokens"][i]),
        "attempts": int(c["attempts"][i]) if "attempts" in c else 1,
        "preemptions": int(c["preemptions"][i]), "status": _STATUS[int(c["status"][i])], "replica": int(c["replica"][i]),
    }  # fmt: skip
    whole: dict[str, Json] = {"cat": "request", "id": number, "pid": _REQUESTS, "tid": 1}
    yield {"ph": "b", "name": f"request {number}", "ts": _us(begin), "args": told, **whole}
    flow: dict[str, Json] = {"cat": "request", "id": number, "name": f"request {number}"}
    on: list[tuple[int, float]] = []
    for stage, start, stop in stages:
        a, b = (float(c[name][i]) if name in c else float("nan") for name in (start, stop))
        if not (np.isfinite(a) and np.isfinite(b)) or b < a:
            continue
        yield {"ph": "b", "name": stage, "ts": _us(a), **whole}
        yield {"ph": "e", "name": stage, "ts": _us(b), **whole}
        if stage in ("prefill", "decode"):
            replica = (
                c["prefill_replica"][i]
                if stage == "prefill" and "prefill_replica" in c and ("decode queue", "kv_arrived_s", "decode_start_s") in stages
                else c["replica"][i]
            )
            pid = _FIRST_REPLICA + max(int(replica), 0)
            here: dict[str, Json] = {"cat": stage, "id": number, "pid": pid, "tid": 1, "name": f"{stage} of request {number}"}
            yield {"ph": "b", "ts": _us(a), **here}
            yield {"ph": "e", "ts": _us(b), **here}
            on.append((pid, a))
    if np.isfinite(c["first_token_s"][i]):
        yield {"ph": "n", "name": "first token", "ts": _us(float(c["first_token_s"][i])), **whole}
    for k, (pid, at) in enumerate(on):
        kind = "s" if k == 0 else "f"
        yield {"ph": kind, "pid": pid, "tid": 1, "ts": _us(at), **flow, **({"bp": "e"} if kind == "f" else {})}
    yield {"ph": "e", "name": f"request {number}", "ts": _us(end), **whole}


def _counters(result: Result) -> Iterator[dict[str, Json]]:
    series = result.series
    if not len(series.get("time_s", ())):
        return
    for ours, title in _GAUGES.items():
        if ours not in series:
            continue
        for at, replica, value in zip(series["time_s"].tolist(), series["replica"].tolist(), series[ours].tolist(), strict=True):
            if np.isfinite(value):
                yield {
                    "ph": "C",
                    "pid": _FIRST_REPLICA + int(replica),
                    "name": title,
                    "ts": _us(at),
                    "args": {title: round(value, 6)},
                }


def _links(result: Result) -> Iterator[dict[str, Json]]:
    """How busy each replica's ports for KV were, beside the replica's other counters."""
    found = extra(result.summary, Links)
    if found is None:
        return
    begins = [at - found.width_s / 2 for at in found.time_s]
    for port in found.ports:
        for at, share in zip([*begins, begins[-1] + found.width_s], [*port.busy_share, 0.0], strict=True):
            yield {
                "ph": "C",
                "pid": _FIRST_REPLICA + port.replica,
                "name": "KV link busy",
                "ts": _us(at),
                "args": {"KV link busy": round(share, 6)},
            }


def _tiers(result: Result) -> Iterator[dict[str, Json]]:
    """What media beyond the accelerators hold and give back: counters beside the events."""
    found = extra(result.summary, KvTiers)
    series = found.series if found is not None else None
    if series is None:
        return
    begins = [k * series.width_s for k in range(len(series.time_s))]
    for tier in series.tiers:
        for values, words in ((tier.hit_tokens_per_s, "tokens found per second"), (tier.used, "in use")):
            name = f"KV in {MEDIA[tier.name]}: {words}"
            for at, value in zip(begins, values, strict=True):
                yield {"ph": "C", "pid": _EVENTS, "name": name, "ts": _us(at), "args": {name: round(value, 6)}}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
