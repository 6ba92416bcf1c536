"""guidellm: ``benchmarks.json``, one benchmark a rate or a concurrency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sim.document import Json
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Requests, Run, of_aggregates, of_requests, refusal
from sim.study.bench._sent import Sent

_FIGURES = {
    "time_to_first_token_ms": ("ttft_s", 1e-3), "inter_token_latency_ms": ("tpot_s", 1e-3), "request_latency": ("e2e_s", 1.0),
}  # fmt: skip
_RATES = {"requests_per_second": "requests_per_s", "output_tokens_per_second": "output_tokens_per_s"}
_NOTE = "inter_token_latency of guidellm is the mean of a request, (last − first token) / (output − 1): compared as TPOT"


@register("bench")
class GuideLlm(Bench):
    """``{"benchmarks": [{"config"|"args": {"strategy": …}, "metrics": …, "requests": {"successful", "incomplete", "errored"}}]}``.

    Requests are taken where they are saved, aggregates else. Incomplete requests (cut off by the end) are sent and count in nothing, errored ones
    are not sent. guidellm's ``time_per_output_token`` includes the first token and is not compared.

    Source: guidellm, schemas/request_stats.py.
    """

    name = "guidellm"
    title = "guidellm benchmarks.json"
    beside = ("benchmarks.csv", "benchmarks.yaml", "benchmarks.html")

    def fits(self, document: Document) -> bool:
        """By its list of benchmarks."""
        found = document.first.get("benchmarks")
        return (
            isinstance(found, list)
            and bool(found)
            and isinstance(found[0], Mapping)
            and bool({"metrics", "requests", "results"} & set(found[0]))
        )

    def runs(self, document: Document) -> Iterator[Run]:
        """One run a benchmark."""
        found = list(document.keys.needed("benchmarks"))
        for i, one in enumerate(found):
            keys = Keys(document.path, one, f"benchmarks[{i}]")
            yield self._run(keys, f"{document.path.name}[{i + 1}]" if len(found) > 1 else document.path.name)

    def _run(self, keys: Keys, name: str) -> Run:
        sent, strategy = _sent(keys)
        if isinstance(keys.raw("results"), list):
            return self._first_form(keys, name)
        requests = keys.raw("requests")
        groups: dict[str, list[Json]] = {}
        if isinstance(requests, Mapping):
            for group in ("successful", "incomplete", "errored"):
                groups[group] = requests.get(group) or []
                if not isinstance(groups[group], list):
                    keys.sub("requests").fail(group, "must be a list", groups[group])
        if groups.get("successful"):
            return self._requests(keys, groups, sent, name)
        if groups and not groups["successful"] and (groups["errored"] or groups["incomplete"]):
            n = len(groups["errored"]) + len(groups["incomplete"])
            return refusal(
                self.name, name, f"no request was served: {len(groups['errored'])} of {n} failed; that is no operating point"
            )
        return self._aggregate(keys.sub("metrics"), sent, strategy, name)

    def _requests(self, keys: Keys, groups: Mapping[str, list[Json]], sent: Sent, name: str) -> Run:
        rows: dict[str, list[float]] = {k: [] for k in ("start", "prompt", "output", "ttft", "e2e")}
        kinds: list[str] = []
        for group, members in groups.items():
            for j, member in enumerate(members):
                one = Keys(keys.path, member, f"{keys.inside}.requests.{group}[{j}]")
                kinds.append(group)
                for ours, theirs, unit in (
                    ("start", ("request_start_time", "start_time"), 1.0), ("prompt", ("prompt_tokens",), 1.0), ("output", ("output_tokens",), 1.0),
                    ("ttft", ("time_to_first_token_ms",), 1e-3), ("e2e", ("request_latency",), 1.0),
                ):  # fmt: skip
                    value = next((one.number(k) for k in theirs if k in one), None)
                    if value is None and ours == "start":
                        value = _started(one)
                    if value is None and group == "successful" and ours in ("start", "prompt"):
                        one.needed(theirs[0])
                    rows[ours].append(np.nan if value is None else value * unit)
        a = {k: np.array(v, float) for k, v in rows.items()}
        kind = np.array(kinds)
        prompt, output = np.nan_to_num(a["prompt"]), np.nan_to_num(a["output"])
        cut = (kind == "incomplete") & (prompt >= 1) & np.isfinite(a["start"])
        errors = np.where(kind == "errored", "errored", "").tolist()
        start = np.where(np.isfinite(a["start"]), a["start"], np.nanmin(a["start"]))
        requests = Requests(prompt, output, a["ttft"], a["e2e"], kind == "successful", errors=errors, cancelled=cut)
        return of_requests(self.name, name, requests, Sent(start=start, concurrency=sent.concurrency), notes=(_NOTE,))

    def _first_form(self, keys: Keys, name: str) -> Run:
        """The report of 0.1: a list of results with times in s; those that failed are counted apart and have no figures."""
        rows, errors = keys.raw("results"), keys.raw("errors")
        failed = len(errors) if isinstance(errors, list) else 0
        if not rows:
            return refusal(self.name, name, f"no request was served: {failed} of {failed} failed; that is no operating point")
        names = ("start_time", "end_time", "first_token_time", "prompt_token_count", "output_token_count")
        table = []
        for j, row in enumerate(rows):
            one = Keys(keys.path, row, f"{keys.inside}.results[{j}]")
            table.append([one.number(key) if key in one else one.needed(key) for key in names])
        start, end, first, prompt, output = np.array(table, float).T
        mode = str(keys.raw("mode") or "")
        sent = Sent(start=start, concurrency=1 if mode == "synchronous" else None)
        requests = Requests(prompt, output, first, end - start, np.ones(len(start), bool))
        notes = (f"{failed} of {failed + len(start)} requests failed: they are not sent",) if failed else ()
        return of_requests(self.name, name, requests, sent, notes=notes)

    def _aggregate(self, metrics: Keys, sent: Sent, strategy: str, name: str) -> Run:
        measured: dict[str, float] = {}
        for theirs, (ours, unit) in _FIGURES.items():
            figure = metrics.sub(theirs).sub("successful")
            for key, mine in (("mean", "mean"), ("median", "p50")):
                if figure.number(key):
                    measured[f"{ours}.{mine}"] = (figure.number(key) or 0) * unit
            for p in ("p90", "p95", "p99"):
                value = figure.sub("percentiles").number(p)
                if value:
                    measured[f"{ours}.{p}"] = value * unit
        for theirs, mine in _RATES.items():
            value = metrics.sub(theirs).sub("successful").number("mean")
            if value:
                measured[mine] = value
        counts = [metrics.sub(k).sub("successful") for k in ("prompt_token_count", "output_token_count")]
        n = metrics.sub("request_totals").number("successful") or counts[0].number("count")
        prompt, output = (c.number("mean") for c in counts)
        if not n or not prompt or not output:
            return refusal(
                self.name, name, "no request was served, or the file says neither requests nor their lengths (prompt_token_count)"
            )
        failed = int(metrics.sub("request_totals").number("errored") or 0)
        if strategy == "throughput" and not sent.concurrency:
            sent = Sent(rate=float("inf"))
        return of_aggregates(
            self.name,
            name,
            requests=int(n),
            prompt=prompt,
            output=output,
            measured=measured,
            sent=sent,
            notes=(_NOTE,),
            failed=failed,
        )


def _started(one: Keys) -> float | None:
    """``request_start`` among the timings of versions that do not write it beside the figures."""
    for outer, inner in (("info", "timings"), ("scheduler_info", "request_timings")):
        if isinstance(one.raw(outer), Mapping) and isinstance(one.raw(outer).get(inner), Mapping):
            found = one.sub(outer).sub(inner).number("request_start")
            if found is not None:
                return found
    return None


def _sent(keys: Keys) -> tuple[Sent, str]:
    """How requests were sent, by the strategy of the benchmark."""
    for outer in ("config", "args", "scheduler"):
        strategy = keys.sub(outer).raw("strategy") if isinstance(keys.raw(outer), Mapping) else None
        if isinstance(strategy, Mapping):
            one = Keys(keys.path, strategy, f"{keys.inside}.{outer}.strategy")
            kind = str(one.raw("type_") or one.raw("type") or one.raw("kind") or "")
            if kind == "synchronous":
                return Sent(concurrency=1), kind
            if kind == "concurrent":
                return Sent(concurrency=one.count("streams", low=1) or one.count("max_concurrency", low=1)), kind
            if kind in ("constant", "poisson", "async"):
                return Sent(rate=one.rate("rate"), constant=kind == "constant"), kind
            return Sent(concurrency=one.count("max_concurrency", low=1)), kind
    return Sent(), ""
