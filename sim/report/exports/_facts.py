"""What exports need to know of a run beside its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import yaml

from sim.document import Json, at, number_at
from sim.ledger import FINISHED
from sim.ledger import Values as Array
from sim.metrics.histogram import quantiles
from sim.streams import stream

if TYPE_CHECKING:
    from sim.metrics.result import Result

_ROUNDS = 6


def scenario_of(result: Result) -> Mapping[str, Json]:
    """The resolved scenario; empty for a result without one."""
    found = yaml.safe_load(result.scenario) if result.scenario else None
    return found if isinstance(found, Mapping) else {}


def sent(result: Result) -> tuple[float, float, int | None]:
    """(requests per second, burstiness, most requests in flight) as a load generator would have been told.

    The rate is infinite for a burst and for a closed loop that is not paced; that of a trace is its mean. Burstiness is 1/cv² of the gaps.
    """
    traffic = at(scenario_of(result), "traffic")
    told: Mapping[str, object] = traffic if isinstance(traffic, Mapping) else {}
    clients = number_at(told, "closed_loop.concurrency")
    limit = int(clients) if clients else None
    if limit and not at(told, "closed_loop.paced"):
        return math.inf, 1.0, limit
    process = str(at(told, "synthetic.arrival.process"))
    if process == "burst":
        return math.inf, 1.0, limit
    cv, rate = number_at(told, "synthetic.arrival.cv"), number_at(told, "synthetic.arrival.rate")
    burstiness = {"gamma": 1.0 / float(cv or 1.0) ** 2, "constant": 1e6}.get(process, 1.0)
    if process in ("poisson", "gamma", "constant") and rate:
        return float(rate), burstiness, limit
    arrival = result.columns["arrival_s"]
    span = float(arrival.max() - arrival.min()) if arrival.size > 1 else 0.0
    return ((arrival.size - 1) / span if span > 0 else math.inf), burstiness, limit


def gap_lists(result: Result) -> list[Array]:
    """For every finished request its gaps between tokens, in s; empty for others.

    With `record.token_times` those simulated, in order: one for each chunk after the first one, as a client sees them (a step with accepted
    drafts sends several tokens in one chunk). Without it there are ``output_tokens − 1``: the recorder keeps one histogram of gaps, not those
    of each request, and these are laid out so that every request's gaps add up to its decode time exactly and all of them together follow the
    histogram; their order within a request means nothing.
    """
    c = result.columns
    if result.token_times is not None:
        return result.token_times.gaps(c)
    done = (c["status"] == FINISHED) & (c["output_tokens"] > 1)
    count = np.where(done, c["output_tokens"] - 1, 0).astype(np.int64)
    total = int(count.sum())
    if total == 0:
        return [np.zeros(0)] * count.size
    off = np.concatenate([[0], np.cumsum(count)])
    decode = np.where(done, c["e2e_s"] - c["ttft_s"], 0.0)
    rows = np.flatnonzero(count)
    size, starts, sums = count[rows], off[rows], decode[rows]
    if result.itl_hist.sum() > 0:
        pool = np.array(quantiles_of(result.itl_hist, total))
    else:
        pool = np.repeat(sums / size, size)
    gaps = stream(int(result.summary.seed or 0), "export.gaps").permutation(pool)
    ordered = np.sort(pool)
    for turn in range(_ROUNDS):
        if turn:
            shaped = np.empty(total)
            shaped[np.argsort(gaps, kind="stable")] = ordered
            gaps = shaped
        have = np.add.reduceat(gaps, starts)
        factor = np.divide(sums, have, out=np.zeros_like(sums), where=have > 0)
        gaps = gaps * np.repeat(factor, size)
    return [gaps[off[i] : off[i + 1]] for i in range(count.size)]


def quantiles_of(hist: Array, n: int) -> list[float]:
    """``n`` values that follow a histogram of gaps."""
    used = np.flatnonzero(hist)
    weights = np.cumsum(hist[used])
    at = np.searchsorted(weights, (np.arange(n) + 0.5) * weights[-1] / n)
    middles = np.array(quantiles(hist, [(weights[i] - 0.5 * hist[k]) / weights[-1] for i, k in enumerate(used)]))
    values: list[float] = middles[np.minimum(at, used.size - 1)].tolist()
    return values
