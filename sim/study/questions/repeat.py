"""One scenario under other random numbers again and again: its figures with the interval of their mean, as sharp as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from sim.document import number_at
from sim.errors import ConfigError
from sim.registry import register
from sim.study.base import Interrupted, Outcome, Params, Steps, Study, Trial, figures
from sim.study.options import Confidence, Precision, Replications
from sim.study.variants import check_replications, repeated
from sim.units import show_number

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.metrics.result import Result
    from sim.study.figures import Figures
    from sim.study.statistics.interval import Interval

FIRST = 5
"""Repetitions before a precision is judged."""


class RepeatParams(Params):
    """How often, or how sharply."""

    replications: Replications = FIRST
    precision: Precision = None
    confidence: Confidence = 0.95


@dataclass
class RepeatAnswer:
    """``summary``: of the first run; ``intervals``: of the mean over the repetitions, by path in the summary."""

    name: str
    summary: Figures
    intervals: dict[str, Interval]
    replications: int
    level: float
    met: int
    stationary: str = ""
    precision: float | None = None
    reached: bool = True
    warnings: Sequence[str] = field(default_factory=tuple)

    @property
    def verdict(self) -> bool | None:
        """Whether the SLO was met in every run; None without one."""
        return None if self.summary.slo.met is None else self.met == self.replications

    def sentence(self) -> str:
        """How many runs met the SLO, and how sure the figures are."""
        runs = f"{self.replications} run{'s' * (self.replications != 1)}"
        text = f"{self.name}: {runs} under other random numbers"
        if self.summary.slo.met is not None:
            text += f", {'all' if self.met == self.replications else self.met or 'none'} met the SLO"
        if self.precision is not None:
            text += (
                f"; every interval is within {show_number(self.precision, 2)} of its value"
                if self.reached
                else f"; {show_number(self.precision, 2)} was not reached"
            )
        return text + "."

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "sentence": self.sentence(),
            "stationary": self.stationary,
            "replications": self.replications,
            "level": self.level,
            "met": self.met,
            "reached": self.reached,
            "intervals": {k: i.as_dict() for k, i in self.intervals.items()},
            "first_run": self.summary.as_dict(),
            "warnings": list(self.warnings),
        }


@register("study")
class Repeat(Study[RepeatParams]):
    """Run one scenario several times under other random numbers: the mean of every figure, and how sure it is."""

    name = "repeat"
    examples = ("servesim repeat quickstart --precision 5%",)
    Params = RepeatParams
    report: ClassVar[str] = "sim.report.repeat"
    gate: ClassVar[str] = "when a run misses the SLO"

    def __init__(self, scenarios: Sequence[Scenario], params: RepeatParams) -> None:
        super().__init__(scenarios, params)
        check_replications(self.scenarios[0], params.replications)
        if params.precision is not None and params.replications < 2:
            raise ConfigError("replications", params.replications, "are too few to judge a precision", "at least 2")
        self._total = params.replications

    @property
    def expected(self) -> int:
        """As far as known."""
        return self._total

    def run(self) -> Steps:
        """The given number, then more until the intervals are as small as asked."""
        from sim.study.against import FIGURES
        from sim.study.statistics.replications import MOST, needed

        outcomes: list[Outcome] = []
        try:
            while len(outcomes) < self._total:
                more = range(len(outcomes), self._total)
                outcomes += yield [Trial(repeated(self.scenarios[0], r), {"replication": r}) for r in more]
                if self.params.precision is not None:
                    values = [
                        [v for o in outcomes if (v := number_at(o.value(), k)) is not None] for k, f in FIGURES.items() if f[2]
                    ]
                    wanted = max(
                        (needed(v, self.params.precision, self.params.confidence) for v in values if len(v) > 1), default=0
                    )
                    self._total = min(MOST, max(self._total, wanted))
        except Interrupted as stopped:
            outcomes += stopped.outcomes
            if not outcomes:
                raise
        return self._answer(outcomes)

    @staticmethod
    def observe(result: Result, trial: Trial) -> dict[str, Json]:
        """Figures, and whether the run settled."""
        from sim.study.statistics.worth import settled

        return figures(result) | {"stationary": settled(result)}

    def _answer(self, outcomes: Sequence[Outcome]) -> RepeatAnswer:
        from sim.study.against import FIGURES
        from sim.study.statistics.replications import replicated

        summaries = [o.figures for o in outcomes]
        stationary = next((str(s) for o in outcomes if (s := o.value()["stationary"])), "")
        intervals = {}
        for path in FIGURES:
            values = [v for s in summaries if (v := number_at(s, path)) is not None]
            found = replicated(values, self.params.confidence) if len(values) == len(summaries) else None
            if found is not None:
                intervals[path] = found
        aim = self.params.precision
        sharp = [intervals[k].relative for k, f in FIGURES.items() if f[2] and k in intervals]
        return RepeatAnswer(
            self.scenarios[0].name,
            summaries[0],
            intervals,
            len(summaries),
            self.params.confidence,
            sum(bool(s.slo.met) for s in summaries),
            stationary,
            aim,
            aim is None or max(sharp, default=0.0) <= aim,
            tuple(dict.fromkeys(w for s in summaries for w in s.warnings)),
        )
