"""At which load does each target of the SLO break, what gives first, and does the fleet come back after a spike?"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field, StrictInt, TypeAdapter

from sim.document import finite, is_number, number
from sim.errors import ConfigError, did_you_mean
from sim.registry import register
from sim.study.base import Interrupted, Params, Steps, Study, Trial, figures
from sim.study.options import Confidence
from sim.units import parse_seconds, show_number, show_seconds

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.metrics.result import Result
    from sim.study.base import Load
    from sim.study.plan.together import Part
    from sim.study.stress.curve import Curve
    from sim.study.stress.hysteresis import Hysteresis
    from sim.study.stress.model_band import Band
    from sim.study.stress.recovery import Recovery, Windows

_SPIKE = re.compile(r"^\s*([\d.]+)\s*[x×]?\s+for\s+(\S+)\s*$")
_WARM_S = 60.0
_FEWEST_TAIL_S = 120.0
_NEAR = 0.9  # of the breaking load: where a spike hurts most


def _spike(value: object) -> object:
    """``3x for 60s`` → (3.0, 60.0); ``none`` → None. Raises ValueError."""
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    if isinstance(value, list | tuple) and len(value) == 2:
        if not all(is_number(part) for part in value):
            raise ValueError("must be two numbers, or text like '3x for 60s'")
        factor, duration = float(value[0]), float(value[1])
    else:
        match = _SPIKE.match(str(value))
        if not match:
            raise ValueError("must be like '3x for 60s', or none")
        factor, duration = float(match[1]), parse_seconds(match[2])
    if not 1.0 < factor <= 1000.0 or not 0.0 < duration <= 86_400.0:
        raise ValueError("must be a factor above 1 and a time of at most a day, like '3x for 60s'")
    return factor, duration


class StressParams(Params):
    """What grows, and how far."""

    along: Literal["rate", "lengths", "burst", "class", "failures"] = Field(
        "rate",
        description="what grows: requests per second, the length of prompts and answers, the height of bursts, the rate of one class of "
        "clients, or how often things break",
    )
    of: str | None = Field(None, description="with --along class: the class whose rate grows while the others stay as they are")
    most: float = Field(8.0, gt=1, le=1000, description="how many times the scenario's own load at most")
    spike: Annotated[tuple[float, float] | None, BeforeValidator(_spike)] = Field(
        (3.0, 60.0),
        description="a spike to recover from, or none",
        json_schema_extra={"metavar": "'3x for 60s'", "shown": "3x for 60s"},
    )
    hysteresis: bool = Field(
        True, description="also go up and down in steps, and compare the same load before and after an overload"
    )
    replications: StrictInt = Field(
        3, ge=1, le=1000, description="runs at each load, each under other random numbers", json_schema_extra={"option": "-r"}
    )
    confidence: Confidence = 0.95


@dataclass(frozen=True)
class StressAnswer:
    """``curve`` (`sim.study.stress.curve.Curve`), ``recoveries`` and their ``windows`` (`sim.study.stress.recovery`), ``hysteresis``
    (`sim.study.stress.hysteresis`; None: not asked, or no load was too much).
    """

    name: str
    question: str
    offered: float
    curve: Curve
    recoveries: Sequence[Recovery] = ()
    windows: Sequence[Windows] = ()
    hysteresis: Hysteresis | None = None
    warnings: Sequence[str] = field(default_factory=tuple)
    failures_per_hour: float = 0.0
    """Of the scenario's own random faults, where these are what grows."""
    model: Band | None = None
    """What the error of the model makes of the break (`sim.study.stress.model_band.Band`); None where nothing is known."""

    @property
    def verdict(self) -> bool | None:
        """Whether the SLO holds at the scenario's own load; None where that was not run."""
        own = [p for p in self.curve.points if p.factor == 1.0]
        return bool(own[0].attainment["joint"][0] >= self.curve.required) if own else None

    def sentence(self) -> str:
        """What breaks first and where."""
        unit = {
            "rate": "requests/s",
            "lengths": "times the lengths",
            "burst": "times the mean in bursts",
            "failures": "failures per hour",
            "class": f"times the rate of class {self.curve.klass}",
        }[self.curve.along]
        scale = {"rate": self.offered, "failures": self.failures_per_hour}.get(self.curve.along, 1.0)
        good, bad = self.curve.breaks["joint"]
        if math.isnan(bad):
            return f"The SLO holds up to {show_number(good * scale, 4)} {unit}, the most that was tried."
        first = self.curve.first()
        what = _title(first) if first else "no single target, but all of them together,"
        if math.isnan(good):
            return f"The SLO does not hold at any load down to {show_number(bad * scale, 4)} {unit}: {what} breaks first."
        more = f" ({good:.2f} times the load of the scenario)" if scale != 1.0 else ""
        broken = next(p for p in self.curve.points if p.factor == bad)
        return f"The SLO holds up to {show_number(good * scale, 4)} {unit}{more}; then {what} breaks first. {broken.limit}{self._model(scale)}"

    def _model(self, scale: float) -> str:
        """What the error of the model makes of it."""
        m = self.model
        if m is None:
            return ""
        ends = " to ".join("none" if x is None else show_number(x * scale) for x in (m.low, m.high))
        from sim.metrics.model_error import sentence

        return sentence(ends, m.deployments, m.words, m.level)

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        own: dict[str, Json] = {
            "name": self.name,
            "question": self.question,
            "offered_requests_per_s": self.offered,
            "sentence": self.sentence(),
        }
        curve = asdict(self.curve) | {
            "first": self.curve.first(), "knee": self.curve.knee(), "capacity_requests_per_s": self.curve.capacity(),
        }  # fmt: skip
        own["hysteresis"] = (
            None if self.hysteresis is None else asdict(self.hysteresis) | {"sentence": self.hysteresis.sentence()}
        )
        own["model_error"] = None if self.model is None else asdict(self.model)
        own |= {"verdict": self.verdict, "curve": curve, "recoveries": [asdict(r) for r in self.recoveries]}
        own |= {"windows": [asdict(w) for w in self.windows], "warnings": list(self.warnings)}
        return {k: finite(v) for k, v in own.items()}


@register("study")
class Stress(Study[StressParams]):
    """Raise the load until each target of the SLO breaks; say what gives first and how long a spike hurts."""

    name = "stress"
    examples = (
        "servesim stress quickstart --spike '3x for 60s'",
        "servesim stress quickstart --along lengths",
    )
    Params = StressParams
    report: ClassVar[str] = "sim.report.stress"
    gate: ClassVar[str] = "when the SLO does not hold at the scenario's own load"

    def __init__(self, scenarios: Sequence[Scenario], params: StressParams) -> None:
        super().__init__(scenarios, params)
        from sim.metrics.slo import asked

        s = self.scenarios[0]
        if not asked(s):
            raise ConfigError("slo", None, "is needed: stress asks when it breaks", "for example slo: {ttft: 1s, tpot: 50ms}")
        names = list(s.traffic.classes or {})
        if params.along == "class" and params.of not in names:
            raise ConfigError(
                "of", params.of, "must be a class of the traffic", ", ".join(names), did_you_mean(params.of or "", names)
            )
        if params.along == "failures":
            from sim.study.stress.failures import breaking

            breaking(s, 1.0)
        if params.along != "class" and params.of is not None:
            raise ConfigError("of", params.of, "goes with `along: class`")
        if s.traffic.waits:
            raise ConfigError(
                "traffic.closed_loop", "set", "clients that wait slow down with the system: nothing breaks",
                "open-loop traffic", "sweep traffic.closed_loop.concurrency instead",
            )  # fmt: skip

    def run(self) -> Steps:
        """The curve, then the spikes; interrupted, what is known of the curve."""
        from sim.metrics.slo import Slo
        from sim.study.single import Prepared
        from sim.study.stress.curve import trace
        from sim.study.stress.failures import per_hour
        from sim.study.stress.model_band import band

        s, p = self.scenarios[0], self.params
        prepared = Prepared(s)
        offered = float(prepared.traffic.mean_rate)
        if not math.isfinite(offered):
            raise ConfigError("traffic", offered, "has no rate to raise", "more than one request, not all at once")
        curve, warnings = None, []
        spikes: list[tuple[Windows, Recovery]] = []
        found = model = None
        try:
            curve = yield from trace(s, offered, p.along, p.most, Slo.of(s.slo).required, p.replications, p.confidence, p.of)
            if prepared.scaling is None:
                good = curve.breaks["joint"][0]
                model = yield from band(s, prepared.plans, offered, p.along, good, curve.required)
            if p.spike is not None:
                spikes = yield from self._spikes(curve, offered, *p.spike)
            capacity = curve.capacity()
            if p.hysteresis and p.along == "rate" and capacity is not None:
                from sim.study.stress.hysteresis import measure

                found = yield from measure(s, capacity, p.replications, p.confidence)
        except Interrupted:
            if curve is None:
                raise
            warnings.append("The study was interrupted: what comes after the curve is missing.")
        return StressAnswer(
            s.name,
            s.question,
            offered,
            curve,
            [r for _, r in spikes],
            [w for w, _ in spikes],
            found,
            warnings,
            per_hour(s) if p.along == "failures" else 0.0,
            model,
        )

    def _spikes(self, curve: Curve, offered: float, factor: float, duration: float) -> Part[list[tuple[Windows, Recovery]]]:
        """At the scenario's own load, and just below the load that breaks: where it holds without a spike."""
        from sim.study.stress.recovery import Recovery, Windows

        good = curve.breaks["joint"][0] if curve.along == "rate" else 1.0
        loads = sorted({1.0, round(_NEAR * good, 6)} if not math.isnan(good) else {1.0})
        capacity, windows, recovery = curve.capacity(), TypeAdapter(Windows), TypeAdapter(Recovery)
        trials = [self._spiked(offered * f, capacity, factor, duration) for f in loads if math.isnan(good) or f <= good]
        found = []
        for o in (yield trials):
            seen = cast("dict[str, Json]", o.value()["spike"])
            found.append((windows.validate_python(seen["windows"]), recovery.validate_python(seen["recovery"])))
        return found

    def _spiked(self, rate: float, capacity: float | None, factor: float, duration: float) -> Trial:
        """A run long enough to see the recovery."""
        s = self.scenarios[0]
        drain = 0.0 if capacity is None or capacity <= rate else max(factor * rate - capacity, 0.0) * duration / (capacity - rate)
        tail = max(4.0 * drain, 3.0 * duration, _FEWEST_TAIL_S)
        if s.traffic.so_many is not None:
            n = math.ceil(rate * (_WARM_S + factor * duration + tail))
            s = s.model_copy(update={"traffic": s.traffic.with_requests(n)})
        load: Load = {"rate": rate, "spike": (factor, _WARM_S, duration)}
        return Trial(s, {"rate": rate, "spike": factor, "capacity": capacity}, load)

    @staticmethod
    def observe(result: Result, trial: Trial) -> dict[str, Json]:
        """The figures; of a spike also its windows."""
        kept = figures(result)
        spike, course = trial.load.get("spike"), trial.load.get("course")
        if spike is not None:
            from sim.metrics.slo import Slo
            from sim.study.stress.recovery import judge

            told = trial.settings["capacity"]
            capacity = None if told is None else number(told)
            seen, found = judge(result.columns, Slo.of(trial.scenario.slo).required, trial.load["rate"], spike, capacity)
            kept["spike"] = {"windows": asdict(seen), "recovery": asdict(found)}
        if course is not None:
            from sim.study.stress.hysteresis import judge as at_each_step

            kept["met_at_step"] = at_each_step(result.columns, course)
        return kept


def _title(target: str) -> str:
    from sim.study.stress.curve import title_of

    return title_of(target)


def recovery_sentence(r: Recovery) -> str:
    """A recovery in words."""
    head = f"{r.factor:g} times the load for {show_seconds(r.duration_s)} at {show_number(r.load, 4)} requests/s"
    if r.recovered_s == 0.0 and not r.missed:
        return f"{head}: nobody misses the SLO."
    worst = "" if r.worst_ttft_s is None else f", the longest wait for a first token {show_seconds(r.worst_ttft_s)}"
    hurt = f"{head}: {r.missed:,} requests miss the SLO{worst}"
    if r.before:
        return f"{hurt}; the SLO is missed before the spike too, so there is nothing to come back to."
    if r.stuck:
        return f"{hurt}; it does not come back by itself though the load is below what it can serve: a metastable state."
    if r.recovered_s is None:
        return f"{hurt}; not recovered when the run ended."
    if r.recovered_s == 0.0:
        return f"{hurt}; good again as soon as the spike had ended."
    return f"{hurt}; recovered {show_seconds(r.recovered_s)} after the spike."
