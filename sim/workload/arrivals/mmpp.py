"""Markov-modulated Poisson arrivals: calm and bursts that come by chance."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sim.registry import register
from sim.units import Seconds
from sim.workload.arrivals._base import FASTEST, SLOWEST, Arrival
from sim.workload.arrivals._shaped import RateOrNone
from sim.workload.settings import Params
from sim.workload.table import BLOCK_ROWS

_STAYS = 4096  # stays in states that are drawn at once
_FEWEST = 1e-3  # requests in the longest state: with fewer no state can be told

Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class State(Params):
    """One state of the load."""

    rate: RateOrNone = Field(description="mean arrivals per second in this state")
    lasts: Seconds = Field(ge=1e-6, le=1e9, description="mean time in this state, exponentially distributed")
    then: tuple[Weight, ...] | None = Field(
        default=None, description="weights of the states that follow, in the order of the list; null: every other one alike"
    )


class MmppParams(Params):
    """The states; the first one is where traffic begins."""

    states: tuple[State, ...] = Field(min_length=2, max_length=64, description="such as a calm one and a burst")

    @model_validator(mode="after")
    def _sound(self) -> MmppParams:
        for i, s in enumerate(self.states):
            if s.then is not None and (len(s.then) != len(self.states) or not sum(s.then) or s.then[i]):
                raise ValueError(f"states[{i}].then must have a weight for each of {len(self.states)} states, none for itself")
        if not SLOWEST <= self.mean <= FASTEST:
            raise ValueError(f"the mean rate must be in [{SLOWEST:g}/s, {FASTEST:g}/s]")
        if self.mean * max(s.lasts for s in self.states) < _FEWEST:
            raise ValueError("states change thousands of times between two requests: poisson arrivals are the same")
        return self

    @property
    def moves(self) -> NDArray[np.float64]:
        """f8[from, to]: probabilities of the next state."""
        n = len(self.states)
        rows = [np.array(s.then, float) if s.then is not None else 1.0 - np.eye(n)[i] for i, s in enumerate(self.states)]
        return np.array([r / r.sum() for r in rows])

    @property
    def mean(self) -> float:
        """Mean arrivals per second in the long run."""
        moves, n = self.moves, len(self.states)
        visits = np.linalg.lstsq(np.vstack([moves.T - np.eye(n), np.ones(n)]), np.append(np.zeros(n), 1.0), rcond=None)[0]
        time = np.maximum(visits, 0.0) * [s.lasts for s in self.states]
        return float((time * [s.rate for s in self.states]).sum() / time.sum())


@register("arrival")
class Mmpp(Arrival):
    """Poisson arrivals whose rate is that of a state, which a Markov chain changes (MMPP). Another mean rate leaves the states' times alone."""

    name = "mmpp"
    Params = MmppParams
    params: MmppParams
    _factor = 1.0

    @property
    def rate(self) -> float:
        """Mean arrivals per second in the long run."""
        return float(self.params.mean) * self._factor

    def with_rate(self, rate: float) -> Self:
        """The same states at the same times, their rates higher or lower."""
        changed = copy.copy(self)
        changed._factor = rate / self.params.mean
        return changed

    def times(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Endless chunks of arrival times in seconds: arrivals of rate 1, their times changed by the inverse of the mean count."""
        path = self._path(np.random.Generator(np.random.Philox(key=rng.integers(0, 2**63, 2, dtype=np.uint64))))
        expected = ends = np.zeros(1)  # at the borders of the stays that are known
        last = 0.0
        while True:
            counts = last + np.cumsum(rng.standard_exponential(BLOCK_ROWS))
            keep = max(int(np.searchsorted(expected, last, side="right")) - 1, 0)
            expected, ends, last = expected[keep:], ends[keep:], float(counts[-1])
            more_expected, more_ends = [expected], [ends]
            while more_expected[-1][-1] < last:
                rates, seconds = next(path)
                begun = more_expected[-1][-1], more_ends[-1][-1]
                more_expected.append(begun[0] + np.cumsum(rates * seconds))
                more_ends.append(begun[1] + np.cumsum(seconds))
            expected, ends = np.concatenate(more_expected), np.concatenate(more_ends)
            at = np.searchsorted(expected, counts, side="left")  # the border at which the stay of each arrival ends
            width = expected[at] - expected[at - 1]
            share = np.divide(counts - expected[at - 1], width, out=np.zeros_like(counts), where=width > 0)
            yield np.maximum.accumulate(ends[at - 1] + share * (ends[at] - ends[at - 1]))

    def _path(self, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Rates and seconds of stays, one after the other."""
        states = self.params.states
        rate = np.array([s.rate for s in states]) * self._factor
        lasts = np.array([s.lasts for s in states])
        edges = np.cumsum(self.params.moves, axis=1)
        now = 0
        while True:
            drawn = rng.random(_STAYS)
            following = [np.minimum(np.searchsorted(row, drawn, side="right"), len(states) - 1).tolist() for row in edges]
            visited = []
            for k in range(_STAYS):
                visited.append(now)
                now = following[now][k]
            yield rate[visited], lasts[visited] * rng.standard_exponential(_STAYS)
