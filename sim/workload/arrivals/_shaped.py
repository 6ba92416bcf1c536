"""Arrivals whose rate is a given curve of time: a non-homogeneous Poisson process over straight pieces."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from sim.errors import ConfigError
from sim.units import parse_rate, show_number
from sim.workload.arrivals._base import FASTEST, Arrival
from sim.workload.table import BLOCK_ROWS

RateOrNone = Annotated[
    float, BeforeValidator(parse_rate), Field(ge=0, le=FASTEST, json_schema_extra={"type": ["number", "string"]})
]
"""Arrivals per second, 0 allowed."""

_MOST_MORE = 50_000_000
"""Requests beyond the number asked for that a stage may bring until it ends."""
_MOST = 500_000_000
"""Requests: each is drawn before the run, as the stage in which the last one comes has to be known."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Straight pieces of a rate. *Shape*: f8[pieces] each: arrivals per second at the beginning and at the end, seconds."""

    first: NDArray[np.float64]
    last: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @classmethod
    def through(cls, rates: NDArray[np.float64], seconds: float) -> Curve:
        """Through ``rates`` f8[n] at equal distances over ``seconds``, back to the first one at the end: something that comes again."""
        return cls(rates, np.roll(rates, -1), np.full(len(rates), seconds / len(rates)))

    @property
    def arrivals(self) -> NDArray[np.float64]:
        """Mean number of arrivals of each piece."""
        return 0.5 * (self.first + self.last) * self.seconds

    @property
    def mean(self) -> float:
        """Mean arrivals per second."""
        return float(sum(self.arrivals.tolist()) / sum(self.seconds.tolist()))

    def expected(self, rounds: float) -> float:
        """Mean number of arrivals in so many rounds."""
        whole, part = divmod(rounds, 1.0)
        starts = np.concatenate([[0.0], np.cumsum(self.seconds)])
        inside = np.clip(part * starts[-1] - starts[:-1], 0.0, self.seconds)
        slope = (self.last - self.first) / self.seconds
        return float(whole * np.sum(self.arrivals) + np.sum(self.first * inside + 0.5 * slope * inside**2))

    def times(self, factor: float) -> Curve:
        """So many times the rate, in the same seconds."""
        return Curve(self.first * factor, self.last * factor, self.seconds)

    def beginning(self, at: float) -> Curve:
        """The same round, begun ``at`` seconds into it."""
        starts = np.concatenate([[0.0], np.cumsum(self.seconds)])
        at = at % starts[-1]
        piece = min(int(np.searchsorted(starts, at, side="right")) - 1, len(self.seconds) - 1)
        inside = at - starts[piece]
        if inside <= 0:
            order = np.roll(np.arange(len(self.seconds)), -piece)
            return Curve(self.first[order], self.last[order], self.seconds[order])
        share = inside / self.seconds[piece]
        middle = self.first[piece] * (1 - share) + self.last[piece] * share
        rest = np.roll(np.arange(len(self.seconds)), -piece - 1)[:-1]
        return Curve(
            np.concatenate([[middle], self.first[rest], [self.first[piece]]]),
            np.concatenate([[self.last[piece]], self.last[rest], [middle]]),
            np.concatenate([[self.seconds[piece] - inside], self.seconds[rest], [inside]]),
        )


class Shaped(Arrival):
    """The base of processes with a curve. Without a number of requests the curve is played to its end, `rounds` times.

    Another mean rate changes how many requests come and leaves the seconds of the curve as they are: twice the load of a spike of a
    minute is a spike of a minute that is twice as high.
    """

    ends: ClassVar[bool] = True
    stage: ClassVar[str] = "stage"
    """What a piece of the curve is called in messages. Empty: pieces mean nothing by themselves, and the curve may be cut anywhere."""

    @property
    def rounds(self) -> float:
        """How many times the curve is played where nobody says how many requests; it goes on after that where more are asked for."""
        return 1.0

    def curve(self) -> Curve:
        """One round at the rates of the settings."""
        raise NotImplementedError

    @property
    def played(self) -> Curve:
        """One round as it is played."""
        return self.curve().times(self._factor)

    _factor = 1.0

    @property
    def rate(self) -> float:
        """Mean arrivals per second over a round."""
        return self.played.mean

    def with_rate(self, rate: float) -> Self:
        """The same curve, higher or lower."""
        changed = copy.copy(self)
        changed._factor = rate / self.curve().mean
        return changed

    def times(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Endless chunks of arrival times in seconds: arrivals of rate 1, their times changed by the inverse of the mean count."""
        last = 0.0
        curve = self.played
        while True:
            counts = last + np.cumsum(rng.standard_exponential(BLOCK_ROWS))
            last = float(counts[-1])
            yield _when(curve, counts)

    def whole(self, rng: np.random.Generator) -> int:
        """Arrivals until the curve has been played."""
        expected = self.played.expected(self.rounds)
        if expected > _MOST:
            raise ConfigError(
                "traffic.synthetic.arrival", type(self).name, f"brings {show_number(expected)} requests until it has been played",
                allowed=f"at most {_MOST:,}", hint="shorten it, lower its rates, or say requests",
            )  # fmt: skip
        return max(_until(rng, expected), 1)

    def to_the_end(self, fresh: Callable[[], np.random.Generator], requests: int) -> tuple[int, str]:
        """The number of requests with which the stage of request ``requests`` ends, and a note when it is another one."""
        if requests > _MOST:
            raise ConfigError(
                "traffic.synthetic.requests", requests, f"is too many under {type(self).name}", allowed=f"at most {_MOST:,}"
            )
        curve = self.played
        seen, reached = 0, 0.0
        rng = fresh()
        while True:
            counts = reached + np.cumsum(rng.standard_exponential(BLOCK_ROWS))
            if seen + BLOCK_ROWS >= requests:
                reached = float(counts[requests - seen - 1])
                break
            seen, reached = seen + BLOCK_ROWS, float(counts[-1])
        expected = np.cumsum(curve.arrivals)
        rounds, inside = divmod(reached, float(expected[-1]))
        at = min(int(np.searchsorted(expected, inside, side="right")), len(expected) - 1)
        if not self.stage:
            return requests, self._cut(curve, requests, rounds, inside, at)
        end = rounds * float(expected[-1]) + float(expected[at])
        if end - reached > _MOST_MORE:
            raise ConfigError(
                "traffic.synthetic.requests", requests,
                f"ends in {self.stage} {at + 1}, and {show_number(end - reached)} more come until that ends; a {self.stage} is played to its end",
                hint=f"shorten the {self.stage}",
            )  # fmt: skip
        total = max(_until(fresh(), end), requests)
        later = len(expected) - at - 1 if rounds == 0 else 0
        missing = f"; {later} later {self.stage}{' does' if later == 1 else 's do'} not come" if later else ""
        if total == requests and not missing:
            return total, ""
        played = f": {self.stage} {at + 1} of {len(expected)} is played to its end, with {total:,}" if total > requests else ""
        return total, f"traffic was to end after {requests:,} requests{played}{missing}"

    def _cut(self, curve: Curve, requests: int, rounds: float, inside: float, at: int) -> str:
        seconds = float(_when(curve, np.array([rounds * float(np.sum(curve.arrivals)) + inside]))[0])
        whole = self.rounds * float(np.sum(curve.seconds))
        if seconds >= 0.999 * whole:
            return ""
        return f"traffic ends after {requests:,} requests, {show_number(seconds, 4)} s into {show_number(whole, 4)} s of {type(self).name} arrivals"


def _until(rng: np.random.Generator, expected: float) -> int:
    """How many arrivals of rate 1 come until ``expected``."""
    last, found = 0.0, 0
    while last < expected:
        counts = last + np.cumsum(rng.standard_exponential(BLOCK_ROWS))
        found += int(np.searchsorted(counts, expected))
        last = float(counts[-1])
    return found


def _when(curve: Curve, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds until so many arrivals are to be expected."""
    expected = np.cumsum([0.0, *curve.arrivals.tolist()])
    starts = np.cumsum([0.0, *curve.seconds.tolist()])
    rounds = np.floor(counts / expected[-1])
    rest = np.clip(counts - rounds * expected[-1], 0.0, expected[-1])
    at = np.minimum(np.searchsorted(expected, rest, side="right") - 1, len(curve.seconds) - 1)
    first, slope = curve.first, (curve.last - curve.first) / curve.seconds
    rest, first, slope = rest - expected[at], first[at], slope[at]
    # of count = rate·t + slope·t²/2, in the form that stays exact for small slopes
    root = np.sqrt(np.maximum(first * first + 2.0 * slope * rest, 0.0))
    below = first + root
    inside = np.divide(2.0 * rest, below, out=np.zeros_like(rest), where=below > 0)
    times: NDArray[np.float64] = rounds * starts[-1] + starts[at] + np.minimum(inside, curve.seconds[at])
    return np.maximum.accumulate(times)
