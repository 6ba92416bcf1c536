"""``bottleneck`` of a summary: where time went, which limit is met first, and that in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from sim.ledger import FINISHED
from sim.metrics import bottleneck, hand_over
from sim.metrics.facts import Facts
from sim.metrics.latency import Latency, number
from sim.metrics.section import Section
from sim.metrics.sections.kv_pools import KvUse, longest_waited
from sim.metrics.spell import Spell
from sim.metrics.utilisation import Utilisation


@dataclass(frozen=True)
class Bottleneck(Section):
    """``limit``: which is met first, in one word, and ``sentence``: why.

    ``shares`` of the time by kind add to 1, as those of ``request_time`` (a mean request, by stage) do; ``parts_s``: seconds of all steps
    by part.
    """

    limit: str
    sentence: str
    shares: Mapping[str, float]
    parts_s: Mapping[str, float]
    request_time: Mapping[str, float | None]
    kv_blocked: float | None
    queue_grows: bool


def _turned_away(facts: Facts) -> float:
    """Share of requests that were rejected or failed, where more of them miss the SLO than of those that were served; else 0."""
    ended = int(np.count_nonzero(facts.counted))
    lost = int(np.count_nonzero(facts.counted & ~facts.finished))
    late = int(np.count_nonzero(facts.counted & facts.finished & ~facts.ok))
    return lost / ended if lost > late else 0.0


def find_bottleneck(
    facts: Facts, use: Utilisation, latency: Latency, preemptions: int, met: bool | None, spell: Spell | None
) -> Bottleneck:
    """``met``: the SLO holds; ``spell``: the stretch in which it did not, which is then judged by itself."""
    record, columns = facts.record, facts.columns
    shares = bottleneck.time_shares(record.parts, record.part_names, use.busy or 0.0)
    e2e, ttft, ingress, queue = (s.mean for s in (latency.e2e, latency.ttft, latency.ingress, latency.queue))
    stages: dict[str, float | None] = dict.fromkeys(("ingress", "queue", "prefill", "decode"))
    if e2e and ttft is not None and ingress is not None and queue is not None:
        computed = ttft - ingress - queue
        stages = {"ingress": ingress / e2e, "queue": queue / e2e, "prefill": computed / e2e, "decode": (e2e - ttft) / e2e}
    grows = bottleneck.queue_grows(columns)
    known: bottleneck.Judged = {
        "finished": facts.number_of(FINISHED),
        "shares": shares,
        "kv_blocked": use.kv_blocked,
        "preemptions": preemptions,
        "queue_share": bottleneck.waiting(columns, facts.finished) / e2e if e2e else 0.0,
        "queue_grows": grows,
        "met": met,
        "turned_away": _turned_away(facts),
        "step_s": use.step_time_mean_s,
        "pool": longest_waited(cast("Sequence[KvUse]", record.stations.get("kv_pools", ()))),
    }
    if spell is not None:  # a spike is judged by itself, not by the average of the run around it
        known |= bottleneck.within(spell, columns, record.series)
    limit, sentence = bottleneck.judge(known)
    if "prefill_replica" in columns:
        stages = hand_over.shares(columns, columns["status"] == FINISHED)
        prefills = hand_over.sides(columns, record.parts.shape[0])
        if limit != "none":
            preempted = known["preemptions"] / known["finished"]
            limit, sentence = hand_over.judge(stages, facts.load, prefills, preempted, grows, met)
    return Bottleneck(
        limit=limit,
        sentence=sentence,
        shares=shares,
        parts_s=dict(zip(record.part_names, map(float, record.parts.sum(axis=0)), strict=True)),
        request_time={k: number(v) if v is not None else None for k, v in stages.items()},
        kv_blocked=use.kv_blocked,
        queue_grows=grows,
    )
