"""Disaggregated deployments: the stages of a request from the prefill side to the decode side, and which side breaks first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.ledger import Values as Array

if TYPE_CHECKING:
    from sim.metrics.groups import LoadFigures

STAGES: Final = ("prefill_queue", "prefill", "decode_queue", "transfer", "decode")
_WAIT: Final = 0.10  # share of the end-to-end time from where on a wait is what breaks first; as in `bottleneck`
_PREEMPTED: Final = 0.02  # preemptions per request
_SPARE: Final = 0.6  # below this use a side could take on more


def stages(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Seconds of every request in each of `STAGES`; NaN where it did not get there. They add to E2E.

    ``decode_queue`` is the wait for memory of a decode replica and, when the KV is there, for a place in its batch. Where that memory is
    taken before the prefill (SGLang), ``prefill_queue`` begins then. Of a request that was given back, earlier tries count as ``prefill``. Where the
    decode side computed the prompt itself, ``prefill`` ends with the first token.
    """
    arrival, scheduled, computed = columns["arrival_s"], columns["first_scheduled_s"], columns["prefill_end_s"]
    allocated, there, begun = columns["kv_allocated_s"], columns["kv_arrived_s"], columns["decode_start_s"]
    before = allocated < computed  # decode first
    out = {
        "prefill_queue": scheduled - np.where(before, np.minimum(allocated, scheduled), arrival),
        "prefill": computed - scheduled,
        "decode_queue": np.where(before, np.minimum(allocated, scheduled) - arrival, allocated - computed) + (begun - there),
        "transfer": there - np.where(before, computed, allocated),
        "decode": columns["finish_s"] - begun,
    }
    on_prefill = np.isnan(allocated) & ~np.isnan(columns["finish_s"])  # ended with its first token
    for name in STAGES[2:]:
        out[name][on_prefill] = 0.0
    alone = on_prefill & (columns["prefill_replica"] < 0)
    out["prefill"][alone] = (columns["first_token_s"] - scheduled)[alone]
    out["decode"][alone] = (columns["finish_s"] - columns["first_token_s"])[alone]
    return out


def shares(columns: Mapping[str, Array], counted: Array) -> dict[str, float | None]:
    """Share of the mean end-to-end time by stage, over the requests counted."""
    found = {name: values[counted] for name, values in stages(columns).items()}
    means = {name: float(np.nanmean(v)) if v.size and not np.isnan(v).all() else 0.0 for name, v in found.items()}
    total = sum(means.values())
    return {name: mean / total if total > 0 else None for name, mean in means.items()}


def sides(columns: Mapping[str, Array], replicas: int) -> Array:
    """b1[replica]: it prefills."""
    out = np.zeros(replicas, bool)
    used = columns["prefill_replica"]
    out[used[used >= 0]] = True
    return out


def judge(
    time: Mapping[str, float | None],
    load: Sequence[LoadFigures],
    prefills: Array,
    preempted: float,
    grows: bool,
    met: bool | None = None,
) -> tuple[str, str]:
    """(what limits, one sentence). ``time``: `shares`; ``load``: busy and KV use of each replica; ``preempted``: preemptions per request;
    ``met``: of the SLO.
    """

    def mean(values: Sequence[float | None], which: bool) -> float:
        some = [v for v, p in zip(values, prefills, strict=True) if p == which and v is not None]
        return float(np.mean(some)) if some else 0.0

    # a decode replica is busy as long as anybody decodes: how full it is shows in its memory
    busy, kv = mean([row["busy"] for row in load], True), mean([row.get("kv_mean") for row in load], False)
    both = f"prefill replicas are busy {busy:.0%} of the time, decode replicas hold {kv:.0%} of their KV memory"
    tail = " The queue grew through the run: the offered load is above what the deployment serves." if grows else ""
    waits = {k: time.get(k) or 0.0 for k in ("prefill_queue", "decode_queue", "transfer")}
    worst = max(waits, key=lambda k: waits[k])
    share = f"requests spend {waits[worst]:.0%} of their time"
    if waits[worst] < _WAIT and not grows:
        if preempted >= _PREEMPTED:
            return "kv_capacity", f"The decode side breaks first: its KV memory runs out under load; {both}.{tail}"
        side = "prefill" if busy > kv else "decode"
        if met is False:
            return "none", f"Steps are too long for the SLO, not a queue: {both}; the {side} side limits first."
        return "none", f"Nothing is saturated: {both}; the {side} side limits first when load grows."
    if worst == "transfer":
        return "kv_transfer", f"KV transfer breaks first: {share} on the link; {both}.{tail}"
    if worst == "prefill_queue":
        spare = " The decode side has room to spare." if kv < _SPARE else ""
        return worst, f"The prefill side breaks first: {share} in its queue; {both}.{spare}{tail}"
    spare = " The prefill side has room to spare." if busy < _SPARE else ""
    return worst, f"The decode side breaks first: {share} waiting for its KV memory or a place in its batch; {both}.{spare}{tail}"
