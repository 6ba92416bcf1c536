"""Filters and selector of the v1 scheduler (``pkg/scheduler/policy/scheduling_policy.go``, ``filters``, ``selectors``).

A decision is: filters; if nothing passes, the filters once more without the load filter (fall-back); the smallest metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sim.policy.llumnix.v1_status import METRICS, Account, Metric

STALENESS: Final = 60.0
"""Seconds after which a status is too old for its instance to be chosen."""

DISPATCH: Final = {
    "neutral": ("all_prefills_tokens_num", 8192.0),
    "prefill": ("all_prefills_tokens_num", 2048.0),
    "decode": ("kv_cache_usage_ratio_projected", 1.0),
}
"""Metric and threshold by type of inference (``pkg/consts/consts.go``)."""

Pick = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Rule:
    """Metrics compared in order, and the load filter ``metric < threshold`` (strict)."""

    metrics: tuple[str, ...]
    filter_metric: str
    threshold: float


def rule(infer_type: str, cache_aware: str | None = None) -> Rule:
    """The default rule of a type; ``cache_aware``: a locality metric put before the load metric for prefill and neutral."""
    metric, threshold = DISPATCH[infer_type]
    first = (cache_aware,) if cache_aware and infer_type != "decode" else ()
    return Rule((*first, metric), metric, threshold)


def filtered(accounts: Sequence[Account], now: float, load: tuple[Metric, float] | None) -> list[Account]:
    """Schedulable, healthy units, fresh, and (unless falling back) below the load threshold."""
    failed = {a.status.unit for a in accounts if not a.status.healthy and a.status.unit >= 0}
    return [
        a
        for a in accounts
        if a.status.schedulable
        and a.status.healthy
        and a.status.unit not in failed
        and now - a.status.time <= STALENESS
        and (load is None or load[0](a) < load[1])
    ]


def select(accounts: Sequence[Account], metrics: Sequence[str], pick: Pick, topk: int = 1) -> Account:
    """The smallest list of metrics; equals are drawn from (the order of a Go map), with ``topk`` > 1 the k best are."""
    values = [tuple(METRICS[m](a) for m in metrics) for a in accounts]
    order = sorted(range(len(accounts)), key=values.__getitem__)
    if topk > 1:
        return accounts[order[pick(min(topk, len(order)))]]
    ties = [i for i in order if values[i] == values[order[0]]]
    return accounts[ties[pick(len(ties)) if len(ties) > 1 else 0]]


def load_balance(accounts: Sequence[Account], now: float, by: Rule, pick: Pick, topk: int = 1) -> Account | None:
    """Policy ``load-balance``; None when no instance is schedulable."""
    left = filtered(accounts, now, (METRICS[by.filter_metric], by.threshold)) or filtered(accounts, now, None)
    return select(left, by.metrics, pick, topk) if left else None


def flood(accounts: Sequence[Account], now: float, by: Rule, stuck_to: int | None) -> Account | None:
    """Policy ``flood``: the instance chosen first, as long as it passes the filters."""
    left = filtered(accounts, now, (METRICS[by.filter_metric], by.threshold)) or filtered(accounts, now, None)
    return next((a for a in left if a.status.instance == stuck_to), left[0] if left else None)


@dataclass(frozen=True, slots=True)
class Pair:
    """Prefill and decode instance of one request."""

    prefill: Account
    decode: Account


def dispatch_pd(accounts: Sequence[Account], now: float, request: int, tokens: int, pick: Pick) -> Pair | None:
    """Batch mode: a prefill instance, then a decode instance; without one the prefill's account is reverted and there is none."""
    prefill = load_balance([a for a in accounts if a.status.infer_type == "prefill"], now, rule("prefill"), pick)
    if prefill is None:
        return None
    prefill.dispatch(request, now, tokens)
    decode = load_balance([a for a in accounts if a.status.infer_type == "decode"], now, rule("decode"), pick)
    if decode is None:
        prefill.revert(request)
        return None
    decode.dispatch(request, now, tokens, decode=True)
    return Pair(prefill, decode)
