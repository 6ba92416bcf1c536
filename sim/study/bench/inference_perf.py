"""inference-perf: ``stage_N_lifecycle_metrics.json``, ``summary_…``, ``per_request_lifecycle_metrics.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sim.document import at
from sim.errors import DataError
from sim.profile_files import read_mapping
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Requests, Run, of_aggregates, of_figures, of_requests, refusal
from sim.study.bench._sent import Sent

_FIGURES = {
    "time_to_first_token": "ttft_s",
    "time_per_output_token": "tpot_s",
    "inter_token_latency": "itl_s",
    "request_latency": "e2e_s",
}
_STATISTICS = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


_BEHIND = 0.9  # a random arrival process alone ends within some per cent of its rate


def _rate(load: Keys) -> tuple[float | None, tuple[str, ...]]:
    """Requests per second that were really sent: those asked for unless the client fell behind, which is said."""
    asked, sent = load.number("requested_rate"), load.number("achieved_rate")
    if asked and sent and sent < _BEHIND * asked:
        return sent, (f"the client sent {sent:.4g} requests/s where {asked:.4g}/s were asked for: those it sent are simulated",)
    return asked or sent, ()


@register("bench")
class InferencePerf(Bench):
    """A stage: ``load_summary{requested_rate}``, ``successes{count, latency, throughput, prompt_len, output_len}``, ``failures``; all in s.

    Where the client fell behind its plan (``achieved_rate`` below 0.9 of it) requests come at the rate at which they were sent.

    Stages of a folder are read one by one and its summary is left aside; records of requests are read where they were saved.

    Source: kubernetes-sigs/inference-perf, docs/reports.md.
    """

    name = "inference-perf"
    title = "inference-perf stage_N or per_request_lifecycle_metrics.json"
    beside = (
        "summary_lifecycle_metrics.json",
        "config.yaml",
        "summary_prometheus_metrics.json",
        "stage_*_prometheus_metrics.json",
        "*session*.json",
    )

    def fits(self, document: Document) -> bool:
        """By its successes and failures, or by its records."""
        head = document.first
        if isinstance(head.get("successes"), Mapping) and "failures" in head:
            return True
        return {"start_time", "end_time"} <= set(head) and isinstance(head.get("info"), Mapping)

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        yield self._stage(document) if "successes" in document.first else self._records(document)

    def _stage(self, document: Document) -> Run:
        name, keys = document.path.name, document.keys
        done, load = keys.sub("successes"), keys.sub("load_summary")
        count, failed = done.count("count") or 0, keys.sub("failures").count("count") or 0
        if not count:
            return refusal(self.name, name, f"no request was served: {failed} of {failed} failed; that is no operating point")
        if "latency" not in done:
            return refusal(
                self.name, name, "is of the server's own metrics: what clients saw is in the lifecycle_metrics.json beside it"
            )
        measured: dict[str, float] = {}
        for theirs, ours in _FIGURES.items():
            figure = done.sub("latency").sub(theirs)
            measured |= {f"{ours}.{mine}": v for stat, mine in _STATISTICS.items() if (v := figure.number(stat))}
        rates = done.sub("throughput")
        for theirs, mine in (("requests_per_sec", "requests_per_s"), ("output_tokens_per_sec", "output_tokens_per_s")):
            value = rates.number(theirs)
            if value:
                measured[mine] = value
        lengths = [done.sub(k).number("mean") for k in ("prompt_len", "output_len")]
        if not lengths[0] or not lengths[1]:
            lengths = [done.sub(k).number("mean") for k in ("prompt_tokens", "output_tokens")]
        rate, behind = _rate(load)
        concurrency = load.count("concurrency")
        lacks = [
            t
            for t, x in (("how long prompts were (prompt_len)", lengths[0]), ("how long answers were (output_len)", lengths[1]))
            if not x
        ]
        if not rate and not concurrency:
            lacks.append("how requests were sent (load_summary.requested_rate)")
        if lacks:
            return of_figures(self.name, name, measured, lacks)
        measured, odd = _of_tokens(measured, lengths[1] or 0.0)
        kind = self._load_type(document)
        notes: tuple[str, ...] = (
            () if kind else ("requests taken as Poisson arrivals: load.type is in config.yaml, which is not beside the file",)
        )
        sent = Sent(rate=rate, constant=kind == "constant", concurrency=concurrency if concurrency and not rate else None)
        return of_aggregates(
            self.name,
            name,
            requests=count,
            prompt=lengths[0] or 0,
            output=lengths[1] or 0,
            measured=measured,
            sent=sent,
            failed=failed,
            notes=(*notes, *behind, *odd),
        )

    def _load_type(self, document: Document) -> str:
        try:
            told = read_mapping(document.path.with_name("config.yaml"), "the configuration of inference-perf")
        except DataError:
            return ""
        return str(at(told, "load.type") or "").lower()

    def _records(self, document: Document) -> Run:
        rows: dict[str, list[float]] = {k: [] for k in ("start", "prompt", "output", "ttft", "e2e")}
        errors, gaps = [], []
        chunks = tokens = 0
        for number, record in enumerate(document.records, 1):
            keys = Keys(document.path, record, f"[{number}]")
            info = Keys(document.path, _flat(record.get("info")), f"[{number}].info")
            start, end = (keys.number(k) for k in ("start_time", "end_time"))
            if start is None or end is None:
                keys.needed("start_time" if start is None else "end_time")
            times = info.column("output_token_times") if info.raw("output_token_times") else np.zeros(0)
            error = record.get("error")
            errors.append("" if not error else str(error.get("error_msg") or error) if isinstance(error, Mapping) else str(error))
            rows["start"].append(start or 0.0)
            rows["prompt"].append(info.number("input_tokens") or 0.0)
            rows["output"].append(info.number("output_tokens") or 0.0)
            rows["ttft"].append(times[0] - (start or 0.0) if times.size else np.nan)
            rows["e2e"].append((end or 0.0) - (start or 0.0))
            if not error and times.size > 1:
                gaps.append(np.diff(times))
                chunks += times.size
                tokens += int(rows["output"][-1])
        a = {k: np.array(v, float) for k, v in rows.items()}
        ok = np.array([not e for e in errors])
        if (a["e2e"] < 0).any() or (a["ttft"] < 0).any():
            return refusal(self.name, document.path.name, "has a request that ends before it starts")
        notes: tuple[str, ...] = ()
        if chunks > 1.3 * tokens:
            gaps = []
            notes = (
                f"output_token_times has {chunks:,} times for {tokens:,} tokens: the file counts chunks, and ITL is not compared",
            )
        requests = Requests(
            a["prompt"], a["output"], a["ttft"], a["e2e"], ok, np.concatenate(gaps) if gaps else None, errors=errors
        )
        return of_requests(self.name, document.path.name, requests, Sent(start=a["start"]), notes=notes)


def _of_tokens(measured: dict[str, float], output: float) -> tuple[dict[str, float], tuple[str, ...]]:
    """TPOT and ITL as they are, unless they are of chunks: then TPOT × tokens is not E2E − TTFT."""
    e2e, ttft, tpot = (measured.get(f"{k}.mean") for k in ("e2e_s", "ttft_s", "tpot_s"))
    if not e2e or not ttft or not tpot or output <= 1 or e2e <= ttft:
        return measured, ()
    follows = (e2e - ttft) / (output - 1)
    if abs(tpot / follows - 1) < 0.25:
        return measured, ()
    kept = {k: v for k, v in measured.items() if not k.startswith(("tpot_s", "itl_s"))} | {"tpot_s.mean": follows}
    said = f"time_per_output_token is {1e3 * tpot:.3g} ms, but (E2E − TTFT) / (output − 1) {1e3 * follows:.3g} ms: the file counts chunks, not tokens"
    return kept, (f"{said}; TPOT mean is taken from E2E and TTFT, and ITL is not compared",)


def _flat(info: object) -> dict[str, object]:
    """``info`` with what newer versions keep in objects inside it (``response_metrics`` …)."""
    out: dict[str, object] = {}
    for key, value in info.items() if isinstance(info, Mapping) else ():
        if isinstance(value, Mapping):
            out = {**_flat(value), **out}
        else:
            out[str(key)] = value
    return out
