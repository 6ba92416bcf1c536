"""How far are predictions from what was measured?"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from sim.errors import ConfigError
from sim.places import is_file
from sim.registry import register
from sim.study.base import Interrupted, Params, Steps, Study

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.study.accuracy.deploy import Overrides
    from sim.study.accuracy.point import Point


def listed(given: object) -> object:
    """``"a,b"``, or a list of such texts, → ``("a", "b")``."""
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list | tuple) and all(isinstance(t, str) for t in texts):
        return tuple(part.strip() for t in texts for part in t.split(",") if part.strip())
    return given


def _pairs(given: object) -> object:
    """``["a=b"]`` → ``{"a": "b"}``."""
    if isinstance(given, Mapping) or not isinstance(given, list | tuple):
        return given
    pairs = {}
    for text in given:
        name, equals, value = str(text).partition("=")
        if not (name and equals and value):
            raise ConfigError("--on", text, "is not of the form TEXT=NAME", hint="such as --on qwen3-14b=h100-pcie")
        pairs[name] = value
    return pairs


Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
_HIDDEN: JsonDict = {"hidden": True}


class MeasuredParams(Params):
    """Which measurements."""

    paths: tuple[str, ...] = Field(min_length=1, description="files and folders with measurements", json_schema_extra=_HIDDEN)
    seed: int = Field(0, description="seed of traffic that no file tells", json_schema_extra=_HIDDEN)
    engine: str | None = Field(None, description="only points of this engine")
    accelerator: str | None = Field(None, description="only points whose accelerator has this in its name")
    model: str | None = Field(None, description="only points whose model has this in its name")
    quality: Names = Field(("good", "fair"), description="qualities taken, with commas", json_schema_extra={"metavar": "A,B"})
    overload: bool = Field(False, description="also points of saturated systems")
    on: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(
        default_factory=dict,
        description="deployments with TEXT in their name ran on accelerator NAME, whatever is recorded; repeatable",
        json_schema_extra={"metavar": "TEXT=NAME", "list": True},
    )


class AccuracyParams(MeasuredParams):
    """Which measurements, and what is shown of the errors."""

    leave_out: bool = Field(False, description="simulate each point again as if its accelerator had never been measured")
    load: bool = Field(
        False,
        description="also errors at equal load relative to capacity, and of the predicted capacity; runs overloaded points too",
    )
    by: Names = Field(
        ("engine",),
        description="group errors by engine, version, accelerator, family, source, quality, traffic, deployment",
        exclude=True,
        json_schema_extra={"metavar": "A,B"},
    )
    worst: int = Field(0, ge=0, description="print so many of the largest errors", exclude=True)
    csv: str | None = Field(
        None,
        description="also write every figure, measured and predicted, to this CSV file",
        exclude=True,
        json_schema_extra={"metavar": "FILE"},
    )
    record: str | None = Field(
        None,
        description="write the spread of errors by class to this file, from which runs take their intervals",
        exclude=True,
        json_schema_extra={"metavar": "FILE"},
    )


M = TypeVar("M", bound=MeasuredParams)


class Measured(Study[M], Generic[M]):
    """A study of measured operating points."""

    takes: ClassVar[Literal["one", "many", "files"]] = "files"
    _total: int | None = None

    @property
    def title(self) -> str:
        """The name of what was measured, and of the study."""
        first = Path(os.path.abspath(self.params.paths[0]))  # noqa: PTH100 - a loop of links has a name too
        named = re.sub(r"[\x00-\x1f\x7f]", "-", first.stem if is_file(first) else first.name)
        return f"{named[:80] or 'measured'}-{self.name}"

    @property
    def expected(self) -> int | None:
        """As far as known."""
        return self._total

    def points(self, overload: bool | None = None) -> tuple[list[Point], int]:
        """Those that are wanted, and how many were left out. Raises `ConfigError`, `DataError`."""
        from sim.study.accuracy.reading import read_points
        from sim.study.accuracy.report import chosen

        p = self.params
        every = list(read_points(p.paths, self.scenarios[0] if self.scenarios else None))
        return chosen(every, p.engine, p.accelerator, p.model, p.quality, p.overload if overload is None else overload, p.on)

    def overloaded(self) -> list[Point]:
        """Points of saturated systems that were left out."""
        return [] if self.params.overload else [q for q in self.points(overload=True)[0] if q.overload]


@register("study")
class Accuracy(Measured[AccuracyParams]):
    """Simulate measured operating points of real systems and say how far the predictions are off.

    Exits with 1 when no point can be simulated. With --gate: 3 when a median error misses its aim.
    """

    name = "accuracy"
    examples = ("servesim accuracy bench-results/ --scenario my.yaml",)
    Params = AccuracyParams
    report: ClassVar[str] = "sim.report.accuracy"
    gate: ClassVar[str] = "when a metric misses its aim"

    def __init__(self, scenarios: Sequence[Scenario], params: AccuracyParams, overrides: Overrides | None = None) -> None:
        from sim import output

        super().__init__(scenarios, params)
        self.overrides = overrides
        for option, file in (("--csv", params.csv), ("--record", params.record)):
            if file is not None:
                output.check_file(file, option)

    def run(self) -> Steps:
        """All points side by side; interrupted, those that are done."""
        from sim.study.accuracy.errors import check_group
        from sim.study.accuracy.report import AccuracyReport
        from sim.study.accuracy.saturation import at_equal_load
        from sim.study.accuracy.work import outcomes, tasks

        p = self.params
        for group in p.by:
            check_group(group)
        points, skipped = self.points()
        self._total = len(points) * (1 + p.leave_out)
        elsewhere = {option: file for option, file in (("--csv", p.csv), ("--record", p.record)) if file is not None}
        report = AccuracyReport((), skipped, by=p.by, show_worst=p.worst, elsewhere=elsewhere)
        try:
            done = yield tasks(points, "as measured", overrides=self.overrides, seed=p.seed)
            report = replace(report, outcomes=tuple(outcomes(done)))
            if p.leave_out:
                again = [o.point for o in report.simulated]
                self._total = len(points) + len(again)
                found = yield tasks(again, "accelerator left out", seed=p.seed, unmeasured=True)
                report = replace(report, unmeasured=tuple(outcomes(found)))
            if p.load:
                even, over = at_equal_load(report.simulated), self.overloaded()
                self._total = (self._total or 0) + len(even) + len(over)
                found = yield tasks(even, "equal load", overrides=self.overrides, seed=p.seed)
                report = replace(report, even=tuple(outcomes(found)))
                found = yield tasks(over, "overloaded", overrides=self.overrides, seed=p.seed)
                report = replace(report, overloaded=tuple(outcomes(found)))
        except Interrupted as stopped:
            if not report.outcomes:
                report = replace(report, outcomes=tuple(outcomes(stopped.outcomes)))
            note = f"Interrupted: {len(report.outcomes)} of {len(points)} points are done."
            report = replace(report, warnings=(note,))
        return report
