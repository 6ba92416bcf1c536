"""Finalists: replications under other random numbers, one unit more until the SLO surely holds; then the winner's limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from sim.errors import ServesimError
from sim.metrics.model_error import OWN
from sim.study.base import Interrupted, Load, Trial
from sim.study.plan.candidate import Aim, Candidate, Probe, probe_of
from sim.study.plan.model_band import ModelBand, band
from sim.study.plan.together import Part
from sim.study.slower import slower, step_error
from sim.study.statistics.replications import bounds
from sim.study.variants import is_random, repeated

_MOST_STEPS = 8
_FIGURES = ("ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "e2e_p99_s", "per_accelerator")
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Final:
    """A candidate with replications at ``size``. ``attainment``: mean, and its lower bound (one-sided) at the wanted confidence.

    ``sure``: the bound is at least what the SLO requires; ``held``: in how many of ``runs`` the SLO was met. ``figures``: mean and
    two-sided interval of each over the runs; ``cost`` likewise.
    """

    candidate: Candidate
    size: int
    sure: bool
    attainment: float
    attainment_low: float
    held: int
    runs: int
    cost: float
    cost_low: float
    cost_high: float
    accelerators: int
    figures: dict[str, Interval] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class WorseWorld:
    """The winner in a worse world: ``attainment`` there, and the size that holds in it (None: not up to twice as many)."""

    what: str
    factor: float
    attainment: float
    holds: bool
    size_needed: int | None
    why: str = ""
    """Where the factor comes from, if it was not given."""


@dataclass(frozen=True)
class HeadRoom:
    """``rate``: the highest that holds (None: none does); ``breaks``: what limits the run beyond it."""

    rate: float | None
    breaks: str


@dataclass(frozen=True)
class Limits:
    """``rate``: the highest that the winner held (requests/s; None: none was tried or held); ``breaks``: what gives beyond, in words."""

    offered: float
    rate: float | None
    breaks: str
    worse: tuple[WorseWorld, ...] = ()
    model: ModelBand | None = None
    """Sizes that hold within the error of the model; None where no measured deployment is like the winner."""


def confirm(aim: Aim, found: Candidate, replications: int, confidence: float) -> Part[Final]:
    """Replications at the screened size (or one less, where that missed narrowly), then one unit more until the SLO surely holds."""
    size = (found.size or 1) - (1 if found.cost_near < found.cost else 0)
    runs = replications if is_random(found.planned) else 1
    best: Final | None = None
    try:
        for _ in range(_MOST_STEPS):
            settings = {"candidate": found.label, "stage": "final"}
            outcomes = yield [
                Trial(repeated(found.planned, r), settings | {"replication": r}, {"units": size}) for r in range(runs)
            ]
            now = _final(found, size, [probe_of(aim, found, o) for o in outcomes], confidence)
            if now.sure:
                return now
            best = now if best is None or now.attainment > best.attainment else best
            size += 1
            if size > aim.max_replicas:
                break
    except Interrupted:
        raise
    except ServesimError as error:
        nothing = Final(found, size, False, 0.0, 0.0, 0, 0, found.cost, found.cost, found.cost, size * found.width)
        return replace(best or nothing, error=str(error))
    assert best is not None
    return best


def _final(found: Candidate, size: int, probes: Sequence[Probe], confidence: float) -> Final:
    reached = np.array([p.attainment for p in probes])
    low = mean = float(reached.mean())
    if len(probes) > 1 and reached.std() > 0:
        low -= float(stats.t.ppf(confidence, len(probes) - 1)) * float(reached.std(ddof=1)) / math.sqrt(len(probes))
    figures = {}
    for name in _FIGURES:
        values = [v for p in probes if (v := getattr(p, name)) is not None]
        if values:
            figures[name] = bounds(values, confidence)
    cost = bounds([p.cost for p in probes], confidence)
    return Final(
        candidate=found,
        size=size,
        sure=low >= found.required and all(p.met for p in probes[:1]) and mean >= found.required,
        attainment=mean,
        attainment_low=low,
        held=sum(p.met for p in probes),
        runs=len(probes),
        cost=cost[0],
        cost_low=cost[1],
        cost_high=cost[2],
        accelerators=size * found.width,
        figures=figures,
    )


def head_room(final: Final) -> Part[HeadRoom]:
    """The highest rate that holds, to 2 %, and what limits the run beyond it."""
    scenario, offered = final.candidate.planned, final.candidate.rate
    good, bad, broken, rate = 0.0, math.inf, "", offered
    while bad / max(good, 1e-12) > 1.02:
        settings = {"candidate": final.candidate.label, "stage": "head-room"}
        (outcome,) = yield [Trial(scenario, settings, {"units": final.size, "rate": rate})]
        s = outcome.figures
        if s.slo.met:
            good = rate
        else:
            bad, broken = rate, s.bottleneck.sentence
        if good == 0.0:
            if rate < offered / 64:
                return HeadRoom(None, broken)
            rate /= 1.25
        elif math.isinf(bad):
            if rate > offered * 64:
                return HeadRoom(good, "")
            rate *= 1.25
        else:
            rate = math.sqrt(good * bad)
    return HeadRoom(good, broken)


_UNKNOWN_ERROR = 1.1


def known_error(final: Final) -> tuple[float, str]:
    """How much longer steps may take than predicted, by what measured deployments of this engine and accelerator showed (`metrics.model_error`).

    It is the upper end of the interval for the time per output token: one deployment in ten was slower still.
    """
    from sim.fleet.build import plan

    found = step_error(plan(final.candidate.planned)[:1])
    if found is None:
        return _UNKNOWN_ERROR, "assumed: no measured deployment is on record"
    if found.words == OWN:
        why = f"9 of 10 of {OWN} were no slower; {found.deployments} of them"
    else:
        why = f"9 of 10 measured deployments like it were no slower; {found.deployments} on record: {found.words}"
    return max(round(found.high, 2), 1.05), why


def model_band(final: Final) -> Part[ModelBand | None]:
    """How many units a finalist needs within the error of the model."""
    c = final.candidate
    return band(c.planned, c.rate, final.size, c.required, {"candidate": c.label})


def worse_world(final: Final, what: str, factor: float, why: str = "") -> Part[WorseWorld]:
    """Attainment in one worse world, and the fewest units (up to twice as many) that hold in it."""
    required = final.candidate.required
    now: float | None = None
    for size in _growing(final.size):
        (outcome,) = yield [_worse_trial(final, size, what, factor)]
        reached = float(outcome.figures.slo.effective or 0.0)
        now = reached if now is None else now
        if reached >= required:
            return WorseWorld(what, factor, now, now >= required, size, why)
    assert now is not None
    return WorseWorld(what, factor, now, False, None, why)


def _growing(size: int) -> list[int]:
    out = [size]
    while out[-1] < 2 * size:
        out.append(min(out[-1] + max(1, round(size * 0.1)), 2 * size))
    return out


def _worse_trial(final: Final, size: int, what: str, factor: float) -> Trial:
    c = final.candidate
    settings = {"candidate": c.label, "stage": f"{what} ×{factor:g}"}
    load: Load = {"units": size}
    scenario = c.planned
    if what in ("rate", "step_time"):
        load["rate"] = c.rate * factor
    elif what == "lengths":
        load["lengths"] = factor
    else:
        load["burst"] = factor
    if what == "step_time":
        scenario = slower(scenario, factor)
    return Trial(scenario, settings, load)
