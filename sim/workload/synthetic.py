"""Single requests from an arrival process, a length distribution and, if asked for, shared prefixes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np

from sim.errors import ConfigError
from sim.streams import stream
from sim.workload.arrivals._base import Arrival
from sim.workload.base import Traffic
from sim.workload.lengths._base import Length
from sim.workload.prefixes import Prefixes, prefixed_spans
from sim.workload.table import GivenSpans, RequestBlock


def how_many(arrival: Arrival, requests: int | None, seed: int) -> tuple[int | None, tuple[str, ...]]:
    """How many arrivals there are where ``requests`` are asked for (None: as many as come), and notes on that."""

    def fresh() -> np.random.Generator:
        return stream(seed, "arrivals")

    if requests is None:
        return arrival.whole(fresh()), ()
    total, said = arrival.to_the_end(fresh, requests)
    return total, (said,) if said else ()


class SyntheticTraffic(Traffic):
    """Independent requests. A shared prefix comes on top of the drawn prompt length.

    Without a number of ``requests`` arrivals that end by themselves (stages, a spike, a day) are played to their end; others never end. With
    one, the stage in which it is reached is still played to its end.
    """

    def __init__(
        self,
        arrival: Arrival,
        length: Length,
        requests: int | None,
        seed: int,
        prefixes: Prefixes | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._arrival, self._length, self._prefixes, self._seed = arrival, length, prefixes, seed
        self._client_limit = max_tokens
        self._asked = requests
        self.total, self.notes = how_many(arrival, requests, seed)
        self._shared = 0 if prefixes is None else prefixes.params.shared_tokens
        largest = length.largest_prompt, length.largest_total
        self.max_prompt_tokens, self.max_tokens = (None if x is None else x + self._shared for x in largest)

    @property
    def mean_rate(self) -> float:
        """Mean arrivals per second of the process."""
        return self._arrival.rate

    def _with_rate(self, rate: float) -> Traffic:
        changed = copy.copy(self)
        changed._arrival = self._arrival.with_rate(rate)
        if self._arrival.ends:  # its seconds stay
            changed._asked = None if self._asked is None else math.ceil(self._asked * rate / self.mean_rate)
            changed.total, changed.notes = how_many(changed._arrival, changed._asked, self._seed)
        return changed

    def _up_to(self, max_total_tokens: int) -> Traffic:
        if max_total_tokens < self._shared + 2:
            raise ConfigError(
                "traffic.synthetic.prefixes.shared_tokens", self._shared, f"leaves no room within {max_total_tokens} tokens"
            )
        length = self._length.within(max_total_tokens - self._shared)
        return SyntheticTraffic(self._arrival, length, self._asked, self._seed, self._prefixes, self._client_limit)

    def _chunks(self) -> Iterator[RequestBlock]:
        times = self._arrival.times(stream(self._seed, "arrivals"))
        pairs = self._length.pairs(stream(self._seed, "lengths"))
        groups = stream(self._seed, "prefixes")
        first = 0
        for arrival, (prompt, output) in zip(times, pairs, strict=False):
            n = len(arrival) if self.total is None else min(len(arrival), self.total - first)
            if n <= 0:
                return
            arrival, prompt, output = arrival[:n], prompt[:n], output[:n]
            spans: GivenSpans | None = None
            if self._prefixes is not None:
                spans = prefixed_spans(self._prefixes.draw(groups, n), self._shared, prompt, first)
                prompt = prompt + self._shared
            yield RequestBlock.of(arrival, prompt, output, first, spans=spans).limited(self._client_limit)
            first += n
