"""Small rules of SGLang's router and of smg. Source: lightseekorg/smg model_gateway/src/policies @ 73da68ca."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
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


def prefix_hash(loads: Sequence[float], owner: int, factor: float = 1.25) -> int:
    """The worker of the ring unless it has too much; then the least loaded of those that have not, the first of equals; nobody: the ring's."""
    total, n = sum(loads), len(loads)
    able = [i for i in range(n) if load_ok(loads[i], total, n, factor)]
    if owner in able or not able:
        return owner
    return min(able, key=lambda i: (loads[i], i))


class Buckets:
    """``bucket``: workers share the prompt lengths (in characters) among them; boundaries follow what came lately.

    *Assumed*: the sliding period over which characters and lengths are kept is the interval of adjustment.
    """

    def __init__(self, workers: int, abs_threshold: float, rel_threshold: float, interval: float) -> None:
        self._abs, self._rel, self._interval = abs_threshold, rel_threshold, interval
        self._bounds = [4096.0 / workers * (i + 1) for i in range(workers - 1)]
        self._recent: deque[tuple[float, int, int]] = deque()
        self.workers = workers
        self._load = [0] * workers
        self._at = interval
        self._before: list[int] | None = None

    def choose(self, now: float, length: int) -> int:
        """The worker for a prompt; it counts as sent."""
        while self._recent and self._recent[0][0] <= now - self._interval:
            _, worker, size = self._recent.popleft()
            self._load[worker] -= size
        if now >= self._at:
            self._adjust()
            self._at = (now // self._interval + 1.0) * self._interval
        low, high = min(self._load), max(self._load)
        if high - low > self._abs and high > self._rel * low:
            worker = self._load.index(low)
        else:
            worker = bisect_left(self._bounds, length)
        self._load[worker] += length
        self._recent.append((now, worker, length))
        return worker

    def _adjust(self) -> None:
        """New boundaries where the load of a bucket has doubled or halved: each is to get as many characters."""
        before, self._before = self._before, list(self._load)
        if before is not None and all(b and a and 0.5 <= a / b <= 2.0 for a, b in zip(self._load, before, strict=True)):
            return
        lengths = sorted(size for *_, size in self._recent)
        share, total = sum(lengths) / len(self._load), 0
        bounds: list[float] = []
        for length in lengths:
            total += length
            if share and total >= share * (len(bounds) + 1) and len(bounds) < len(self._load) - 1:
                bounds.append(float(length))
        if len(bounds) == len(self._load) - 1:
            self._bounds = bounds


def retry_delay(attempt: int, initial_ms: float = 50.0, max_ms: float = 30_000.0, multiplier: float = 1.5) -> float:
    """Milliseconds before attempt ``attempt`` + 1, without jitter."""
    return min(initial_ms * multiplier**attempt, max_ms)
