"""Load of an instance as Llumnix v0 computes it (``llumnix/load_computation.py``). Sizes in KV blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cmp_to_key
from math import inf

ADAPTIVE_BATCH = 128
"""Decode batch that ``adaptive_decode`` fills an instance up to."""


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """What an instance reports at a poll; names as upstream's ``InstanceInfo``."""

    instance_id: str
    num_total_gpu_blocks: int
    num_used_gpu_blocks: int = 0
    num_running_requests: int = 0
    num_waiting_requests: int = 0
    num_blocks_first_waiting_request: int = 0
    num_blocks_all_waiting_requests: int = 0
    num_blocks_last_running_request: int = 0
    num_killed_requests: int = 0
    decode_batch_size: int = 0
    num_miss_tokens_all_waiting_requests: int = 0
    enable_defrag: bool = False


def kv_blocks_ratio(i: InstanceInfo) -> float:
    """Blocks in use and wanted by everything that waits, as a share of all. *Range* ≥ 0; infinite without memory."""
    if i.num_total_gpu_blocks == 0:
        return inf
    return (i.num_used_gpu_blocks + i.num_blocks_all_waiting_requests) / i.num_total_gpu_blocks


def remaining_steps(i: InstanceInfo, requests: int = 0, blocks: int = 0) -> float:
    """Blocks left over for each request: how many blocks each may still grow by ("freeness"). Larger is emptier; infinite when idle.

    ``requests`` and ``blocks``: change by a migration, of running requests and of used blocks.
    """
    running = i.num_running_requests + requests
    if i.enable_defrag:
        wanted = i.num_blocks_first_waiting_request
        n = running + (i.num_waiting_requests > 0)
    else:
        wanted = i.num_blocks_all_waiting_requests
        n = running + i.num_waiting_requests
    return (i.num_total_gpu_blocks - i.num_used_gpu_blocks - blocks - wanted) / n if n else inf


def after_migrate_in(i: InstanceInfo) -> float:
    """`remaining_steps` if one more request of the size of the last running one came."""
    return remaining_steps(i, 1, i.num_blocks_last_running_request)


def after_migrate_out(i: InstanceInfo) -> float:
    """`remaining_steps` if the last running request went."""
    return remaining_steps(i, -1, -i.num_blocks_last_running_request)


def adaptive_decode(i: InstanceInfo) -> float:
    """Smallest for the fullest batch below 128; an empty instance comes last of those that are not full."""
    batch = i.decode_batch_size
    if batch == 0:
        return float(ADAPTIVE_BATCH)
    return float(batch if batch >= ADAPTIVE_BATCH else ADAPTIVE_BATCH - batch)


def miss_waiting_tokens(i: InstanceInfo) -> float:
    """Prompt tokens of waiting requests that the prefix cache does not hold."""
    return float(i.num_miss_tokens_all_waiting_requests)


@dataclass(frozen=True, slots=True)
class LoadMetric:
    """``value`` of an instance, whether it is ``busy``, and ``less(a, b)``: a is less loaded than b."""

    name: str
    value: Callable[[InstanceInfo], float]
    busy: Callable[[InstanceInfo], bool]
    less: Callable[[float, float], bool] = lambda a, b: a < b


METRICS = {
    m.name: m
    for m in (
        # the comparison is ≥, so of equals each is less than the other: sorting reverses them (`RemainingStepsLoad.__lt__`)
        LoadMetric("remaining_steps", remaining_steps, lambda i: remaining_steps(i) < 10, lambda a, b: a >= b),
        LoadMetric("kv_blocks_ratio", kv_blocks_ratio, lambda i: kv_blocks_ratio(i) >= 1.0),
        LoadMetric("adaptive_decode", adaptive_decode, lambda i: adaptive_decode(i) > ADAPTIVE_BATCH),
        LoadMetric("miss_waiting_tokens", miss_waiting_tokens, lambda i: miss_waiting_tokens(i) >= 1e6),
    )
}

DISPATCH_METRIC = {
    "neutral": "remaining_steps",
    "prefill": "kv_blocks_ratio",
    "decode": "remaining_steps",
    "prefill_as_decode": "adaptive_decode",
    "decode_as_prefill": "kv_blocks_ratio",
}
"""Metric by type of instance (defaults of ``llumnix/config/default.py``)."""


def by_load(instances: Iterable[InstanceInfo], metric: LoadMetric) -> list[InstanceInfo]:
    """Least loaded first. Python's sort asks only whether a later element is less than an earlier one, so that decides ties."""
    less, value = metric.less, metric.value

    def compare(a: InstanceInfo, b: InstanceInfo) -> int:
        return -1 if less(value(a), value(b)) else 1

    return sorted(instances, key=cmp_to_key(compare))
