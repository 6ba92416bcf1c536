"""The numbers of a run as one nested dict that is ready for JSON: seconds, tokens and shares; no NaN, None instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sim.metrics import bottleneck, fairness, hand_over, scaling
from sim.metrics.definitions import LATENCIES
from sim.metrics.groups import group_rows, named, replica_load
from sim.metrics.latency import describe, describe_itl, number
from sim.metrics.record import FAILED, IN_FLIGHT, REJECTED, RunRecord
from sim.metrics.slo import met, share
from sim.metrics.spell import worst_spell
from sim.metrics.steady import steady

Array = npt.NDArray[Any]

FORMAT: Final = "servesim-result/1"


def summarise_run(record: RunRecord, columns: Mapping[str, Array], warmup_s: float = 0.0) -> tuple[dict[str, Any], Array]:
    """(summary, b1[n]: who met all targets). ``columns``: requests with the derived latencies.

    ``warmup_s``: requests that arrive within so many seconds of the first one count only in ``requests.injected``, ITL,
    utilisation, bottleneck and series.
    """
    status, arrival = columns["status"], columns["arrival_s"]
    n = int(status.size)
    start = (float(arrival.min()) if n else 0.0) + warmup_s
    counted = status != IN_FLIGHT
    if warmup_s > 0:
        counted &= arrival >= start
    finished = counted & (status == 0)
    n_finished = int(np.count_nonzero(finished))
    cut_off = int(np.count_nonzero(status == IN_FLIGHT))
    last = float(np.fmax.reduce(columns["finish_s"][counted], initial=start))
    if cut_off:
        last = max(last, float(record.totals.get("last_s", last)))
    duration = max(last - start, 0.0)
    rejected, failed = (int(np.count_nonzero(counted & (status == s))) for s in (REJECTED, FAILED))

    everyone = n_finished == n

    def pick(a: Array) -> Array:
        return a if everyone else a[finished]

    latency = {key: describe(pick(columns[key])) for key in ("ttft_s", "tpot_s", "e2e_s", "ingress_s", "queue_s")}
    latency["itl_s"] = describe_itl(record.itl_hist, record.totals)
    latency = {key: latency[key] for key in LATENCIES}

    ok, slo = _slo(record, columns, counted, finished, duration)
    slo["unserved"] = (rejected + failed) / (n_finished + rejected + failed) if n_finished + rejected + failed else None
    prompt, output = (float(pick(columns[k]).sum(dtype=np.int64)) for k in ("prompt_tokens", "output_tokens"))
    cached = float(pick(columns["cached_tokens"]).sum(dtype=np.int64))

    replicas = record.parts.shape[0]
    horizon = float(record.totals.get("last_s", last))
    load = replica_load(record.series, record.kv_total, record.parts, horizon, record.alive_s, record.kv_peak)
    summary: dict[str, Any] = {
        "format": FORMAT,
        "name": record.name,
        "seed": record.seed,
        "complete": record.complete,
        "context": dict(record.context) | {"replicas": record.replicas or replicas, "accelerators": record.accelerators},
        "requests": {
            "injected": n,
            "finished": n_finished,
            "rejected": rejected,
            "failed": failed,
            "in_flight": cut_off,
            "warmup": n - cut_off - n_finished - rejected - failed,
        },
        "warmup_s": warmup_s,
        "duration_s": duration,
        "simulated_s": horizon,
        "latency": latency,
        "throughput": _throughput(n_finished, prompt, output, duration, record.accelerators),
        "steady": steady(columns, finished, ok, counted, slo["met"] is not None),
        "slo": slo,
        "utilisation": _utilisation(record, load, horizon),
        "tokens": {
            "prompt": int(prompt),
            "output": int(output),
            "cached": int(cached),
            "cached_share": cached / prompt if prompt else None,
        },
        "preemptions": int(record.totals.get("preemptions", columns["preemptions"].sum())),
        "steps": int(record.totals.get("steps", 0)),
    }
    fleet = {key.removeprefix("fleet_"): value for key, value in record.totals.items() if key.startswith("fleet_")}
    if fleet:
        summary["fleet"] = fleet
    if record.scaling is not None:
        summary["scaling"] = scaling.section(record, columns)
    summary["spell"] = worst_spell(columns, ok, counted, slo["required"]) if slo["met"] is False else None
    summary["bottleneck"] = _bottleneck(record, columns, summary, load)
    groups = _groups(record, columns, ok, counted)
    summary["classes"] = groups["classes"]
    summary["replicas"] = [a | b for a, b in zip(groups["replicas"], load, strict=True)]
    summary["evidence"] = [dict(row) for row in record.evidence]
    summary["evidence_shares"] = _evidence_shares(summary["evidence"], summary["bottleneck"]["parts_s"])
    shared = fairness.section(columns, columns["klass"], record.class_names, ok if slo["met"] is not None else None, counted)
    if shared is not None:
        summary["fairness"] = shared
    summary["notes"] = scaling.sentences(summary["scaling"]) if record.scaling is not None else []
    summary["notes"] += fairness.sentences(shared) if shared is not None else []
    summary["warnings"] = list(record.warnings) + _warnings(record, summary)
    return summary, ok


def _slo(
    record: RunRecord, columns: Mapping[str, Array], counted: Array, finished: Array, duration: float
) -> tuple[Array, dict[str, Any]]:
    targets = record.slo.targets()
    verdicts = met(columns, targets)
    for klass, slo in record.class_slo.items():  # a class with targets of its own
        rows = columns["klass"] == klass
        own = met({k: columns[k][rows] for k in ("status", "output_tokens", "ttft_s", "tpot_s", "e2e_s")}, slo.targets())
        for key, ok in own.items():
            verdicts.setdefault(key, verdicts["joint"].copy())[rows] = ok
    ok = verdicts["joint"]
    joint = share(ok, counted)
    wanted = bool(targets or record.class_slo)
    good = ok & finished
    return ok, {
        "targets": targets,
        "class_targets": {_name(record.class_names, k): s.targets() for k, s in sorted(record.class_slo.items())},
        "required": record.slo.attainment if wanted else None,
        "attainment": {key: share(v, counted) for key, v in verdicts.items()} if wanted else {},
        "met": joint >= record.slo.attainment if wanted and joint is not None else None,
        "goodput_requests_per_s": float(np.count_nonzero(good)) / duration if wanted and duration > 0 else None,
        "goodput_output_tokens_per_s": float(columns["output_tokens"][good].sum()) / duration
        if wanted and duration > 0
        else None,
    }


def _name(names: Any, k: int) -> str:
    return str(names[k]) if k < len(names) else str(k)


def _throughput(finished: int, prompt: float, output: float, duration: float, accelerators: float) -> dict[str, float | None]:
    def rate(amount: float) -> float | None:
        return amount / duration if duration > 0 else None

    return {
        "requests_per_s": rate(finished),
        "output_tokens_per_s": rate(output),
        "prompt_tokens_per_s": rate(prompt),
        "total_tokens_per_s": rate(prompt + output),
        "output_tokens_per_s_per_accelerator": rate(output / (accelerators or 1)),
    }


def _utilisation(record: RunRecord, load: list[dict[str, Any]], horizon: float) -> dict[str, float | None]:
    weights = np.ones(len(load)) if record.alive_s is None or horizon <= 0 else record.alive_s / horizon

    def over(key: str, how: str) -> float | None:
        rows = [i for i, row in enumerate(load) if row.get(key) is not None]
        values, w = np.array([load[i][key] for i in rows]), weights[rows]
        if not rows or (how == "mean" and w.sum() <= 0):
            return None
        if how == "max":
            return float(values.max())
        total = float((values * w).sum())
        return total if how == "sum" else total / float(w.sum())

    busy = over("busy", "mean")
    series = record.series
    total = float(series["time_s"].sum()) if series else 0.0
    blocked = float(series["kv_full"].sum()) / total if total > 0 else None
    compute = bottleneck.time_shares(record.parts, record.part_names, busy or 0.0)["compute"]
    steps = float(record.totals.get("steps", 0))
    return {
        "busy": busy,
        "compute": compute,
        "kv_mean": over("kv_mean", "mean"),
        "kv_peak": over("kv_peak", "max"),
        "kv_blocked": blocked,
        "running_mean": over("running_mean", "sum"),
        "waiting_mean": over("waiting_mean", "sum"),
        "step_time_mean_s": float(record.parts.sum()) / steps if steps else None,
        "batch_tokens_mean": float(series["decode_tokens"].sum() + series["prefill_tokens"].sum()) / steps
        if series and steps
        else None,
    }


def _bottleneck(
    record: RunRecord, columns: Mapping[str, Array], summary: Mapping[str, Any], load: list[dict[str, Any]]
) -> dict[str, Any]:
    use, latency = summary["utilisation"], summary["latency"]
    shares = bottleneck.time_shares(record.parts, record.part_names, use["busy"] or 0.0)
    e2e, ttft, ingress, queue = (latency[k]["mean"] for k in ("e2e_s", "ttft_s", "ingress_s", "queue_s"))
    stages: dict[str, float | None] = dict.fromkeys(("ingress", "queue", "prefill", "decode"))
    if e2e:
        computed = ttft - ingress - queue
        stages = {"ingress": ingress / e2e, "queue": queue / e2e, "prefill": computed / e2e, "decode": (e2e - ttft) / e2e}
    grows = bottleneck.queue_grows(columns)
    facts = {
        "finished": summary["requests"]["finished"],
        "shares": shares,
        "kv_blocked": use["kv_blocked"],
        "preemptions": summary["preemptions"],
        "queue_share": (stages["ingress"] or 0.0) + (stages["queue"] or 0.0),
        "queue_grows": grows,
        "met": summary["slo"]["met"],
        "step_s": use["step_time_mean_s"],
    }
    if summary["spell"] is not None:  # a spike is judged by itself, not by the average of the run around it
        facts |= bottleneck.within(summary["spell"], columns, record.series)
    limit, sentence = bottleneck.judge(facts)
    if "prefill_replica" in columns:
        stages = hand_over.shares(columns, columns["status"] == 0)
        prefills = hand_over.sides(columns, record.parts.shape[0])
        if limit != "none":
            preempted = facts["preemptions"] / facts["finished"]
            limit, sentence = hand_over.judge(stages, load, prefills, preempted, grows, summary["slo"]["met"])
    return {
        "limit": limit,
        "sentence": sentence,
        "shares": shares,
        "parts_s": dict(zip(record.part_names, map(float, record.parts.sum(axis=0)), strict=True)),
        "request_time": {k: number(v) if v is not None else None for k, v in stages.items()},
        "kv_blocked": use["kv_blocked"],
        "queue_grows": grows,
    }


def _groups(record: RunRecord, columns: Mapping[str, Array], ok: Array, counted: Array) -> dict[str, list[dict[str, Any]]]:
    klass, replica = columns["klass"], columns["replica"]
    classes = max(int(klass.max()) + 1 if klass.size else 1, len(record.class_names))
    replicas = record.parts.shape[0]
    rows = group_rows(columns, klass, ok, counted, classes)
    routed = replica >= 0  # a request that the gateway turned away has no replica
    if routed.all():
        by_replica = group_rows(columns, replica, ok, counted, replicas)
    else:
        kept = {k: columns[k][routed] for k in ("status", "output_tokens", "ttft_s", "tpot_s", "e2e_s")}
        by_replica = group_rows(kept, replica[routed], ok[routed], counted[routed], replicas)
    if "prefill_replica" in columns:  # a prefill replica has the requests whose prompts it computed
        computed = columns["prefill_replica"] >= 0
        kept = {k: columns[k][computed] for k in ("status", "output_tokens", "ttft_s", "tpot_s", "e2e_s")}
        at = columns["prefill_replica"][computed]
        prefilled = group_rows(kept, at, ok[computed], counted[computed], replicas)
        by_replica = [p if p["requests"] else r for p, r in zip(prefilled, by_replica, strict=True)]
    return {"classes": named(rows, "klass", record.class_names), "replicas": named(by_replica, "replica", record.replica_names)}


def _evidence_shares(rows: list[dict[str, Any]], parts_s: Mapping[str, float]) -> dict[str, float]:
    """Share of the step time that rests on each grade; rows without a ``part`` of the step do not take part."""
    weights: dict[str, float] = {}
    rows = [row for row in rows if row.get("part") in parts_s]
    for row in rows:
        whole = sum(float(r.get("share", 1.0)) for r in rows if r["part"] == row["part"])
        weight = parts_s[row["part"]] * float(row.get("share", 1.0)) / whole if whole else 0.0
        weights[row["grade"]] = weights.get(row["grade"], 0.0) + weight
    total = sum(weights.values())
    return {grade: weight / total for grade, weight in weights.items()} if total else {}


def _warnings(record: RunRecord, summary: Mapping[str, Any]) -> list[str]:
    out = []
    if not record.complete:
        out.append("The run was interrupted: these are the requests simulated so far.")
    r = summary["requests"]
    if r["rejected"] + r["failed"] and not any("counted as misses" in w for w in record.warnings):
        lost = [f"{r[k]:,} {'request was' if r[k] == 1 else 'requests were'} {k}" for k in ("rejected",) if r[k]]
        lost += [f"{r['failed']:,} failed"] if r["failed"] else []
        out.append(f"{' and '.join(lost)}; counted as misses, without latency.")
    if r["in_flight"] and record.complete:
        out.append(f"{r['in_flight']:,} requests were still in flight when the run ended; they count nowhere.")
    if 0 < r["finished"] < 1000:
        out.append(
            f"Only {r['finished']:,} requests finished: p99.9 is close to the maximum; use at least 10,000 requests for tails."
        )
    return out
