"""aiperf: ``profile_export.jsonl`` (a record a request) and ``profile_export_aiperf.json`` (aggregates)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sim.document import Json
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._nvidia import UNITS, aggregate, sent
from sim.study.bench._run import Requests, Run, of_requests, refusal
from sim.study.bench._sent import Sent
from sim.study.bench._talks import talks_of

_CANCELLED = 499  # the code aiperf gives to a request that it cancelled itself


@register("bench")
class AiPerf(Bench):
    """Per request: ``metadata{request_start_ns, request_end_ns, was_cancelled, benchmark_phase}``, ``metrics{time_to_first_token, request_latency,
    input_sequence_length, output_sequence_length}`` with units, ``error``. Warm-up requests are left out, cancelled ones count in nothing.
    Requests of one ``conversation_id`` continue each other in the order of ``turn_index``. ``inter_token_latency`` is TPOT. Concurrency is taken
    from ``profile_export_aiperf.json`` beside it; without one requests are sent when they were.
    Its first form (0.1) is read too: ``metadata{timestamp_ns, credit_phase}``, ``metrics{ttft}``, aggregates under ``records``; it has no
    ``was_cancelled``, and its cancelled requests (code 499) are errors.

    Source: aiperf, docs/metrics_reference.md, working-with-profile-exports.md.
    """

    name = "aiperf"
    title = "aiperf profile_export.jsonl or profile_export_aiperf.json"
    beside = ("profile_export_aiperf.*", "inputs.json", "*_timeslices.*", "*server_metrics*", "*gpu_telemetry*")

    def fits(self, document: Document) -> bool:
        """By its record, or by an aggregate with its own input_config."""
        head = document.first
        if (
            "metadata" in head
            and "metrics" in head
            and isinstance(head["metadata"], Mapping)
            and not {"request_start_ns", "timestamp_ns"}.isdisjoint(head["metadata"])
        ):
            return True
        told = head.get("records") if isinstance(head.get("records"), Mapping) else head
        latency = told.get("request_latency") if isinstance(told, Mapping) else None
        return "aiperf" in document.path.name and isinstance(latency, Mapping) and "unit" in latency

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        if "metadata" not in document.first:
            yield aggregate(self.name, _first_form(document), document.path.name)
            return
        yield self._records(document)

    def _records(self, document: Document) -> Run:
        rows: dict[str, list[float]] = {k: [] for k in ("start", "prompt", "output", "ttft", "e2e")}
        ok, cancelled, errors = [], [], []
        talks: list[tuple[Json, Json]] = []
        for number, record in enumerate(document.records, 1):
            keys = Keys(document.path, record, f"[{number}]")
            about, metrics = keys.sub("metadata"), keys.sub("metrics")
            if (about.text("benchmark_phase") or about.text("credit_phase")) not in (None, "profiling"):
                continue
            start = "timestamp_ns" if "request_start_ns" not in about and "timestamp_ns" in about else "request_start_ns"
            about.needed(start)
            rows["start"].append((about.number(start) or 0.0) * 1e-9)
            for ours, theirs in (("prompt", "input_sequence_length"), ("output", "output_sequence_length")):
                rows[ours].append(_value(metrics, theirs, None) or 0.0)
            first = "ttft" if "ttft" in metrics else "time_to_first_token"
            for ours, theirs in (("ttft", first), ("e2e", "request_latency")):
                found = _value(metrics, theirs, UNITS)
                rows[ours].append(np.nan if found is None else found)
            talks.append((about.raw("conversation_id"), about.number("turn_index")))
            error = keys.raw("error")
            cut = bool(about.raw("was_cancelled")) or (isinstance(error, Mapping) and error.get("code") == _CANCELLED)
            errors.append("" if cut and rows["prompt"][-1] >= 1 else _text(error))
            cancelled.append(cut)
            ok.append(not cut and not error)
        if not ok:
            return refusal(self.name, document.path.name, "has no record of the profiling phase")
        arrays = {k: np.array(v, float) for k, v in rows.items()}
        concurrency, _ = self._config(document)
        cut_off = np.array(cancelled) & (arrays["prompt"] >= 1)
        ids, turns = zip(*talks, strict=True)
        said = talks_of(ids, turns, arrays["start"], arrays["start"] + arrays["e2e"], arrays["prompt"], arrays["output"])
        if said is not None:
            arrays["prompt"] = said.prompt
            concurrency = None if said.pauses else concurrency
        requests = Requests(
            arrays["prompt"],
            arrays["output"],
            arrays["ttft"],
            arrays["e2e"],
            np.array(ok),
            errors=errors,
            cancelled=cut_off,
            talks=said,
        )
        return of_requests(self.name, document.path.name, requests, Sent(start=arrays["start"], concurrency=concurrency))

    def _config(self, document: Document) -> tuple[int | None, float | None]:
        told = document.beside("profile_export_aiperf.json")
        config = told.get("input_config") if isinstance(told, Mapping) else None
        if not isinstance(config, Mapping):
            return None, None
        try:
            concurrency, rate = sent(config)
        except (ValueError, KeyError, TypeError):
            return None, None
        return (None if rate else concurrency), rate


def _text(error: object) -> str:
    return str(error.get("message") or error) if error and isinstance(error, Mapping) else str(error or "")


def _first_form(document: Document) -> Keys:
    """The aggregates of a file, wherever its version puts them."""
    told = document.first.get("records")
    if not isinstance(told, Mapping):
        return document.keys
    renamed = {"time_to_first_token" if k == "ttft" else k: v for k, v in told.items()}
    return Keys(document.path, {**renamed, "input_config": document.first.get("input_config")}, "records")


def _value(metrics: Keys, name: str, units: Mapping[str, float] | None) -> float | None:
    found = metrics.raw(name)
    if found is None:
        return None
    if not isinstance(found, Mapping):  # a plain number: latencies in ms
        plain = metrics.number(name)
        return plain if units is None or plain is None else plain * 1e-3
    one = metrics.sub(name)
    value = one.number("value")
    if value is None or units is None:
        return value
    unit = units.get(str(one.raw("unit") or "ms"))
    if unit is None:
        one.fail("unit", f"must be one of {', '.join(units)}", one.raw("unit"))
    return value * unit
