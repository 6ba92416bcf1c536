"""`Run`: one benchmark run in the canonical form, and the ways to make one from requests or from aggregates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike

from sim.errors import DataError
from sim.ledger import Values as Array
from sim.streams import stream
from sim.study.bench._sent import Sent, planned
from sim.workload.table import MAX_TOKENS

if TYPE_CHECKING:
    from sim.document import Json
    from sim.study.accuracy.point import Told
    from sim.study.accuracy.step_log import StepLog
    from sim.study.bench._talks import Talks

_LONGEST_S = 1e8
_MOST = 50_000_000
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


@dataclass(frozen=True)
class Run:
    """What a benchmark did and measured.

    ``columns``, each [n], of the requests that are sent again in the simulation: ``arrival_s, prompt_tokens, output_tokens`` (0 where a
    request ended without a token) and, where the tool does not count every request in every figure, ``counts`` (at all), ``counts_ttft``,
    ``counts_tpot``, ``counts_e2e`` (bool) and ``ttft_told`` (the figure that the tool enters for a request without a token, else NaN).
    ``talk, turn, wait_s``: the conversation of a request, its place in it, and how long after the answer before it is sent.
    ``traffic``: ``{"kind": "trace"}`` or ``{"kind": "closed_loop", "concurrency": n}``. ``measured``: ``ttft_s.mean``, ``output_tokens_per_s`` …
    ``said``: what the file tells of the deployment. ``notes``: what was assumed, or left out. ``refused``: why it is no operating point.
    ``lacks``: what of the traffic the file does not say and the scenario must; ``columns`` are then empty, or
    hold lengths only. ``inside``: times were taken inside the
    engine.
    """

    tool: str
    name: str
    columns: Mapping[str, Array]
    traffic: Told
    measured: Mapping[str, float]
    said: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refused: str = ""
    lacks: tuple[str, ...] = ()
    inside: bool = False
    logs: tuple[StepLog, ...] = ()
    """Steps as the server itself told them."""


def refusal(tool: str, name: str, reason: str, said: Mapping[str, Json] | None = None) -> Run:
    """A run that is no operating point."""
    return Run(tool, name, {}, {"kind": "trace"}, {}, said or {}, (), reason)


def statistics(name: str, values: ArrayLike) -> dict[str, float]:
    """``name.mean`` and percentiles of what is finite."""
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    if not found.size:
        return {}
    return {f"{name}.mean": float(found.mean())} | {f"{name}.{k}": float(np.percentile(found, q)) for k, q in PERCENTILES.items()}


@dataclass
class Requests:
    """Per-request figures of a file, each [n]; NaN where there is none.

    ``ok``: the tool calls it a success. ``gaps``: every inter-token gap of all successes, in s. ``zero_ttft``: the tool counts a success without
    a token, with the TTFT that is written there. ``errors``: texts, for the message.
    """

    prompt: Array
    output: Array
    ttft: Array
    e2e: Array
    ok: Array
    gaps: Array | None = None
    zero_ttft: bool = False
    errors: Sequence[str] = ()
    cancelled: Array | None = None
    """Sent, and cut off by the end of the run: they count in nothing, but the server had them."""
    talks: Talks | None = None
    """Which requests continue which."""


def of_requests(
    tool: str, name: str, r: Requests, sent: Sent, *, said: Mapping[str, Json] | None = None, notes: Sequence[str] = (),
    told: Mapping[str, float] | None = None,
) -> Run:  # fmt: skip
    """A run from its requests. ``told``: figures of the file that replace what follows from the requests (throughput over the tool's window)."""
    served = r.ok & (r.output >= 1)
    n, good = len(r.ok), int(served.sum())
    wrong = _impossible(r)
    if wrong:
        return refusal(tool, name, wrong, said)
    cut = np.zeros(n, bool) if r.cancelled is None else r.cancelled
    failed = int((~r.ok & ~cut).sum())
    if good == 0 or failed > good:
        return refusal(tool, name, _not_served(n, good, failed, r.errors), said)
    ttft = np.where(r.ok, r.ttft, np.nan)
    with_token = np.isfinite(ttft) & (r.output >= 1)
    counts = {
        "counts_ttft": np.isfinite(ttft) & r.ok if r.zero_ttft else with_token,
        "counts_e2e": np.isfinite(r.e2e) & r.ok,
        "counts_tpot": with_token & np.isfinite(r.e2e) & (r.output > 1),
    }
    some = counts["counts_tpot"]
    measured = statistics("ttft_s", ttft[counts["counts_ttft"]]) | statistics("e2e_s", r.e2e[counts["counts_e2e"]])
    measured |= statistics("tpot_s", (r.e2e - ttft)[some] / (r.output[some] - 1))
    if r.gaps is not None:
        measured |= statistics("itl_s", r.gaps)
    remarks = list(notes)
    if failed:
        remarks.append(
            f"{failed} of {n} requests failed ({_reasons(r.errors)}): they are not sent, as what they cost the server is not known"
        )
    if cut.any():
        remarks.append(
            f"{int(cut.sum())} of {n} requests were cut off by the end of the run: they are sent, and count in no figure"
        )
    silent = n - failed - good - int(cut.sum())
    if silent:
        how = (
            "their TTFT is what the tool wrote, in measured and predicted alike"
            if r.zero_ttft
            else "they count in no TTFT or TPOT"
        )
        remarks.append(f"{silent} of {n} requests ended without a token: {how}")
    keep = np.flatnonzero(r.ok | cut)
    when = planned(sent, n)
    if when.refused:
        return refusal(tool, name, when.refused, said)
    if sent.start is not None:
        measured |= _rates(np.asarray(sent.start, float), r)
    columns = {"arrival_s": when.arrival_s, "prompt_tokens": r.prompt, "output_tokens": r.output, "counts": r.ok, **counts}
    if r.talks is not None:
        columns |= {"talk": r.talks.talk, "turn": r.talks.turn, "wait_s": r.talks.wait_s}
        remarks += r.talks.notes
    columns["ttft_told"] = np.where(counts["counts_ttft"] & (r.output < 1), r.ttft, np.nan)
    columns = {k: np.asarray(v)[keep] for k, v in columns.items()}
    columns["arrival_s"] = columns["arrival_s"] - columns["arrival_s"].min()
    for key in ("prompt_tokens", "output_tokens"):
        columns[key] = columns[key].astype(np.int64)
    if (columns["prompt_tokens"] < 1).any():
        return refusal(tool, name, "a served request has no prompt tokens", said)
    measured = {k: v for k, v in (dict(told or {}) | measured).items() if math.isfinite(v)}
    if not any(k.endswith(".mean") for k in measured):
        return refusal(tool, name, "has no latency of a served request", said)
    return Run(tool, name, columns, when.traffic, measured, said or {}, (*remarks, *when.notes))


def _impossible(r: Requests) -> str:
    """What of the served requests cannot be, as a sentence; empty: nothing."""
    for what, values, most in (("prompt tokens", r.prompt, MAX_TOKENS), ("output tokens", r.output, MAX_TOKENS)):
        bad = r.ok & ~((values >= 0) & (values <= most) & (values == np.floor(values)))
        if bad.any():
            i = int(np.argmax(bad))
            return f"request {i + 1}: {what} must be a whole number in [0, {most}] (got {values[i]:.6g})"
    for what, values in (("TTFT", r.ttft), ("E2E", r.e2e)):
        bad = r.ok & (values > _LONGEST_S)
        if bad.any():
            i = int(np.argmax(bad))
            return f"request {i + 1}: {what} is {values[i]:.4g} s, which is no latency"
    bad = r.ok & (r.output >= 1) & (r.e2e < r.ttft - 1e-3)
    if bad.any():
        i = int(np.argmax(bad))
        return f"request {i + 1}: ends {r.e2e[i]:.4g} s after it was sent, before its first token at {r.ttft[i]:.4g} s"
    return ""


def of_aggregates(
    tool: str, name: str, *, requests: int, prompt: float | tuple[int, int] | Array, output: float | tuple[int, int] | Array,
    measured: Mapping[str, float], sent: Sent, said: Mapping[str, Json] | None = None, notes: Sequence[str] = (), failed: int = 0,
) -> Run:  # fmt: skip
    """A run of which only totals are known. Lengths: a mean, taken for every request, (least, most), drawn uniformly, both
    said, or one a request, in order.
    """
    if requests < 1 or failed > requests:
        return refusal(tool, name, _not_served(requests + failed, requests, failed, ()), said)
    for role, spec in (("prompt", prompt), ("output", output)):
        most = spec[1] if isinstance(spec, tuple) else float(np.max(spec))
        if most > MAX_TOKENS or requests > _MOST:
            return refusal(tool, name, f"{requests:,} requests with {role}s of {most:.4g} tokens are no benchmark", said)
    if failed:
        notes = [*notes, f"{failed} of {requests + failed} requests failed: they are not sent"]
    columns: dict[str, Array] = {}
    for role, spec in (("prompt", prompt), ("output", output)):
        if isinstance(spec, np.ndarray):
            columns[f"{role}_tokens"] = spec.astype(np.int64)
        elif isinstance(spec, tuple):
            columns[f"{role}_tokens"] = stream(0, f"bench.{role}").integers(spec[0], spec[1] + 1, requests)
            notes = [*notes, f"{role} lengths drawn uniformly from {spec[0]} to {spec[1]} tokens: the file has no lists"]
        else:
            whole = _spread_to_mean(max(spec, 1.0), requests)
            columns[f"{role}_tokens"] = whole
            notes = [*notes, f"every {role} taken as long as the mean, {spec:.4g} tokens: the file has no lists"]
    when = planned(sent, requests)
    if when.refused:
        return refusal(tool, name, when.refused, said)
    columns["arrival_s"] = when.arrival_s - when.arrival_s.min()
    kept = {k: float(v) for k, v in measured.items() if v is not None and math.isfinite(v) and v < _LONGEST_S * 10}
    if not kept:
        return refusal(tool, name, "has no figure that can be compared", said)
    return Run(tool, name, columns, when.traffic, kept, said or {}, (*notes, *when.notes))


def _spread_to_mean(mean: float, n: int) -> Array:
    """i8[n] of the two whole numbers around the mean, evenly mixed, with its sum."""
    edges: Array = np.floor(np.arange(n + 1) * mean + 0.5)
    whole: Array = np.diff(edges).astype(np.int64).clip(1)
    return whole


def _rates(arrival: Array, r: Requests) -> dict[str, float]:
    """Throughput from the first request sent to the last answer, as ours is counted."""
    done = r.ok & np.isfinite(r.e2e)
    if not done.any():
        return {}
    span = float((arrival + r.e2e)[done].max() - arrival[r.ok].min())
    if span <= 0:
        return {}
    return {"requests_per_s": float(r.ok.sum()) / span, "output_tokens_per_s": float(r.output[r.ok].sum()) / span}


def _not_served(n: int, good: int, failed: int, errors: Sequence[str]) -> str:
    reasons = _reasons(errors)
    why = f" ({reasons})" if reasons != "no reason given" else ""
    if good == 0:
        empty = n - failed
        ends = f", {empty} ended without a token" if empty else ""
        return f"no request was served: {failed} of {n} failed{why}{ends}; that is no operating point"
    return f"more requests failed than were served: {failed} of {n}{why}; what they cost the server is not known"


def _reasons(errors: Sequence[str]) -> str:
    found = Counter(str(e).strip().splitlines()[-1][:60] for e in errors if e and str(e).strip())
    return ", ".join(f"{text!r}" for text, _ in found.most_common(2)) or "no reason given"


def of_figures(
    tool: str,
    name: str,
    measured: Mapping[str, float],
    lacks: Sequence[str],
    said: Mapping[str, Json] | None = None,
    notes: Sequence[str] = (),
) -> Run:
    """A run of which only figures are known: what was sent is the scenario's to say."""
    kept = {k: float(v) for k, v in measured.items() if v is not None and math.isfinite(v) and v > 0}
    if not kept:
        return refusal(tool, name, "has no figure that can be compared", said)
    return Run(tool, name, {}, {"kind": "trace"}, kept, said or {}, tuple(notes), "", tuple(lacks))


def same_length(source: str, **columns: Sized) -> None:
    """Raise `DataError` unless all lists have one length and are not empty."""
    for key, value in columns.items():
        if not hasattr(value, "__len__") or isinstance(value, str):
            raise DataError(source, f"key {key!r}: must be a list (got {value!r:.60})")
    sizes = {k: len(v) for k, v in columns.items()}
    if len(set(sizes.values())) != 1 or not next(iter(sizes.values())):
        raise DataError(source, f"its lists differ in length, or are empty: {', '.join(f'{k} {v}' for k, v in sizes.items())}")
