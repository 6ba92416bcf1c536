"""How much one deployment could serve at most, whatever its latency: the same requests sent by so many clients that no place stays free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from sim.config.base import Router
from sim.errors import ServesimError
from sim.fleet.build import Plan
from sim.fleet.run import execute
from sim.ledger import FINISHED
from sim.metrics.histogram import ITL_BINS, ITL_LO, ITL_SCALE
from sim.metrics.load import Load
from sim.metrics.steady import Steady
from sim.workload import content
from sim.workload.base import Traffic
from sim.workload.closed_loop import ClosedLoop
from sim.workload.recorded import RecordedTraffic
from sim.workload.table import RequestBlock

_CLIENTS = (64, 1024)
_TURNS = 3  # requests a client sends
_FEWEST = 20  # requests that say how long requests are
_COPY_BITS = 40  # numbers of requests end far below


def could_serve(plans: Sequence[Plan], traffic: Traffic, seed: int) -> float | None:
    """Requests per second of all replicas together, from a saturated run of one; None where that says nothing.

    It does not for fewer than 20 requests, for traffic whose clients wait (their load follows from the answers), for fleets of several
    pools, and for engines that turn requests away at that load. Where the run is shorter than saturation takes, its requests come again
    with other texts.
    """
    if len(plans) != 1 or plans[0].role or plans[0].several or traffic.closed_loop is not None or traffic.waits or traffic.loops:
        return None
    block = next(iter(traffic.blocks()), None)
    if block is None or len(block) < _FEWEST or (block.session >= 0).any():
        return None
    slots = plans[0].facts.slots * plans[0].rank_count or _CLIENTS[0] * 4
    clients = min(slots, _CLIENTS[1])
    requests = RecordedTraffic(_again(block, _TURNS * clients))
    one = replace(plans[0], replicas=1)
    router = Router(name="round_robin")
    try:
        raw = execute(
            [one],
            requests.with_closed_loop(ClosedLoop(clients, 0.0, requests)),
            router,
            seed,
            bins=0,
            histogram=(ITL_BINS, ITL_LO, ITL_SCALE),
            until=inf,
        )
    except ServesimError:
        return None
    status, end = raw.requests["status"], raw.requests["finish_s"]
    if (status != FINISHED).any() or end.size < 20:
        return None
    a, b = np.quantile(end, [0.2, 0.8])
    if b <= a:
        return None
    return float(np.count_nonzero((end > a) & (end <= b)) / (b - a)) * plans[0].replicas


def _again(block: RequestBlock, n: int) -> RequestBlock:
    """The first ``n`` requests of a block that is repeated as often as it takes; repeats share what all share, and nothing else."""
    if n <= len(block):
        return block[:n]
    rows = np.arange(n)
    made = block.take(rows % len(block))
    turn = (rows // len(block)) << _COPY_BITS
    made.out_content ^= turn
    own = made.span_id // content.NUMBERS != content.SHARED // content.NUMBERS
    made.span_id[own] ^= np.repeat(turn, np.diff(made.span_off))[own]
    return made


def section(plans: Sequence[Plan], traffic: Traffic, seed: int, rates: Steady) -> Load | None:
    """``load`` of a summary whose ``steady`` is ``rates``; None where it is unknown."""
    offered, peak = rates.offered_requests_per_s, rates.offered_peak_requests_per_s
    most = could_serve(plans, traffic, seed) if offered is not None else None
    if most is None or offered is None or peak is None:
        return None
    return Load(offered_requests_per_s=offered, could_serve_requests_per_s=most, share=offered / most, peak_share=peak / most)
