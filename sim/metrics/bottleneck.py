"""What limits a deployment: where time went, and which limit is met first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypedDict

import numpy as np

from sim.ledger import FINISHED, Series
from sim.ledger import Values as Array
from sim.units import show_seconds

if TYPE_CHECKING:
    from sim.metrics.spell import Spell

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
_IDLE: Final = 0.10


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


def waiting(columns: Mapping[str, Array], done: Array) -> float:
    """Mean seconds in which the ``done`` requests queued: in the engine, and on their way in beyond what that takes when nobody is there.

    The latter is the least of any request of the run.
    """
    ingress = columns["ingress_s"]
    return float((ingress[done] + columns["queue_s"][done]).mean() - np.nanmin(ingress))


class Judged(TypedDict, total=False):
    """What `judge` goes by."""

    finished: int
    shares: Mapping[str, float]
    kv_blocked: float | None
    preemptions: int
    queue_share: float
    queue_grows: bool
    met: bool | None
    turned_away: float
    step_s: float | None
    pool: str | None
    spell: bool


def within(spell: Spell, columns: Mapping[str, Array], series: Series) -> Judged:
    """The facts of `judge` that hold in a stretch of the run (`sim.metrics.spell`)."""
    inside = (columns["arrival_s"] >= spell["start_s"]) & (columns["arrival_s"] <= spell["end_s"])
    done = inside & (columns["status"] == FINISHED)
    finished = int(np.count_nonzero(done))
    if not finished:
        return {"spell": True}
    e2e = float(columns["e2e_s"][done].mean())
    wait = waiting(columns, done)
    facts: Judged = {
        "spell": True,
        "finished": finished,
        "preemptions": int(columns["preemptions"][done].sum()),
        "queue_share": wait / e2e if e2e > 0 else 0.0,
        "queue_grows": False,
    }
    if series:
        bins = np.arange(series["time_s"].shape[1]) * float(series["width_s"])
        mine = (bins + float(series["width_s"]) > spell["start_s"]) & (bins < spell["end_s"])
        time = float(series["time_s"][:, mine].sum())
        facts["kv_blocked"] = float(series["kv_full"][:, mine].sum()) / time if time > 0 else None
        steps = float(series["steps"][:, mine].sum())
        facts["step_s"] = float(series["busy_s"][:, mine].sum()) / steps if steps else None
    return facts


def judge(facts: Judged) -> tuple[str, str]:
    """(what limits, one sentence). It never calls a deployment well that misses its SLO.

    ``facts``: ``shares, kv_blocked, preemptions, finished, queue_share, queue_grows, met`` (of the SLO; None without one), ``step_s`` (mean),
    ``pool`` that the queue waited for (optional).
    ``turned_away``: share of the requests that were not served, if these are most of those that miss the SLO (optional).
    ``spell``: they are those of the stretch in which the SLO was missed.
    """
    if not facts["finished"]:
        return "none", "No request finished, so nothing can be said about limits."
    working = {k: v for k, v in facts["shares"].items() if k not in ("idle", "other")}
    top = max(working, key=lambda k: working[k])
    takes = f"{WORDS[top]} takes {_share(working[top])} of the time"
    works = sum(v for k, v in facts["shares"].items() if k != "idle")
    of_steps = f"{WORDS[top]} takes {_share(working[top] / works if works > 0 else 0.0)} of their time"
    preempted = facts["preemptions"] / facts["finished"]
    blocked = facts["kv_blocked"] or 0.0
    then = " then" if facts.get("spell") else ""
    tail = (
        " The queue grew through the run: the offered load is above what the deployment serves." if facts["queue_grows"] else ""
    )
    pool = facts.get("pool")
    waited_for = "KV blocks" if pool is None else pool
    if blocked >= _KV_BLOCKED or preempted >= _PREEMPTED:
        why = (
            f"for {_share(blocked)} of the time the queue{then} waited for {waited_for}"
            if blocked >= _KV_BLOCKED
            else "blocks ran out under load"
        )
        lost = f", and {_count(facts['preemptions'], 'preemption')} threw work away" if facts["preemptions"] else ""
        return "kv_capacity", f"KV cache capacity breaks first: {why}{lost}.{tail}"
    if facts["queue_grows"] or facts["queue_share"] >= _QUEUED:
        wait = f"requests{then} wait for {_share(facts['queue_share'])} of their time before they are scheduled"
        idle = facts["shares"].get("idle", 0.0)
        if idle > _IDLE and not facts.get("spell"):
            return (
                "queueing",
                f"Queueing breaks first: {wait}, although the replicas idle {_share(idle)} of the time (bursts, or a limit on the batch).",
            )
        return "queueing", f"Queueing breaks first: {wait}; {takes}.{tail}"
    if facts.get("met") is False:
        if facts.get("turned_away"):
            lost = _share(facts["turned_away"])
            return (
                top,
                f"The SLO is missed by requests that were turned away or failed ({lost} of all), not by those that were served: {takes}.",
            )
        step_s = facts.get("step_s")
        step = f" ({show_seconds(step_s)} on average)" if step_s else ""
        if facts.get("spell"):
            return top, f"Steps were too long then{step}, not the queue; over the whole run {takes}."
        step = step.replace(")", ", longer at times)")  # the mean may lie below the target that some requests miss
        return top, f"Steps are too long for the SLO{step}, not the queue: {of_steps}."
    return top, f"Nothing is saturated: {takes}, and limits first when load grows."


def _share(value: float) -> str:
    """``0.604`` → ``60%``; never 100% for what is below it."""
    return f"{min(round(100 * value), 99 if value < 1.0 else 100)}%"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
