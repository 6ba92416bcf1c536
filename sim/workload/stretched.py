"""Traffic made worse: longer requests, the same requests in waves, or a spike among them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.workload.base import Traffic
from sim.workload.table import RequestBlock

_WAVE_S = 60.0


@dataclass(frozen=True)
class Spike:
    """From ``start`` on (seconds), for ``duration`` seconds, requests come ``factor`` times as fast."""

    factor: float
    start: float
    duration: float

    def warp(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where an arrival of the plain traffic goes: times within the spike are pressed together, later ones come earlier."""
        inside = np.clip(t - self.start, 0.0, self.factor * self.duration)
        return t - inside + inside / self.factor


@dataclass(frozen=True)
class Course:
    """A course of load: for ``seconds[i]`` requests come ``factors[i]`` times as fast, after that as fast as in the last part."""

    seconds: tuple[float, ...]
    factors: tuple[float, ...]

    def warp(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where an arrival of the plain traffic goes: the inverse of what has come by a time."""
        ends = np.concatenate([[0.0], np.cumsum(self.seconds)])
        come = np.concatenate([[0.0], np.cumsum(np.multiply(self.seconds, self.factors))])
        moved = np.interp(t, come, ends)
        beyond = t > come[-1]
        moved[beyond] = ends[-1] + (t[beyond] - come[-1]) / self.factors[-1]
        return np.asarray(moved, np.float64)


def stretched(traffic: Traffic, *, lengths: float = 1.0, burst: float = 1.0, spike: Spike | Course | None = None) -> Traffic:
    """The same traffic with prompts and answers ``lengths`` times as long, load that alternates within a minute between ``burst``
    times the rate and none (mean rate and order stay), or a ``spike`` or another course of load.

    Prompts whose content is shared (prefixes, sessions) keep their length; their answers grow. Raises `ConfigError` for waiting clients,
    whose arrivals are not the traffic's to move.
    """
    if traffic.closed_loop is not None and (burst != 1.0 or spike is not None):
        raise ConfigError("traffic.closed_loop", traffic.closed_loop.concurrency, "waiting clients have no arrivals to move")
    return _Stretched(traffic, lengths, burst, spike)


class _Stretched(Traffic):
    def __init__(self, inner: Traffic, lengths: float, burst: float, spike: Spike | Course | None) -> None:
        self._inner, self._lengths, self._burst, self._spike = inner, lengths, burst, spike
        self.total, self.images = inner.total, inner.images
        self.closed_loop, self.classes, self.tenants = inner.closed_loop, inner.classes, inner.tenants
        self.waits, self.loops, self.until, self.most = inner.waits, inner.loops, inner.until, inner.most
        self.max_prompt_tokens = None if inner.max_prompt_tokens is None else int(np.ceil(inner.max_prompt_tokens * lengths))
        self.max_tokens = None if inner.max_tokens is None else int(np.ceil(inner.max_tokens * lengths)) + 2

    @property
    def mean_rate(self) -> float:
        return self._inner.mean_rate

    def _with_rate(self, rate: float) -> Traffic:
        changed = copy.copy(self)
        changed._inner = self._inner.with_rate(rate)
        return changed

    def _up_to(self, max_total_tokens: int) -> Traffic:
        changed = copy.copy(self)
        changed._inner = self._inner.up_to(max(int(max_total_tokens / self._lengths) - 2, 2))
        changed.max_tokens = max_total_tokens
        return changed

    def _chunks(self) -> Iterator[RequestBlock]:
        for block in self._inner.blocks():
            if self._lengths != 1.0:
                names: tuple[str, ...] = ("output_tokens", "max_tokens")
                if not block.span_off[-1]:
                    names = ("prompt_tokens", *names)
                longer = {n: np.maximum(np.rint(getattr(block, n) * self._lengths), 1).astype(np.int32) for n in names}
                longer["max_tokens"] = np.maximum(longer["max_tokens"], longer["output_tokens"])
                block = replace(block, **longer)
            if self._burst != 1.0:
                wave = np.floor(block.arrival_s / _WAVE_S)
                block = replace(block, arrival_s=wave * _WAVE_S + (block.arrival_s - wave * _WAVE_S) / self._burst)
            if self._spike is not None:
                block = replace(block, arrival_s=self._spike.warp(block.arrival_s))
            yield block
