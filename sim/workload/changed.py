"""A traffic made of another one, whose requests are changed block by block."""

from __future__ import annotations

from collections.abc import Iterator

from sim.workload.base import Traffic
from sim.workload.table import RequestBlock


class ChangedTraffic(Traffic):
    """``inner`` with every block as `_changed` makes it, at any rate and of any length."""

    def __init__(self, inner: Traffic) -> None:
        self._inner = inner
        self.notes, self.tenants, self.waits, self.images = inner.notes, inner.tenants, inner.waits, inner.images
        self.total, self.max_prompt_tokens, self.max_tokens = inner.total, inner.max_prompt_tokens, inner.max_tokens

    def _changed(self, block: RequestBlock) -> RequestBlock:
        """A block as this traffic has it."""
        raise NotImplementedError

    def _around(self, inner: Traffic) -> Traffic:
        """The same change of another traffic."""
        raise NotImplementedError

    @property
    def mean_rate(self) -> float:
        """Mean arrivals per second."""
        return self._inner.mean_rate

    def _chunks(self) -> Iterator[RequestBlock]:
        return (self._changed(block) for block in self._inner._chunks())

    def conversations(self) -> Iterator[RequestBlock]:
        """Those of the other traffic."""
        return (self._changed(block) for block in self._inner.conversations())

    def _up_to(self, max_total_tokens: int) -> Traffic:
        return self._around(self._inner._up_to(max_total_tokens))

    def _with_rate(self, rate: float) -> Traffic:
        return self._around(self._inner._with_rate(rate))
