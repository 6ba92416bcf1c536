"""Requests from a trace file that is too large to be held in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError, NotModelledError
from sim.workload.base import Traffic
from sim.workload.kept import Kept
from sim.workload.table import RequestBlock

HELD_ROWS = 4_000_000
HELD_SPANS = 16_000_000
"""A trace with more requests or more pieces of prompts than this is not held in memory."""

Times = Callable[[], Iterator[NDArray[np.float64]]]


class StreamedTraffic(Traffic):
    """A trace that was read once, a piece at a time, and of which each run reads what was kept.

    ``longest``: requests with more tokens are left out; ``client_limit``: what clients allow; ``speed``: so many times faster than recorded;
    ``times`` draws the arrivals (s) of all requests afresh, instead of those recorded.
    """

    def __init__(
        self, kept: Kept, client_limit: int | None, speed: float = 1.0, longest: int | None = None, times: Times | None = None
    ) -> None:
        self._kept, self._client_limit, self._speed, self._longest, self._times = kept, client_limit, speed, longest, times
        rows = prompt = total = 0
        first = last = 0.0
        self._sessions = False
        for block in self._raw():
            self.waits = self.waits or block.waits is not None
            self._sessions = self._sessions or bool((block.session >= 0).any())
            if rows == 0:
                first = float(block.arrival_s[0])
            rows, last = rows + len(block), float(block.arrival_s[-1])
            prompt = max(prompt, int(block.prompt_tokens.max()))
            total = max(total, int((block.prompt_tokens.astype(np.int64) + block.output_tokens).max()))
        if not rows:
            raise ConfigError("traffic.trace", longest, "no request of the trace is this short")
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

    def conversations(self) -> Iterator[RequestBlock]:
        """The requests in order. Raises `NotModelledError` where turns would have to be brought together."""
        if self._sessions:
            why = f"the turns of a trace with more than {HELD_ROWS:,} requests cannot be sorted by session"
            raise NotModelledError("traffic.closed_loop", "set", why, "traffic.trace.limit or window")
        return self._chunks()

    def _with_rate(self, rate: float) -> Traffic:
        if not np.isfinite(self._natural):
            raise ConfigError("traffic.trace.rate", rate, "cannot be set: the requests of this trace all arrive at one time")
        return self.at(rate / self._natural)

    def _up_to(self, max_total_tokens: int) -> Traffic:
        made = StreamedTraffic(self._kept, self._client_limit, self._speed, max_total_tokens, self._times)
        made.notes = self.notes
        return made

    def _chunks(self) -> Iterator[RequestBlock]:
        for block in self._raw():
            block.arrival_s = block.arrival_s / self._speed
            yield block

    def _raw(self) -> Iterator[RequestBlock]:
        """Requests at recorded speed."""
        drawn = None if self._times is None else _some_at_a_time(self._times())
        for block in self._kept.blocks():
            if drawn is not None:
                block.arrival_s = drawn(len(block))
            if self._longest is not None:
                block = block.where(block.prompt_tokens.astype(np.int64) + block.output_tokens <= self._longest)
            if len(block):
                yield block.limited(self._client_limit)


def _some_at_a_time(times: Iterator[NDArray[np.float64]]) -> Callable[[int], NDArray[np.float64]]:
    """Hands out the next ``n`` of an endless series that comes in arrays of any length."""
    held = np.zeros(0)

    def take(n: int) -> NDArray[np.float64]:
        nonlocal held
        parts, count = [held], len(held)
        while count < n:
            parts.append(next(times))
            count += len(parts[-1])
        whole = np.concatenate(parts)
        held = whole[n:]
        return whole[:n]

    return take
