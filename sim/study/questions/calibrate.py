"""How close can predictions be brought to what was measured, by the few figures that are a user's own?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sim.errors import ConfigError
from sim.registry import register
from sim.study.base import Interrupted, Steps
from sim.study.questions.accuracy import Measured, MeasuredParams, Names

if TYPE_CHECKING:
    from sim.config.scenario import Scenario


class CalibrateParams(MeasuredParams):
    """Which measurements, and what is fitted to them."""

    figures: Names = Field(
        (), description="figures to fit, with commas, e.g. gemm_scale,host_step", json_schema_extra={"metavar": "A,B"}
    )
    profile: str | None = Field(
        None,
        description="also write the fitted engine profile to this file; a scenario names it as deployment.profile",
        exclude=True,
        json_schema_extra={"metavar": "FILE.yaml", "option": "-p"},
    )


@register("study")
class Calibrate(Measured[CalibrateParams]):
    """Fit host overheads and efficiency factors to measured points; write them as an engine profile of your own."""

    name = "calibrate"
    examples = ("servesim calibrate bench-results/ --scenario my.yaml -p mine.yaml",)
    Params = CalibrateParams
    report: ClassVar[str] = "sim.report.calibrate"
    gate: ClassVar[str] = "when the fit brings no error down"

    def __init__(self, scenarios: Sequence[Scenario], params: CalibrateParams) -> None:
        from sim import output
        from sim.study.calibrate import check_figures, check_profile

        super().__init__(scenarios, params)
        check_figures(params.figures)
        if params.profile is not None:
            check_profile(params.profile)
            output.check_file(params.profile, "--profile")

    def run(self) -> Steps:
        """All points as they are, the fits side by side, all points with what was fitted; interrupted, nothing is fitted."""
        from sim.study.accuracy.report import AccuracyReport
        from sim.study.accuracy.work import outcomes, tasks
        from sim.study.base import Task
        from sim.study.calibrate import DEFAULT, Calibration, Fitting, fit_of, grouped, useful

        p = self.params
        figures = p.figures or DEFAULT
        points, skipped = self.points()
        self._total = 2 * len(points)
        done = yield tasks(points, "before", seed=p.seed)
        before = AccuracyReport(tuple(outcomes(done)), skipped)
        groups = grouped(before, p.paths)
        engines = sorted({engine for engine, _, _ in groups})
        if p.profile is not None and len(engines) > 1:
            raise ConfigError("--engine", None, "choose the engine whose profile is written", ", ".join(engines))
        self._total = 2 * len(before.simulated) + len(before.refused) + len(groups)
        made = [
            Task(
                settings={"stage": "fit", "engine": k[0], "line": k[1], "accelerator": k[2]},
                work=Fitting(k, tuple(v), tuple(figures), p.seed),
            )
            for k, v in groups.items()
        ]
        fits = tuple(fit_of(o.value()) for o in (yield made))
        useful(fits, figures)
        found = Calibration(fits, before, before, wanted=p.profile, engine=p.engine)
        again = [o.point for o in before.simulated]
        try:
            judged = yield tasks(again, "after", overrides=found.overrides, seed=p.seed)
        except Interrupted:
            return replace(found, warnings=("Interrupted: errors after the fit were not computed.",))
        after = iter(outcomes(judged))
        return replace(found, after=replace(before, outcomes=tuple(o if o.reason else next(after) for o in before.outcomes)))
