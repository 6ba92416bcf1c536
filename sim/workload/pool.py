"""A pool of unlike clients: a few send most of the requests, each in its own bursts and with lengths of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.errors import ConfigError
from sim.streams import stream
from sim.workload.arrivals._base import Arrival
from sim.workload.arrivals.weibull import Weibull, WeibullParams
from sim.workload.base import Traffic
from sim.workload.lengths._base import Length, PairReader
from sim.workload.settings import Params
from sim.workload.table import BLOCK_ROWS, MAX_TOKENS, RequestBlock


class PoolParams(Params):
    """A pool as in ServeGen (Xiang et al., NSDI 2026): traffic is the sum of its clients, not one stream of independent users."""

    count: int = Field(ge=1, le=10_000, description="number of clients")
    zipf: float = Field(
        default=1.0, ge=0, le=20, allow_inf_nan=False, description="client k sends in proportion to 1/k^zipf; 0: all alike"
    )
    burstiness: Literal["gamma", "weibull"] = Field(default="gamma", description="distribution of the gaps of each client")
    cv: float = Field(
        default=1.0,
        ge=0.05,
        le=50,
        allow_inf_nan=False,
        description="coefficient of variation of each client's gaps: 1 is Poisson",
    )
    lengths_cv: float = Field(
        default=0.0,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="how unlike clients are in length: each has its own factors of prompts and of outputs, lognormal with mean 1 and this cv",
    )
    tenants: bool = Field(default=False, description="each client is a tenant of its own in the results")


class PoolTraffic(Traffic):
    """Requests of a pool. Of the arrival process only its mean rate is taken; client ``k`` has random streams of its own.

    Blocks are drawn in stretches of time long enough for some thousand requests of all clients together.
    """

    def __init__(
        self, arrival: Arrival, length: Length, requests: int | None, seed: int, params: PoolParams, max_tokens: int | None = None
    ) -> None:
        if arrival.name != "poisson":
            raise ConfigError(
                "traffic.synthetic.arrival.process", arrival.name, "a pool of clients has its own bursts (clients.cv); here it is only a rate",
                "poisson",
            )  # fmt: skip
        self._arrival, self._length, self._seed, self._params, self._client_limit = arrival, length, seed, params, max_tokens
        self.total = requests
        weights = np.arange(1, params.count + 1, dtype=float) ** -params.zipf
        self._shares = weights / weights.sum()
        self._factors = self._drawn_factors()
        self._weibull = Weibull(WeibullParams(rate=1.0, cv=params.cv)) if params.burstiness == "weibull" else None
        largest = self._factors.max(axis=1)
        if params.lengths_cv == 0:
            self.max_prompt_tokens, self.max_tokens = length.largest_prompt, length.largest_total
        elif length.largest_total is not None:
            self.max_prompt_tokens = min(math.ceil((length.largest_prompt or length.largest_total) * largest[0]), MAX_TOKENS)
            self.max_tokens = min(math.ceil(length.largest_total * largest.max()) + 2, 2 * MAX_TOKENS)
        self._most: int | None = None
        self.tenants = tuple(f"client {k + 1}" for k in range(params.count)) if params.tenants else ()

    def _drawn_factors(self) -> NDArray[np.float64]:
        """f8[2, client]: prompts and outputs of a client are so many times as long."""
        cv = self._params.lengths_cv
        sigma = math.sqrt(math.log1p(cv * cv))
        z = stream(self._seed, "pool lengths").standard_normal((self._params.count, 2)).T
        factors: NDArray[np.float64] = np.exp(sigma * z - sigma * sigma / 2)
        return factors

    @property
    def mean_rate(self) -> float:
        """Mean arrivals per second of all clients."""
        return self._arrival.rate

    def _with_rate(self, rate: float) -> Traffic:
        changed = copy.copy(self)
        changed._arrival = self._arrival.with_rate(rate)
        return changed

    def _up_to(self, max_total_tokens: int) -> Traffic:
        """Requests that are too long after their client's factor are cut to what fits, prompt and output alike."""
        changed = copy.copy(self)
        changed._length = self._length.within(max_total_tokens)
        changed._most = changed.max_tokens = max_total_tokens
        changed.max_prompt_tokens = max_total_tokens - 1
        if self._params.lengths_cv > 0:
            changed.notes = (*self.notes, f"clients' longest requests are shortened to {max_total_tokens:,} tokens")
        return changed

    def _chunks(self) -> Iterator[RequestBlock]:
        pairs = PairReader(self._length, stream(self._seed, "lengths"))
        first = 0
        for arrival, client in self._arrivals():
            n = len(arrival) if self.total is None else min(len(arrival), self.total - first)
            arrival, client = arrival[:n], client[:n]
            prompt, output = pairs.take(n)
            if self._params.lengths_cv > 0:
                prompt, output = (
                    np.clip(np.rint(x * f[client]), 1, MAX_TOKENS).astype(np.int64)
                    for x, f in zip((prompt, output), self._factors, strict=True)
                )
                if self._most is not None:
                    over = np.maximum((prompt + output) / self._most, 1.0)
                    prompt, output = (np.maximum((x / over).astype(np.int64), 1) for x in (prompt, output))
            tenant = client + 1 if self._params.tenants else np.zeros(n)
            yield RequestBlock.of(arrival, prompt, output, first, tenant=tenant).limited(self._client_limit)
            first += n
            if first == self.total:
                return

    def _arrivals(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """(times at rate 1 of all together made real, client of each), stretch after stretch."""
        p = self._params
        rngs: list[np.random.Generator | None] = [None] * p.count
        held: list[NDArray[np.float64]] = [np.zeros(0)] * p.count
        ready = np.zeros(p.count)  # the next arrival of each client, 0 where none is drawn yet
        step = float(BLOCK_ROWS)  # seconds at rate 1
        end = 0.0
        while True:
            end += step
            times, clients = [], []
            for k in np.flatnonzero(ready < end).tolist():
                rng = rngs[k]
                if rng is None:
                    rng = rngs[k] = stream(self._seed, f"pool client {k}")
                gap = 1.0 / self._shares[k]
                known = [held[k]]
                last = float(known[0][-1]) if len(known[0]) else ready[k]
                while last < end:
                    more = last + np.cumsum(self._gaps(rng, max(int((end - last) / gap * 1.1) + 4, 4))) * gap
                    known.append(more)
                    last = float(more[-1])
                all_known = np.concatenate(known)
                cut = int(np.searchsorted(all_known, end))
                times.append(all_known[:cut])
                clients.append(np.full(cut, k))
                held[k] = all_known[cut:]
                ready[k] = float(held[k][0])
            when, who = np.concatenate([*times, np.zeros(0)]), np.concatenate([*clients, np.zeros(0, np.int64)])
            order = np.argsort(when, kind="stable")
            yield when[order] / self._arrival.rate, who[order]

    def _gaps(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        cv = self._params.cv
        if self._weibull is not None:
            return self._weibull.gaps(rng, n)
        shape = 1.0 / cv**2
        gaps: NDArray[np.float64] = rng.standard_gamma(shape, n) / shape
        return gaps
