"""What traffic is: an ordered stream of requests in blocks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Self

from sim.errors import ConfigError
from sim.workload.arrivals._base import FASTEST, SLOWEST
from sim.workload.table import BLOCK_ROWS, RequestBlock, reblock

if TYPE_CHECKING:
    from sim.workload.closed_loop import ClosedLoop
    from sim.workload.mixed import ClassFacts

LARGEST_BLOCK = 65_536


class Traffic:
    """Requests of one scenario. `blocks` can be called any number of times and always yields the same requests."""

    total: int | None = None
    """How many requests there are; None when the traffic never ends."""
    max_prompt_tokens: int | None = None
    """No prompt is longer than this; None when unbounded."""
    max_tokens: int | None = None
    """No request's prompt + output is longer than this (the context length it needs); None when unbounded."""
    notes: tuple[str, ...] = ()
    """What a reader of results must know: parts that are left out or cut, and what was assumed of a file."""
    classes: tuple[ClassFacts, ...] = ()
    """The classes of clients, where ``klass`` of a request is a number of one of them."""
    tenants: tuple[str, ...] = ()
    """Names of tenants; ``tenant`` k of a request is the k-th of them, 0 none."""
    images: bool = False
    """Whether prompts hold images (`content.IMAGE`)."""
    waits: bool = False
    """Whether requests wait for the answers to others (`RequestBlock.waits`)."""
    loops: tuple[ClosedLoop, ...] = ()
    """Clients that wait for their answers, beside the requests of `blocks`."""
    until: float = float("inf")
    """Seconds after which nothing is sent any more, where answers decide when requests are sent; ``most``: nor after so many requests."""
    most: int | None = None
    closed_loop: ClosedLoop | None = None
    """Set when clients wait for their answers: ask it for requests and ignore the arrival times of `blocks`."""

    @property
    def mean_rate(self) -> float:
        """Mean arrivals per second; NaN when there is none (a single request), infinite when all arrive at once."""
        raise NotImplementedError

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[RequestBlock]:
        """All requests in order of arrival, in blocks of at most ``rows``; the requests do not depend on ``rows``."""
        if not 1 <= rows <= LARGEST_BLOCK:
            raise ConfigError("rows", rows, "is no block size", f"1 to {LARGEST_BLOCK}")
        return reblock(self._chunks(), rows)

    def with_rate(self, rate: float) -> Traffic:
        """The same requests at another mean rate: lengths, contents and order stay, time stretches."""
        if self.closed_loop is not None:
            raise ConfigError("traffic.closed_loop", self.closed_loop.concurrency, "waiting clients have no rate to set")
        if not SLOWEST <= rate <= FASTEST:
            raise ConfigError("rate", rate, f"must be in [{SLOWEST:g}, {FASTEST:g}] requests per second")
        return self._with_rate(rate)

    def scaled(self, factors: Mapping[str, float]) -> Traffic:
        """The same traffic with some of its classes at so many times their rate. Raises `ConfigError` for what has no such class."""
        raise ConfigError("traffic.classes", ", ".join(factors), "this traffic has no classes")

    def up_to(self, max_total_tokens: int) -> Traffic:
        """The same traffic for a server that accepts no more than ``max_total_tokens`` of prompt + output.

        Longer recorded requests are left out; synthetic ones are drawn again; sessions end before the turn that is too long.
        Raises `ConfigError` when nothing is left.
        """
        if self.max_tokens is not None and self.max_tokens <= max_total_tokens:
            return self
        changed = self._up_to(max_total_tokens)
        if self.closed_loop is None:
            return changed
        return changed.with_closed_loop(self.closed_loop.over(changed))

    def with_closed_loop(self, closed_loop: ClosedLoop) -> Self:
        """The same requests, asked for by waiting clients."""
        changed = copy.copy(self)
        changed.closed_loop = closed_loop
        return changed

    def conversations(self) -> Iterator[RequestBlock]:
        """The same requests with the turns of each session side by side, for clients that wait; arrival times mean nothing."""
        return self._chunks()

    def _chunks(self) -> Iterator[RequestBlock]:
        raise NotImplementedError

    def _up_to(self, max_total_tokens: int) -> Traffic:
        raise NotImplementedError

    def _with_rate(self, rate: float) -> Traffic:
        raise NotImplementedError
