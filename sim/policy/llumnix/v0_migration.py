"""Between which instances and which requests migrate, Llumnix v0.

``llumnix/global_scheduler/migration_filter.py``, ``migration_policy.py``, ``llumlet/local_migration_scheduler.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from sim.policy.llumnix.v0_load import METRICS, InstanceInfo, by_load, remaining_steps

OUT_THRESHOLD = -3.0
_LOAD = METRICS["remaining_steps"]


def sources(instances: Sequence[InstanceInfo], threshold: float = OUT_THRESHOLD) -> list[InstanceInfo]:
    """Instances that preempted something, or have at most ``threshold`` steps left."""
    return [i for i in instances if i.num_killed_requests > 0 or remaining_steps(i) <= threshold]


def destinations(instances: Sequence[InstanceInfo], threshold: float = OUT_THRESHOLD) -> list[InstanceInfo]:
    """Instances that preempted nothing and have at least ``threshold`` steps left; exactly there an instance is both."""
    return [i for i in instances if i.num_killed_requests == 0 and remaining_steps(i) >= threshold]


def defrag(instances: Sequence[InstanceInfo], threshold: float = OUT_THRESHOLD) -> list[tuple[str, str]]:
    """(source, destination) ids: the i-th most loaded source with the i-th least loaded destination. Whether it helps is not asked."""
    out = reversed(by_load(sources(instances, threshold), _LOAD))
    into = by_load(destinations(instances, threshold), _LOAD)
    return [(a.instance_id, b.instance_id) for a, b in zip(out, into, strict=False)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request on the source: its id, tokens computed, when it came, whether it still waits and what it waits for in blocks."""

    request: int
    tokens: int
    arrival: float
    waiting: bool = False


def choose(policy: str, running: Sequence[Candidate], waiting: Sequence[Candidate]) -> Candidate | None:
    """The request that ``request_migration_policy`` moves, or None.

    LCR the last that came to the running batch, SR the shortest, LR the longest, FCW the first waiting (only if it is the earliest of all),
    FCWSR that, else SR. ``running`` in order of the batch, ``waiting`` in order of the queue.
    """
    if policy == "LCR":
        return running[-1] if running else None
    if policy == "SR":
        return min(running, key=lambda c: c.tokens, default=None)
    if policy == "LR":
        return max(running, key=lambda c: c.tokens, default=None)
    if policy not in ("FCW", "FCWSR"):
        raise ValueError(policy)
    earliest = min((c.arrival for c in waiting), default=inf)
    first = waiting[0] if waiting and waiting[0].arrival <= earliest else None
    if first is None and policy == "FCWSR":
        return choose("SR", running, waiting)
    return first
