"""Conservation and causality of a run, checked on its raw arrays. Cheap: a few passes over the columns."""

from __future__ import annotations

import numpy as np

from sim.errors import LawViolation
from sim.ledger import FINISHED, IN_FLIGHT, REJECTED, by_name
from sim.ledger import Values as Array
from sim.metrics.record import RunRecord


def check_laws(record: RunRecord) -> None:
    """Raise LawViolation naming the law, the first offending request and its values."""
    _conserved(record)
    _causal(record)
    _series(record)
    _gaps(record)


def _fail(record: RunRecord, law: str, bad: Array) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        row = {k: v[i].item() for k, v in record.requests.items()}
        raise LawViolation(f"{law}: broken by {int(np.count_nonzero(bad)):,} requests, first {row}")


def _conserved(record: RunRecord) -> None:
    r = record.requests
    n = r["id"].size
    for name, column in r.items():
        if column.size != n:
            raise LawViolation(f"columns of one length: {name} has {column.size} rows, id has {n}")
    if "injected" in record.totals and int(record.totals["injected"]) != n:
        raise LawViolation(
            f"arrived = finished + rejected + failed + in flight: {int(record.totals['injected'])} arrived, {n} accounted for"
        )
    in_order = n < 2 or bool((r["id"][1:] > r["id"][:-1]).all())
    if not in_order and np.unique(r["id"]).size != n:
        raise LawViolation("every request leaves once: an id occurs twice")
    _fail(record, "status is known", (r["status"] < FINISHED) | (r["status"] > IN_FLIGHT))
    preempted = int(r["preemptions"].sum()) if "preemptions" in r else 0
    if "preemptions" in record.totals and preempted > int(record.totals["preemptions"]):
        raise LawViolation(f"preemptions add up: {preempted} in the requests, {int(record.totals['preemptions'])} counted")


def _causal(record: RunRecord) -> None:
    r = record.requests
    arrival, scheduled, token, finish, status = (
        r[k] for k in ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s", "status")
    )
    taken = r.get("taken_s", arrival)
    _fail(record, "a request has an arrival time", ~np.isfinite(arrival))
    for law, early, late in (
        ("arrival ≤ first scheduled", arrival, scheduled),
        ("first scheduled ≤ first token", scheduled, token),
        ("first token ≤ finish", token, finish),
        ("arrival ≤ finish", arrival, finish),
        ("arrival ≤ taken by the engine", arrival, taken),
        ("taken by the engine ≤ first scheduled", taken, scheduled),
    ):
        _fail(record, law, late < early)  # NaN compares false: it did not happen
    done = status == FINISHED
    _fail(record, "a finished request was scheduled, got tokens and finished", done & np.isnan(scheduled + token + finish))
    _fail(record, "a finished request has tokens", done & (r["output_tokens"] < 1))
    _fail(record, "a rejected request has no token", (status == REJECTED) & (r["output_tokens"] > 0))
    _fail(record, "a request in flight has not finished", (status == IN_FLIGHT) & ~np.isnan(finish))
    if "cached_tokens" in r:
        _fail(record, "cached tokens are prompt tokens", (r["cached_tokens"] < 0) | (r["cached_tokens"] > r["prompt_tokens"]))


def _series(record: RunRecord) -> None:
    if (record.parts < 0).any():
        raise LawViolation("time is never negative: a part of the step time is")
    s = record.series
    if not s:
        return
    for key, a in by_name(s).items():
        if float(a.min(initial=0.0)) < -1e-9:
            raise LawViolation(f"nothing in the time series is negative: {key} is")
    if record.kv_total is not None:
        room = s["time_s"] * np.asarray(record.kv_total)[:, None]
        if bool((s["kv_used"] > room * (1 + 1e-9) + 1e-6).any()):
            raise LawViolation("KV blocks in use never exceed what there is")
    if bool((s["time_s"] > s["width_s"] * (1 + 1e-9) + 1e-9).any()):
        raise LawViolation("a bin covers no more time than its width")


def _gaps(record: RunRecord) -> None:
    """Gaps between tokens fit into the time from first token to finish (or to the end of the run)."""
    r = record.requests
    cut = np.isnan(r["finish_s"])
    end = np.where(cut, record.totals.get("last_s", np.nan), r["finish_s"])
    start = np.where(cut, r["arrival_s"], r["first_token_s"])  # what a client sees later than the engine's clock must not count
    room = float(np.nansum(np.maximum(end - start, 0.0))) + float(record.totals.get("unseen_gap_s", 0.0))
    total = float(record.totals.get("itl_sum_s", 0.0))
    if total > room * (1 + 1e-6) + 1e-6:
        raise LawViolation(f"gaps between tokens lie between first token and finish: they sum to {total:.6g} s of {room:.6g} s")
