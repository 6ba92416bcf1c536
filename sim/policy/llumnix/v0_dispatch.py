"""Which instance gets a new request, Llumnix v0 (``llumnix/global_scheduler/dispatch_policy.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sim.policy.llumnix.v0_load import InstanceInfo, LoadMetric, by_load

Pick = Callable[[int], int]
"""``pick(n)``: a number in [0, n), for the choice among the ``topk_random_dispatch`` best."""

CHUNK = 256
"""Tokens of a chunk of the prefix key; an unfull last chunk has none."""
TRANSFER_GAIN = 1000
"""A remote hit counts when it is more than so many tokens longer than the chosen instance's own."""
TRANSFER_PENALTY = 0.7


def available(instances: Sequence[InstanceInfo], metric: LoadMetric) -> tuple[list[InstanceInfo], bool]:
    """Instances that are not busy; all, and True, when every one is."""
    free = [i for i in instances if not metric.busy(i)]
    return (free, False) if free else (list(instances), True)


def _of_best(order: Sequence[InstanceInfo], topk: int, pick: Pick | None) -> str:
    k = min(topk, len(order))
    return order[pick(k) if pick is not None and k > 1 else 0].instance_id


def load(instances: Sequence[InstanceInfo], metric: LoadMetric, topk: int = 1, pick: Pick | None = None) -> str:
    """The least loaded of those not busy."""
    return _of_best(by_load(available(instances, metric)[0], metric), topk, pick)


def queue(instances: Sequence[InstanceInfo], topk: int = 1, pick: Pick | None = None) -> str:
    """The fewest waiting requests; of equals the one registered first."""
    return _of_best(sorted(instances, key=lambda i: i.num_waiting_requests), topk, pick)


def balanced(instances: Sequence[InstanceInfo], dispatched: Mapping[str, int], topk: int = 1, pick: Pick | None = None) -> str:
    """The fewest requests dispatched so far."""
    return _of_best(sorted(instances, key=lambda i: dispatched[i.instance_id]), topk, pick)


def flood(instances: Sequence[InstanceInfo], dispatched: Mapping[str, int], topk: int = 1, pick: Pick | None = None) -> str:
    """The most requests dispatched so far."""
    return _of_best(sorted(instances, key=lambda i: -dispatched[i.instance_id]), topk, pick)


def rr(instances: Sequence[InstanceInfo], turn: int) -> str:
    """Sorted ids in turn; ``turn`` counts the requests."""
    ids = sorted(i.instance_id for i in instances)
    return ids[turn % len(ids)]


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """``hit_length`` tokens need no prefill, of which a transfer from elsewhere costs (1 − ``transfer_penalty``)."""

    instance_id: str
    hit_length: int
    transfer_penalty: float


def cacheaware(
    instances: Sequence[InstanceInfo],
    hits: Mapping[str, int],
    metric: LoadMetric,
    topk: int = 1,
    pick: Pick | None = None,
) -> CacheChoice:
    """The available instance with the most consecutive hit chunks (``hits``, by instance), without any the least loaded."""
    free, _ = available(instances, metric)
    best = max((hits.get(i.instance_id, 0) for i in free), default=0)
    if best > 0:
        chosen = next(i.instance_id for i in free if hits.get(i.instance_id, 0) == best)
    else:
        chosen = _of_best(by_load(free, metric), topk, pick)
    here = CHUNK * hits.get(chosen, 0)
    anywhere = CHUNK * max((hits.get(i.instance_id, 0) for i in instances), default=0)
    if anywhere - here > TRANSFER_GAIN:
        return CacheChoice(chosen, anywhere, TRANSFER_PENALTY)
    return CacheChoice(chosen, here, 1.0)
