"""BLIS: TraceV2 with measured times, and the JSON of its simulator or observer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np

from sim.errors import DataError
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys, numbers
from sim.study.bench._run import Requests, Run, of_figures, of_requests, refusal
from sim.study.bench._sent import Sent

_FIGURES = {"ttft": "ttft_s", "itl": "itl_s", "e2e": "e2e_s", "tpot": "tpot_s"}
_STATISTICS = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


@register("bench")
class BlisBench(Bench):
    """``blis observe``: the trace's CSV with ``send_time_us, first_chunk_time_us, last_chunk_time_us, status``; or the JSON with ``ttft_mean_ms …``.

    Source: inference-sim, sim/workload/tracev2.go.
    """

    name = "blis"
    title = "BLIS TraceV2 CSV or JSON"

    def fits(self, document: Document) -> bool:
        """By its columns or names."""
        if document.kind == "csv":
            return {"first_chunk_time_us", "last_chunk_time_us", "input_tokens"} <= {c.strip() for c in document.value[0]}
        return "ttft_mean_ms" in document.first and (
            "completed_requests" in document.first or "responses_per_sec" in document.first
        )

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        yield self._table(document) if document.kind == "csv" else self._aggregate(document)

    def _table(self, document: Document) -> Run:
        rows = document.table()

        def column(name: str) -> np.ndarray:
            def fail(i: int, rule: str, value: object) -> NoReturn:
                raise DataError(str(document.path), f"line {i + 2}, column {name!r}: {rule} (got {value!r})")

            values = []
            for i, row in enumerate(rows):
                try:
                    values.append(float(row.get(name) or 0))
                except ValueError:
                    fail(i, "must be a number", row.get(name))
            return numbers(values, fail)

        sent, first, last = (column(f"{n}_time_us") * 1e-6 for n in ("send", "first_chunk", "last_chunk"))
        sent = np.where(sent > 0, sent, column("arrival_time_us") * 1e-6)
        status = [row.get("status", "ok") or "ok" for row in rows]
        ok = np.array([s == "ok" for s in status])
        group = np.array([bool(row.get("prefix_group")) for row in rows])
        server = column("server_input_tokens")
        prompt = np.where((server > 0) & ~group, server, column("input_tokens") + np.where(group, column("prefix_length"), 0))
        if not (first[ok] > 0).any():
            return refusal(
                self.name, document.path.name, "is traffic without measured times (mode: generated): name it as traffic.trace"
            )
        e2e = np.where(last >= sent, last - sent, np.nan)
        ttft = np.where(first >= sent, first - sent, np.nan)
        errors = ["" if s == "ok" else s for s in status]
        requests = Requests(prompt, column("output_tokens"), ttft, e2e, ok, errors=errors)
        return of_requests(self.name, document.path.name, requests, Sent(start=sent))

    def _aggregate(self, document: Document) -> Run:
        keys, name = document.keys, document.path.name
        if "completed_requests" in keys and not keys.count("completed_requests"):
            return refusal(self.name, name, "no request was served: completed_requests 0; that is no operating point")
        measured: dict[str, float] = {}
        for theirs, ours in _FIGURES.items():
            for stat, mine in _STATISTICS.items():
                value = keys.number(f"{theirs}_{stat}_ms")
                if value:
                    measured[f"{ours}.{mine}"] = value * 1e-3
        for theirs, mine in (("responses_per_sec", "requests_per_s"), ("tokens_per_sec", "output_tokens_per_s")):
            value = keys.number(theirs)
            if value:
                measured[mine] = value
        requests = keys.raw("requests")
        if isinstance(requests, list) and requests and isinstance(requests[0], Mapping) and "num_prefill_tokens" in requests[0]:
            return self._requests(document, requests)
        return of_figures(self.name, name, measured, ("what was sent",))

    def _requests(self, document: Document, found: list[Mapping[str, object]]) -> Run:
        rows: dict[str, list[float]] = {k: [] for k in ("start", "prompt", "output", "ttft", "e2e")}
        names = {"start": ("arrived_at", 1.0), "prompt": ("num_prefill_tokens", 1.0), "output": ("num_decode_tokens", 1.0),
                 "ttft": ("ttft_ms", 1e-3), "e2e": ("e2e_ms", 1e-3)}  # fmt: skip
        for i, record in enumerate(found):
            keys = Keys(document.path, record, f"requests[{i}]")
            for ours, (theirs, unit) in names.items():
                value = keys.number(theirs)
                rows[ours].append(np.nan if value is None else value * unit)
        a = {k: np.array(v, float) for k, v in rows.items()}
        ok = np.isfinite(a["e2e"]) & (a["e2e"] > 0)
        requests = Requests(np.nan_to_num(a["prompt"]), np.nan_to_num(a["output"]), a["ttft"], a["e2e"], ok)
        return of_requests(self.name, document.path.name, requests, Sent(start=np.nan_to_num(a["start"])))
