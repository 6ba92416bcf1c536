"""Operating points as the work of trials: they run in parallel, on clusters, and are kept as every trial is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, cast

import joblib

from sim.study.accuracy.deploy import Overrides
from sim.study.accuracy.errors import Outcome
from sim.study.accuracy.left_out import without_accelerator
from sim.study.accuracy.point import Point
from sim.study.base import Outcome as Done
from sim.study.base import Progress, Task

if TYPE_CHECKING:
    from sim.document import Json


# Told by a digest or a path, or where there is something to tell; what sent the requests decides nothing by itself.
_BY_OTHER_WORDS = ("columns", "logs", "scenario", "folder", "earlier", "generator")


def plain(point: Point) -> dict[str, Json]:
    """The point as plain data: what is measured of single requests as a digest, a file of requests by its path."""
    from sim.config.resolving import resolved

    told = {f.name: getattr(point, f.name) for f in fields(point) if f.name not in _BY_OTHER_WORDS}
    if point.earlier:
        told["earlier"] = list(point.earlier)
    told["columns"] = None if point.columns is None else joblib.hash(point.columns)
    told["logs"] = joblib.hash(point.logs) if point.logs else None
    told["scenario"] = None if point.scenario is None else resolved(point.scenario)
    if point.columns is None and "file" in point.traffic:
        told["file"] = str((point.folder / str(point.traffic["file"])).resolve())
    return told


@dataclass(frozen=True)
class Simulated:
    """One point simulated with ``overrides``; ``unmeasured``: as if its accelerator had never been measured."""

    point: Point
    overrides: Overrides | None = None
    seed: int = 0
    unmeasured: bool = False

    def identity(self) -> Json:
        """See `Work`."""
        changed = sorted((list(key), sorted(figures.items())) for key, figures in (self.overrides or {}).items())
        return {"point": plain(self.point), "overrides": changed, "seed": self.seed, "unmeasured": self.unmeasured}

    def perform(self, progress: Progress | None) -> Mapping[str, Json]:
        """Predictions by metric, or the reason why there are none; ``tried``: False where no other accelerator could stand in."""
        from sim.study.accuracy.report import outcome

        if self.unmeasured:
            found = without_accelerator([self.point], lambda p: outcome(p, None, self.seed))
        else:
            found = [outcome(self.point, self.overrides, self.seed)]
        return {"tried": bool(found)} | ({"predicted": dict(found[0].predicted), "reason": found[0].reason} if found else {})


def tasks(
    points: Sequence[Point], stage: str, *, overrides: Overrides | None = None, seed: int = 0, unmeasured: bool = False
) -> list[Task]:
    """A trial for every point."""
    return [Task(settings={"stage": stage, **_row(p)}, work=Simulated(p, overrides, seed, unmeasured)) for p in points]


def outcomes(done: Sequence[Done]) -> list[Outcome]:
    """What became of them; those that were not tried are left out."""
    out = []
    for d in done:
        assert isinstance(d.trial, Task)
        assert isinstance(d.trial.work, Simulated)
        point = d.trial.work.point
        if d.data is None:
            out.append(Outcome(point, {}, d.error))
        elif d.data["tried"]:
            out.append(Outcome(point, cast("dict[str, float]", d.data["predicted"]), str(d.data["reason"])))
    return out


def _row(p: Point) -> dict[str, Json]:
    names = ("id", "engine", "version", "model", "weights", "accelerator", "tp", "pp", "dp", "ep", "quality", "overload")
    return {name: getattr(p, name) for name in names} | {"measured": dict(p.measured)}
