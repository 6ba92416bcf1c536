"""What limits a deployment: where time went, and which limit is met first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

KINDS: Final = {
    "compute": ("linear_compute", "attention_prefill"),
    "memory_bandwidth": ("linear_memory", "attention_decode"),
    "communication": ("communication",),
    "host": ("host",),
    "other": ("other",),
}
WORDS: Final = {
    "compute": "compute",
    "memory_bandwidth": "memory bandwidth",
    "communication": "communication between accelerators",
    "host": "host overhead",
    "other": "small kernels and other fixed costs",
    "idle": "idle",
    "kv_capacity": "KV cache capacity",
    "queueing": "queueing",
}

# From where on a limit counts as met. Judgement, not measurement: below these nobody would act on it.
_KV_BLOCKED: Final = 0.05  # share of time with the head of the queue waiting for KV memory
_PREEMPTED: Final = 0.02  # preemptions per request
_QUEUED: Final = 0.10  # share of the end-to-end time spent in the queue
_BUSY: Final = 0.90


def time_shares(parts: Array, part_names: Sequence[str], busy: float) -> dict[str, float]:
    """Share of time by kind, and ``idle``; they add to 1. ``busy``: share of time in which steps execute."""
    seconds = dict(zip(part_names, parts.sum(axis=0), strict=True))
    known = {p for names in KINDS.values() for p in names}
    by_kind = {kind: float(sum(seconds.get(p, 0.0) for p in names)) for kind, names in KINDS.items()}
    by_kind["other"] += float(sum(v for k, v in seconds.items() if k not in known))
    total = sum(by_kind.values())
    if total <= 0:
        return dict.fromkeys(KINDS, 0.0) | {"idle": 1.0}
    return {kind: busy * v / total for kind, v in by_kind.items()} | {"idle": 1.0 - busy}


def queue_grows(columns: Mapping[str, Array]) -> bool:
    """Whether requests wait ever longer through the run: the offered load is above what is served."""
    order = np.argsort(columns["arrival_s"], kind="stable")
    queue = (columns["ingress_s"] + columns["queue_s"])[order]
    if queue.size < 100:
        return False
    q = [float(np.nanmean(part)) if not np.isnan(part).all() else np.inf for part in np.array_split(queue, 4)]
    e2e = columns["e2e_s"]
    mean = float(np.nanmean(e2e)) if not np.isnan(e2e).all() else 0.0
    return q[3] > 2.0 * q[1] and q[3] > q[2] and q[3] > 0.2 * mean


def judge(facts: Mapping[str, Any]) -> tuple[str, str]:
    """(what limits, one sentence).

    ``facts``: ``shares, busy, kv_blocked, preemptions, finished, queue_share, queue_grows``.
    """
    if not facts["finished"]:
        return "none", "No request finished, so nothing can be said about limits."
    working = {k: v for k, v in facts["shares"].items() if k not in ("idle", "other")}
    top = max(working, key=lambda k: working[k])
    share_of_steps = working[top] / facts["busy"] if facts["busy"] else 0.0
    steps = f"{WORDS[top]} takes {share_of_steps:.0%} of the step time"
    preempted = facts["preemptions"] / facts["finished"]
    blocked = facts["kv_blocked"] or 0.0
    tail = (
        " The queue grew through the run: the offered load is above what the deployment serves." if facts["queue_grows"] else ""
    )
    if blocked >= _KV_BLOCKED or preempted >= _PREEMPTED:
        why = (
            f"for {blocked:.0%} of the time the queue waited for KV blocks"
            if blocked >= _KV_BLOCKED
            else "blocks ran out under load"
        )
        lost = f", and {facts['preemptions']:,} preemptions threw work away" if facts["preemptions"] else ""
        return "kv_capacity", f"KV cache capacity breaks first: {why}{lost}.{tail}"
    if facts["queue_grows"] or facts["queue_share"] >= _QUEUED:
        wait = f"requests spend {facts['queue_share']:.0%} of their time in the queue"
        if facts["busy"] >= _BUSY:
            return (
                "queueing",
                f"Queueing breaks first: {wait}; the replicas are busy {facts['busy']:.0%} of the time and {steps}.{tail}",
            )
        return (
            "queueing",
            (
                f"Queueing breaks first: {wait} although the replicas are busy only {facts['busy']:.0%} of the time "
                f"(bursts, or a limit on the batch).{tail}"
            ),
        )
    return (
        top,
        f"Nothing is saturated: replicas are busy {facts['busy']:.0%} of the time; {steps}, which limits first when load grows.",
    )
