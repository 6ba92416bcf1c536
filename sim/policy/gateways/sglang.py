"""Small rules of SGLang's router and of smg. Source: lightseekorg/smg model_gateway/src/policies @ 73da68ca."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """A worker as ``least_load`` sees it: own ``load``, and of its last report ``queued`` uncached tokens (None: it never reported), ``kv``

    usage, ``throughput`` in tokens/s, and tokens ``dispatched`` to it since.
    """

    load: float
    queued: float | None = None
    kv: float = 0.0
    throughput: float = 0.0
    dispatched: float = 0.0


def least_load(
    workers: Sequence[Reported],
    kv_pressure_weight: float = 0.15,
    default_throughput: float = 2000.0,
    mean_prefill_tokens: float = 1024.0,
) -> int:
    """Least expected wait: queued work over throughput, and a penalty for KV pressure; the first of equals."""
    seen = [w for w in workers if w.queued is not None]
    if not seen:
        return min(range(len(workers)), key=lambda i: (workers[i].load, i))
    mean = sum(w.throughput or default_throughput for w in seen) / len(seen)

    def cost(w: Reported) -> float:
        if w.queued is None:
            return w.load * mean_prefill_tokens / mean
        k = min(max(w.kv, 0.0), 0.999)
        return (w.queued + w.dispatched) / (w.throughput or default_throughput) + kv_pressure_weight * k / (1.0 - k)

    return min(range(len(workers)), key=lambda i: (cost(workers[i]), i))


def load_ok(load: float, total: float, workers: int, factor: float = 1.25) -> bool:
    """``prefix_hash``: whether the worker of the ring may take one more."""
    return total == 0 or load <= (total + 1) / workers * factor


def retry_delay(attempt: int, initial_ms: float = 50.0, max_ms: float = 30_000.0, multiplier: float = 1.5) -> float:
    """Milliseconds before attempt ``attempt`` + 1, without jitter."""
    return min(initial_ms * multiplier**attempt, max_ms)
