"""Errors on what nothing was fitted to: accelerators, families of models, sources of measurements and layouts left out one at a time.

*Accelerators* are simulated again as if nobody had ever measured them: without their figures in the profiles of engines, without what was fitted
to them in their own profile, with the kernels of another accelerator that was measured. *Families* and *sources* are judged by what the others of
the same engine and accelerator are off in the median, by which the predictions are moved: to first order that is a fit without them. A source has its
own servers, flags, load generator and habits, so this is the nearest to measurements that nobody has seen. *Layouts* are those of logged forward
passes, judged by the other layouts in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import yaml

from sim.cost.machines import machines, measured_on
from sim.document import Json, at
from sim.hardware import load_accelerator
from sim.metrics.model_error import family as card
from sim.profile_files import read_text
from sim.resources import path
from sim.study.accuracy.errors import STEPS, TARGETS, Outcome, family, source
from sim.study.accuracy.point import Point

_FEWEST = 3
"""Deployments of other families or sources from which on something could be fitted to them."""
_FITTED = ("sustained_compute", "memory_efficiency")
Predict = Callable[[Point], Outcome]
_Logs = dict[tuple[str, str, str], dict[str, dict[str, list[float]]]]


def without_accelerator(points: Sequence[Point], predict: Predict) -> list[Outcome]:
    """Every point simulated as if its accelerator had never been measured; those without any other of the vendor are left out."""
    out = []
    with TemporaryDirectory() as folder:
        files: dict[str, str] = {}
        for p in points:
            name = load_accelerator(p.accelerator).name
            if name not in files:
                files[name] = _unmeasured(name, Path(folder))
            if files[name] and p.scenario is None:
                out.append(replace(predict(replace(p, accelerator=files[name])), point=p))
    return out


def _unmeasured(name: str, folder: Path) -> str:
    """A profile of the accelerator without what was measured of it; empty where no other of its vendor was measured."""
    file = path("profiles", "hardware", f"{name}.yaml")
    data: dict[str, Json] = yaml.safe_load(read_text(file, "an accelerator"))
    if own := measured_on(name):
        other = nearest(name, own)
        if not other:
            return ""
        data["proxy"] = {"name": other, "reason": f"{name} is left out"}
    data.pop("aliases", None)
    for key in _FITTED:
        if at(data, f"{key}.evidence") in ("fitted", "measured"):
            del data[key]
    data["name"] = f"unmeasured-{name}"
    to = folder / f"{data['name']}.yaml"
    to.write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(to)


def nearest(name: str, own: str) -> str:
    """The accelerator of another measured system: of the same vendor, nearest in memory type, then in generation, then in bandwidth."""
    here = load_accelerator(name)

    def distance(other: str) -> tuple[bool, bool, float]:
        there = load_accelerator(other)
        apart = abs(log(there.memory_bandwidth / here.memory_bandwidth))
        return (there.memory_type != here.memory_type, there.generation != here.generation, apart)

    found = [
        m.accelerators[0]
        for system, m in machines().items()
        if system != own and m.accelerators and not m.relative and not m.others
    ]
    same = [a for a in found if load_accelerator(a).vendor == here.vendor]
    return min(same, key=distance, default="")


def without_family(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Predictions moved by what the other families of the same engine and class of accelerator are off; left out where those are too few."""
    return _without(outcomes, lambda p: family(p.model))


def without_source(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The same with other sources."""
    return _without(outcomes, source)


def without_layout(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The same with other layouts, of forward passes that were logged one by one."""
    return _without((o for o in outcomes if o.point.traffic["kind"] == "passes"), lambda p: p.deployment, STEPS)


def _without(
    outcomes: Iterable[Outcome], group: Callable[[Point], str], metrics: Sequence[str] = tuple(TARGETS)
) -> list[Outcome]:
    done = [o for o in outcomes if not o.reason]
    logs: _Logs = {}
    for o in done:
        for metric, value in o.predicted.items():
            if metric in metrics and value > 0 and o.point.measured.get(metric, 0.0) > 0:
                by = logs.setdefault(_class(o.point, metric), {}).setdefault(group(o.point), {})
                by.setdefault(o.point.deployment, []).append(log(o.point.measured[metric] / value))
    out = []
    for o in done:
        moves = {m: _moved(logs.get(_class(o.point, m), {}), group(o.point)) for m in o.predicted}
        out.append(Outcome(o.point, {m: o.predicted[m] * move for m, move in moves.items() if move is not None}))
    return out


def _class(p: Point, metric: str) -> tuple[str, str, str]:
    return p.engine, card(p.accelerator), metric


def _moved(groups: Mapping[str, Mapping[str, Sequence[float]]], own: str) -> float | None:
    """What the median deployment of the other groups takes, against the prediction; None where there are too few to fit anything to."""
    others = [d for name, by in groups.items() if name != own for d in by.values()]
    return exp(median(median(d) for d in others)) if len(others) >= _FEWEST else None
