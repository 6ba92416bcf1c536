"""Requests from a trace file that is too large to be held: read again, piece by piece, whenever they are asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sim.errors import ConfigError
from sim.workload.base import Traffic
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Trace

HELD_ROWS = 4_000_000
HELD_SPANS = 16_000_000
"""A trace with more requests or more pieces of prompts than this is not held in memory."""

Window = tuple[float, float]


class StreamedTraffic(Traffic):
    """A trace read in pieces of some tens of megabytes. One pass counts the requests, each run is another.

    ``make``: a fresh reader; ``window``: seconds [start, end) from the first request of the file; ``limit``: at most so many requests.
    """

    def __init__(
        self, make: Callable[[], Trace], path: Path, window: Window | None, limit: int | None, max_tokens: int | None, speed: float = 1.0,
        longest: int | None = None,
    ) -> None:  # fmt: skip
        self._make, self._path, self._window, self._limit, self._client_limit = make, path, window, limit, max_tokens
        self._speed, self._longest = speed, longest
        rows = prompt = total = 0
        first = last = 0.0
        for block in self._raw():
            self.waits = self.waits or block.waits is not None
            if rows == 0:
                first = float(block.arrival_s[0])
            rows, last = rows + len(block), float(block.arrival_s[-1])
            prompt = max(prompt, int(block.prompt_tokens.max()))
            total = max(total, int((block.prompt_tokens.astype(np.int64) + block.output_tokens).max()))
        if not rows:
            what = "window" if window is not None else "path"
            raise ConfigError(f"traffic.trace.{what}", list(window) if window else str(path), "leaves no request")
        self.total, self.max_prompt_tokens, self.max_tokens = rows, prompt, total
        self._natural = (rows - 1) / (last - first) if last > first else float("nan" if rows < 2 else "inf")

    @property
    def mean_rate(self) -> float:
        """Arrivals after the first one, over the time from the first to the last."""
        return self._natural * self._speed

    def at(self, speed: float) -> StreamedTraffic:
        """The same requests, so many times faster than recorded."""
        changed = copy.copy(self)
        changed._speed = speed
        return changed

    def _with_rate(self, rate: float) -> Traffic:
        if not np.isfinite(self._natural):
            raise ConfigError("traffic.trace.rate", rate, "cannot be set: the requests of this trace all arrive at one time")
        return self.at(rate / self._natural)

    def _up_to(self, max_total_tokens: int) -> Traffic:
        made = StreamedTraffic(
            self._make, self._path, self._window, self._limit, self._client_limit, self._speed, max_total_tokens
        )
        made.notes = self.notes
        return made

    def _chunks(self) -> Iterator[RequestBlock]:
        for block in self._raw():
            block.arrival_s = block.arrival_s / self._speed
            yield block

    def _raw(self) -> Iterator[RequestBlock]:
        """Requests at recorded speed, cut."""
        left = self._limit
        start, end = self._window or (0.0, float("inf"))
        for block in self._make().pieces(self._path):
            if block.arrival_s[0] >= end:
                return
            if self._window is not None:
                lo, hi = np.searchsorted(block.arrival_s, [start, end])
                block = block[int(lo) : int(hi)]
                block.arrival_s = block.arrival_s - start
            if left is not None:
                block, left = block[:left], left - min(left, len(block))
            if self._longest is not None and len(block):
                block = block.where(block.prompt_tokens.astype(np.int64) + block.output_tokens <= self._longest)
            if len(block):
                yield block.limited(self._client_limit)
            if left == 0:
                return
