"""What rows of upstream unit tests hold, rule by rule; of recordings of gateways, what whole files hold."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class CacheAwareRow(TypedDict):
    """Requests that arrive one after the other, and where they go."""

    cache_threshold: float
    balance_abs_threshold: NotRequired[int]
    balance_rel_threshold: NotRequired[float]
    loads: list[int]
    requests: list[str]
    expect: str | list[int]


class LoadOkRow(TypedDict):
    """Whether a worker's load is within bounds."""

    load: int
    total: int
    n: int
    load_factor: float
    expect: bool


class ReportedLoad(TypedDict, total=False):
    """What a worker reports."""

    load: int
    queued: int
    kv: float
    tput: float
    dispatched: float


class LeastLoadRow(TypedDict):
    """Which worker is the least loaded."""

    workers: list[ReportedLoad]
    kv_pressure_weight: NotRequired[float]
    default_throughput: NotRequired[float]
    mean_prefill_tokens: NotRequired[float]
    expect: int | str


class DelayRow(TypedDict):
    """Milliseconds before a retry."""

    attempt: int
    initial_ms: float
    max_ms: float
    multiplier: float
    expect: float


class LogitRow(TypedDict):
    """The cost of one worker."""

    bs: int
    isl: int
    prefill_load_scale: NotRequired[float]
    overlap_score_credit: NotRequired[float]
    overlap_score_credit_decay: NotRequired[float]
    decode_active_request_weight: NotRequired[float]
    track_prefill_tokens: NotRequired[bool]
    worker_type: NotRequired[str]
    device_blocks: NotRequired[float]
    active_prefill_tokens: NotRequired[float]
    active_decode_blocks: NotRequired[float]
    additional_active_blocks: NotRequired[float]
    active_requests: NotRequired[float]
    cached_tokens: NotRequired[float]
    expect: float


class SelectRow(TypedDict):
    """The workers that may be taken; figures by worker."""

    bs: int
    isl: int
    device_blocks: NotRequired[list[float]]
    effective_overlap_blocks: NotRequired[list[float]]
    active_prefill_tokens: NotRequired[list[float]]
    active_decode_blocks: NotRequired[list[float]]
    active_requests: NotRequired[list[float]]
    shared_ranges: NotRequired[list[tuple[int, int]]]
    prefill_load_scale: NotRequired[float]
    overlap_score_credit: NotRequired[float]
    overlap_score_credit_decay: NotRequired[float]
    shared_cache_multiplier: NotRequired[float]
    decode_active_request_weight: NotRequired[float]
    expect: int | list[int]


class SoftmaxRow(TypedDict):
    """Shares of the workers, or those that may be drawn."""

    logits: list[float]
    temperature: float
    expect: NotRequired[list[float]]
    expect_one_of: NotRequired[list[int]]


class PrefixRow(TypedDict):
    """Scores by tokens that are cached: matched, of how many, of blocks of what size."""

    match_total_bs: list[list[int] | None]
    matchLengthWeight: float
    matchLengthScaleTokens: NotRequired[float]
    expect: list[float]


class LoraEndpoint(TypedDict):
    """Adapters of an endpoint."""

    active: list[str]
    waiting: list[str]
    max: int


class LoraRow(TypedDict):
    """Scores by adapters."""

    target: str
    endpoints: list[LoraEndpoint]
    expect: list[float]


class ActiveRow(TypedDict):
    """Scores by requests in flight."""

    counts: list[int | None]
    idleThreshold: NotRequired[int]
    maxBusyScore: NotRequired[float]
    expect: list[float]


class TokensRow(TypedDict):
    """Scores by tokens."""

    inflight: list[int]
    uncached: list[int]
    threshold: float
    expect: list[float]


class Pod(TypedDict):
    """What is known of a pod, and how old that is."""

    queue: int
    kv: float
    age_ms: float | None


class UtilizationRow(TypedDict):
    """How saturated a pool is."""

    pods: list[Pod]
    stale_ms: float
    queueDepthThreshold: float
    kvCacheUtilThreshold: float
    expect: float


class PreciseRow(TypedDict):
    """Consecutive blocks that pods hold."""

    keys: list[int]
    hitmap: dict[str, list[tuple[str, str]]]
    weights: dict[str, float]
    expect: dict[str, float]


class QueueRow(TypedDict):
    """Scores by queues."""

    queues: list[int]
    threshold: NotRequired[float]
    expect: list[float]


class GatewayRecording(TypedDict):
    """``rows``: text, requests in flight by worker, the worker that was chosen."""

    package: str
    policy: str
    route: NotRequired[str]
    registry_order: list[int]
    cache_threshold: float
    balance_abs_threshold: int
    balance_rel_threshold: float
    rows: list[tuple[str, list[int], int]]


class DynamoRecording(TypedDict):
    """``rows``: prompt length, overlap, potential loads, costs, the worker that was chosen, …."""

    block_size: int
    rows: list[tuple[int, dict[str, float], dict[str, list[float]], dict[str, float], str]]
