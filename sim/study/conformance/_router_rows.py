"""Rows of upstream unit tests: inputs and the numbers that their assertions expect, rule by rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sim.document import is_number, number
from sim.policy.gateways import dynamo, llmd
from sim.policy.gateways.cache_aware import CacheAware, Settings
from sim.policy.gateways.prompts import Letters
from sim.policy.gateways.shared_tree import SharedTree
from sim.study.conformance import _router_shapes as shapes
from sim.study.conformance import _scaler_rows
from sim.study.conformance.base import Case, Count


def check(data: Any) -> Iterator[Case]:
    """A case for each rule that is modelled; others are left out."""
    cases: dict[str, Count] = {}
    for row in data["rows"]:
        rule = row["rule"]
        if rule not in _RULES:
            continue
        with np.errstate(divide="raise", invalid="raise"):  # of a row whose thresholds cannot be
            expected, ours = _RULES[rule](row)
        same = _same(expected, ours)
        cases.setdefault(rule, Count()).add(same, {"test": row["test"], "expect": expected}, {"expect": ours})
    for rule, count in cases.items():
        yield count.case(f"unit rows {rule}")


def _same(a: object, b: object) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_same(a.get(k, 0.0), b.get(k, 0.0)) for k in a.keys() | b.keys())
    if is_number(a) and is_number(b):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return bool(a == b)


def _tree(row: Any) -> tuple[object, object]:
    tree: SharedTree[Letters] = SharedTree([])
    names: dict[str, int] = {}
    expected: list[object] = []
    ours: list[object] = []
    for op in row["ops"]:
        if op[0] == "insert":
            tree.insert(Letters(op[1]), names.setdefault(op[2], len(names)))
        elif op[0] == "evict":
            tree.evict(op[1])
        elif op[0] == "match":
            found = tree.match(Letters(op[1]))
            allowed = None if op[3] is None else {names[n] for n in op[3]}
            expected.append((op[2], True))
            ours.append((found.length, allowed is None or found.tenant in allowed))
        elif op[0] == "match_tenant":
            expected.append(op[3])
            ours.append(tree.match_tenant(Letters(op[1]), names.get(op[2], -1)))
        else:
            expected.append(op[2])
            ours.append(tree.sizes[names[op[1]]])
    return expected, ours


def _cache_aware(row: shapes.CacheAwareRow) -> tuple[object, object]:
    settings = Settings(
        "smg-1.8", row["cache_threshold"], row.get("balance_abs_threshold", 32), row.get("balance_rel_threshold", 1.1)
    )
    core = CacheAware(settings, range(len(row["loads"])))
    chosen = []
    for text in row["requests"]:
        decision = core.decide(Letters(text), row["loads"])
        core.chosen(decision.allowed[0], Letters(text), decision)
        chosen.append(decision.allowed[0])
    same = row["expect"] == "all three on the same worker"
    return (True, len(set(chosen)) == 1) if same else (row["expect"], chosen)


def _load_ok(row: shapes.LoadOkRow) -> tuple[object, object]:
    from sim.policy.gateways.sglang import load_ok

    return row["expect"], load_ok(row["load"], row["total"], row["n"], row["load_factor"])


def _least_load(row: shapes.LeastLoadRow) -> tuple[object, object]:
    from sim.policy.gateways.sglang import Reported, least_load

    workers = [
        Reported(
            load=w.get("load", 0),
            queued=w.get("queued"),
            kv=w.get("kv", 0.0),
            throughput=w.get("tput", 0.0),
            dispatched=w.get("dispatched", 0.0),
        )
        for w in row["workers"]
    ]
    mean = row.get("mean_prefill_tokens", 1024.0)
    given = {k: number(v) for k, v in row.items() if k in ("kv_pressure_weight", "default_throughput", "mean_prefill_tokens")}
    first = least_load(workers, **given)
    if isinstance(row["expect"], str):  # the next request, with the first one's tokens dispatched but not reported
        workers[first] = replace(workers[first], dispatched=workers[first].dispatched + mean)
        return True, least_load(workers, **given) != first
    return row["expect"], first


def _delay(row: shapes.DelayRow) -> tuple[object, object]:
    from sim.policy.gateways.sglang import retry_delay

    return row["expect"], retry_delay(row["attempt"], row["initial_ms"], row["max_ms"], row["multiplier"])


def _logit(row: shapes.LogitRow) -> tuple[object, object]:
    block, isl = row["bs"], row["isl"]
    weights = dynamo.Weights(
        prefill_load_scale=row.get("prefill_load_scale", 1.0),
        overlap_score_credit=row.get("overlap_score_credit", 1.0),
        overlap_score_credit_decay=row.get("overlap_score_credit_decay", 0.0),
        decode_active_request_weight=row.get("decode_active_request_weight", 0.0),
        router_track_prefill_tokens=row.get("track_prefill_tokens", True),
        decode=row.get("worker_type") == "decode",
    )
    worker = dynamo.Worker(
        device_blocks=row.get("device_blocks", 0),
        active_prefill_tokens=row.get("active_prefill_tokens", 0) + _projected(row),
        decode_blocks=row.get("active_decode_blocks", 0) + row.get("additional_active_blocks", 0),
        active_requests=row.get("active_requests", 0),
    )
    return row["expect"], dynamo.cost(worker, isl, block, weights)


def _projected(row: shapes.LogitRow) -> float:
    """What the ledger would project for this request beyond its length: cached tokens are taken off there and added again."""
    return max(float(row.get("cached_tokens", 0)) - float(row["isl"]), 0.0)


def _select(row: shapes.SelectRow) -> tuple[object, object]:
    n = len(row.get("device_blocks") or row.get("active_decode_blocks") or [0, 0])

    def of(found: list[float] | None) -> list[float]:
        return list(found or [0.0] * n)

    # blocks on the device, or what a version without tiers calls the overlap
    devices = of(row["device_blocks"] if "device_blocks" in row else row.get("effective_overlap_blocks"))
    weights = dynamo.Weights(
        overlap_score_credit=row.get("overlap_score_credit", 1.0),
        overlap_score_credit_decay=row.get("overlap_score_credit_decay", 0.0),
        prefill_load_scale=row.get("prefill_load_scale", 1.0),
        shared_cache_multiplier=row.get("shared_cache_multiplier", 0.0),
        decode_active_request_weight=row.get("decode_active_request_weight", 0.0),
    )
    shared = []
    for device in devices:
        hits = sum(max(hi - max(lo, device), 0) for lo, hi in row.get("shared_ranges", []))
        shared.append(float(hits))
    prefill = of(row.get("active_prefill_tokens"))
    columns = (devices, prefill, of(row.get("active_decode_blocks")), of(row.get("active_requests")), shared)
    workers = [
        dynamo.Worker(d, p, b, a, shared_blocks=s, excess_prefill_blocks=(p - min(prefill)) / row["bs"])
        for d, p, b, a, s in zip(*columns, strict=True)
    ]
    costs = [dynamo.cost(w, row["isl"], row["bs"], weights) for w in workers]
    allowed = dynamo.best(costs)
    expected = row["expect"]
    if isinstance(expected, list):
        return True, set(allowed) <= set(expected)
    return expected, allowed[0] if len(allowed) == 1 else allowed


def _softmax(row: shapes.SoftmaxRow) -> tuple[object, object]:
    if row["temperature"] == 0.0:
        return True, set(dynamo.best(row["logits"])) == set(row["expect_one_of"])
    p = dynamo.shares(row["logits"], row["temperature"])
    if "expect_one_of" in row:
        return True, {i for i in range(p.size) if p[i] > 0} >= set(row["expect_one_of"])
    return row["expect"], p.tolist()


def _prefix(row: shapes.PrefixRow) -> tuple[object, object]:
    filled = [x or [0, 0, 1] for x in row["match_total_bs"]]
    m, t, b = np.array(filled, np.float64).T
    return row["expect"], llmd.prefix_cache(m, t, b, row["matchLengthWeight"], row.get("matchLengthScaleTokens", 8192)).tolist()


def _lora(row: shapes.LoraRow) -> tuple[object, object]:
    ends = row["endpoints"]
    scores = llmd.lora_affinity(
        row["target"], [e["active"] for e in ends], [e["waiting"] for e in ends], [e["max"] for e in ends]
    )
    return row["expect"], scores.tolist()


def _active(row: shapes.ActiveRow) -> tuple[object, object]:
    counts = [c or 0 for c in row["counts"]]
    given = (row.get("idleThreshold", 0), row.get("maxBusyScore", 1.0))
    return row["expect"], llmd.active_request(counts, *given).tolist()


def _tokens(row: shapes.TokensRow) -> tuple[object, object]:
    tokens = np.add(row["inflight"], row["uncached"])
    return row["expect"], llmd.token_load(tokens, row["threshold"]).tolist()


def _utilization(row: shapes.UtilizationRow) -> tuple[object, object]:
    pods = row["pods"]
    fresh = [p["age_ms"] is not None and p["age_ms"] <= row["stale_ms"] for p in pods]
    args = [p["queue"] for p in pods], [p["kv"] for p in pods], fresh
    return row["expect"], llmd.utilization(*args, row["queueDepthThreshold"], row["kvCacheUtilThreshold"])


def _precise(row: shapes.PreciseRow) -> tuple[object, object]:
    found = llmd.consecutive(row["keys"], lambda k: row["hitmap"].get(str(k), []), row["weights"])
    return row["expect"], found


def _queue(row: shapes.QueueRow) -> tuple[object, object]:
    return row["expect"], llmd.queue(row["queues"]).tolist()


def _load_aware(row: shapes.QueueRow) -> tuple[object, object]:
    return row["expect"], llmd.load_aware(row["queues"], row["threshold"]).tolist()


_RULES: dict[str, Callable[[Any], tuple[object, object]]] = {
    "sglang.tree": _tree,
    "sglang.cache_aware": _cache_aware,
    "sglang.prefix_hash.load_ok": _load_ok,
    "sglang.least_load": _least_load,
    "sglang.retry.delay_ms": _delay,
    "dynamo.logit": _logit,
    "dynamo.select": _select,
    "dynamo.softmax": _softmax,
    "knative.kpa": _scaler_rows.kpa,
    "llmd.queue-scorer": _queue,
    "llmd.load-aware-scorer": _load_aware,
    "llmd.prefix-cache-scorer": _prefix,
    "llmd.lora-affinity-scorer": _lora,
    "llmd.active-request-scorer": _active,
    "llmd.token-load-scorer": _tokens,
    "llmd.utilization-detector": _utilization,
    "llmd.precise-prefix": _precise,
}
