"""How much does a deployment hold? The highest rate under an SLO, or the fewest replicas for a rate, by bisection.

Every probe is a whole run of the scenario with the same requests and the same random numbers, arrivals stretched to the probed rate: what
differs between two probes is the load alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sim.errors import ConfigError
from sim.metrics.capacity import CapacityAnswer, Probe
from sim.metrics.slo import Slo
from sim.study.single import Prepared

_WIDEST = 2.0**20  # how far from the scenario's own rate the search goes

Progress = Callable[[int, int | None, str], Any]


def capacity(
    scenario: Any,
    find: Literal["rate", "replicas"] = "rate",
    *,
    tolerance: float = 0.02,
    max_replicas: int = 4096,
    on_probe: Callable[[Probe], None] | None = None,
    progress: Progress | None = None,
) -> CapacityAnswer:
    """The highest request rate that the deployment holds under its SLO, or the fewest replicas that hold the scenario's rate.

    ``tolerance``: relative width of the last bracket of the rate. ``on_probe`` is called after every run,
    ``progress(done, total, label)`` during it. On KeyboardInterrupt the best answer so far is returned, with a warning.

    *Raises*: `ConfigError` when the scenario has no SLO, when the rate of its traffic cannot be set (closed loop), or when ``replicas``
    are asked of several pools.
    """
    if not Slo.of(scenario.slo).targets():
        raise ConfigError(
            "slo", None, "is needed: capacity is the load up to which it holds", "for example slo: {ttft: 1s, tpot: 50ms}"
        )
    if not 0.0 < tolerance < 1.0:
        raise ConfigError("tolerance", tolerance, "must lie between 0 and 1")
    study = Prepared(scenario)
    if study.traffic.closed_loop is not None:
        clients = study.traffic.closed_loop.concurrency
        raise ConfigError("traffic.closed_loop", clients, "has no rate to search for", "open-loop traffic")
    offered = study.traffic.mean_rate
    total = sum(p.replicas for p in study.plans)
    probes: list[Probe] = []

    def holds(**load: Any) -> bool:
        ((what, value),) = load.items()
        label = f"probe {len(probes) + 1}: {value:.4g} {'requests/s' if what == 'rate' else what}"
        inner = (lambda done, total: progress(done, total, label)) if progress else None
        probes.append(Probe(value, study.run(**load, progress=inner).summary))
        if on_probe:
            on_probe(probes[-1])
        return probes[-1].held

    if find == "replicas" and len(study.plans) != 1:
        raise ConfigError("pools", len(study.plans), "cannot be scaled all at once", "one deployment")
    interrupted = False
    try:
        if find == "rate":
            answer = _highest(lambda rate: holds(rate=rate), offered, tolerance)
        else:
            answer = _fewest(lambda n: holds(replicas=n), total, max_replicas)
    except KeyboardInterrupt:
        interrupted = True
        held = [p.value for p in probes if p.held]
        answer = (max(held) if find == "rate" else min(held)) if held else None
    size = f"{total} replica{'s' if total != 1 else ''}"
    if study.scaling is not None:
        size = f"{study.scaling.params.min} to {study.scaling.most} replicas"
    bound = size if find == "rate" else f"{offered:.4g} requests/s"
    if find == "replicas" or interrupted:
        tolerance = 0.0
    warnings = tuple(dict.fromkeys(w for p in probes if p.held for w in p.summary["warnings"]))
    if interrupted:
        warnings = ("The search was interrupted: the answer is the best of the probes so far.", *warnings)
    probes.sort(key=lambda p: p.value)
    return CapacityAnswer(scenario.name, find, answer, probes, bound, tolerance, warnings)


def _highest(holds: Callable[[float], bool], start: float, tolerance: float) -> float | None:
    """Bracket by doubling or halving from ``start``, then bisect the ratio."""
    good, bad = (start, None) if holds(start) else (None, start)
    while bad is None and good is not None and good < start * _WIDEST:
        if holds(2.0 * good):
            good *= 2.0
        else:
            bad = 2.0 * good
    while good is None and bad is not None:
        if bad < start / _WIDEST:
            return None
        if holds(bad / 2.0):
            good = bad / 2.0
        else:
            bad /= 2.0
    if good is None or bad is None:
        return good
    while bad / good > 1.0 + tolerance:
        middle = (good * bad) ** 0.5
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def _fewest(holds: Callable[[int], bool], start: int, most: int) -> float | None:
    """Bracket by doubling or halving from ``start``, then bisect the integers."""
    good, bad = (start, 0) if holds(start) else (0, start)
    while good == 0:
        if bad >= most:
            return None
        step = min(2 * bad, most)
        if holds(step):
            good = step
        else:
            bad = step
    while good - bad > 1:
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return float(good)
