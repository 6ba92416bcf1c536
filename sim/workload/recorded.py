"""Requests from a trace file: cut, limited, and played at another speed."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from sim.errors import ConfigError
from sim.workload.base import Traffic
from sim.workload.table import BLOCK_ROWS, RequestBlock


class RecordedTraffic(Traffic):
    """A trace held in memory (about 50 bytes per request, and 24 per span)."""

    def __init__(self, block: RequestBlock, speed: float = 1.0) -> None:
        self._block = block
        self._speed = speed
        self.total = len(block)
        self.waits = block.waits is not None
        self.max_prompt_tokens = int(block.prompt_tokens.max())
        self.max_tokens = int((block.prompt_tokens.astype(np.int64) + block.output_tokens).max())

    @property
    def mean_rate(self) -> float:
        """Arrivals after the first one, over the time from the first to the last."""
        return natural_rate(self._block) * self._speed

    def _with_rate(self, rate: float) -> Traffic:
        changed = copy.copy(self)
        changed._speed = speed_for(natural_rate(self._block), rate)
        return changed

    def _up_to(self, max_total_tokens: int) -> Traffic:
        block = self._block
        keep = block.prompt_tokens.astype(np.int64) + block.output_tokens <= max_total_tokens
        if not keep.any():
            raise ConfigError("traffic.trace", max_total_tokens, "no request of the trace is this short")
        made = RecordedTraffic(block.where(keep), self._speed)
        made.notes = self.notes
        return made

    def conversations(self) -> Iterator[RequestBlock]:
        """The requests with the turns of each session side by side, sessions in order of their first request."""
        session = self._block.session
        if not (session >= 0).any():
            yield from self._chunks()
            return
        own = np.where(session >= 0, session, -2 - np.arange(len(session)))  # a request without a session is one of its own
        first = np.unique(own, return_index=True, return_inverse=True)
        order = np.argsort(first[1][first[2]], kind="stable")
        block = self._block.take(order)
        block.arrival_s = block.arrival_s / self._speed
        yield block

    def _chunks(self) -> Iterator[RequestBlock]:
        for lo in range(0, len(self._block), BLOCK_ROWS):
            block = self._block[lo : lo + BLOCK_ROWS]
            block.arrival_s = block.arrival_s / self._speed
            yield block


def natural_rate(block: RequestBlock) -> float:
    """Mean rate of a block as recorded, requests per second."""
    if len(block) < 2:
        return float("nan")
    span = float(block.arrival_s[-1] - block.arrival_s[0])
    return (len(block) - 1) / span if span > 0 else float("inf")


def speed_for(natural: float, rate: float) -> float:
    """Speed-up from a mean rate of ``natural`` to ``rate``. Raises `ConfigError` when the trace has no rate of its own."""
    if not np.isfinite(natural):
        raise ConfigError("traffic.trace.rate", rate, "cannot be set: the requests of this trace all arrive at one time")
    return rate / natural


def cut(block: RequestBlock, window: tuple[float, float] | None, limit: int | None, path: str) -> RequestBlock:
    """The first ``limit`` requests that arrive in [start, end) seconds from the first of all, counted from ``start``."""
    if window is not None:
        start, end = window
        if not 0 <= start < end:
            raise ConfigError("traffic.trace.window", list(window), "must be [start, end] with 0 <= start < end")
        lo, hi = np.searchsorted(block.arrival_s, [start, end])
        if lo == hi:
            last = float(block.arrival_s[-1])
            raise ConfigError(
                "traffic.trace.window", list(window), f"no request of {path} arrives then; its last one comes at {last:.6g} s"
            )
        block = block[int(lo) : int(hi)]
        block.arrival_s = block.arrival_s - start
    return block if limit is None else block[:limit]
