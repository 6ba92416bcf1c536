"""Curves of load, spikes and steps in a world whose breaks are known."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.metrics.model_error import Interval
from sim.study.base import Outcome, Trial
from sim.study.questions.stress import Stress, StressAnswer, StressParams, recovery_sentence
from sim.study.statistics.replications import bounds
from sim.study.stress import model_band
from sim.study.stress.curve import Curve, Point, measure, title_of, trace, worse
from sim.study.stress.failures import breaking, per_hour
from sim.study.stress.hysteresis import LEVELS, OVERLOAD, Hysteresis, Level, course
from sim.study.stress.recovery import Recovery, Windows, judge, width_for
from sim.study.variants import seed_of
from tests.study.world import OFFERED, World, ask, border, changed, first_token


def quickstart(*more: str) -> Any:
    return sim.load("quickstart", ["record.timeseries=false", *more])


def traced(world: World, along: str = "rate", most: float = 8.0, runs: int = 1) -> tuple[Curve, list[float]]:
    found, asked = ask(trace(quickstart(), OFFERED, along, most, 0.99, runs, 0.95), world)
    return found, [number for batch in asked for t in batch[:1] if isinstance(number := t.settings[along], float)]


@pytest.mark.parametrize("serves", [2.0, 9.0, 12.0, 30.0])
def test_each_target_breaks_where_the_world_says(serves: float) -> None:
    curve, factors = traced(World(serves))
    breaks = {"ttft_s": border() * serves / OFFERED, "tpot_s": (0.05 / 0.99 / 0.02 - 1) * serves / OFFERED}
    for target, at in (breaks | {"joint": min(breaks.values())}).items():
        good, bad = curve.breaks[target]
        if at < max(factors):
            assert good <= at < bad and bad / good <= 1.03
        else:
            assert good == max(factors) and math.isnan(bad)
    assert len(set(factors)) == len(factors) and [p.factor for p in curve.points] == sorted(factors)
    assert curve.first() == ("ttft_s" if breaks["ttft_s"] < max(factors) else None)
    assert curve.required == 0.99 and curve.along == "rate" and curve.unit == "requests/s"
    assert curve.capacity() == (pytest.approx(serves) if max(factors) * OFFERED > serves else None)
    assert all(p.rate == OFFERED * p.factor and p.runs == 1 and p.saturated == (p.rate > serves) for p in curve.points)


def test_which_loads_are_tried_and_in_which_order() -> None:
    _, factors = traced(World(12.0))  # ttft breaks at 1.203, more comes than is served from 1.5 on, tpot never does by then
    assert factors[:4] == [1.0, 1.25, 1.5625, 0.5]
    low, high = 1.0, 1.25
    for f in factors[4:]:
        assert f == round(math.sqrt(low * high), 6)
        low, high = (f, high) if f * OFFERED <= border() * 12 else (low, f)
    assert high / low <= 1.03
    _, factors = traced(World(2.0))  # breaks at 0.2: down by squares of the step until it holds
    assert factors[:2] == pytest.approx([1.0, 1 / 1.5625]) and factors[2:5] == pytest.approx(
        [1.5625**-n for n in (2, 3, 4)], rel=1e-5
    )
    _, factors = traced(World(100.0), most=3.0)  # never breaks: to the most
    assert factors == pytest.approx([*(1.25**n for n in range(5)), 3.0, 0.5], rel=1e-5)
    lost, factors = traced(World(0.01))  # nothing holds: to a 64th
    assert min(factors) == pytest.approx(1.5625**-9, rel=1e-4) and math.isnan(lost.breaks["joint"][0])
    assert lost.breaks["joint"][1] == min(factors)
    longer, factors = traced(World(12.0), "lengths", most=2.0)
    assert min(factors) == 1.0 and longer.breaks["joint"][0] <= border() * 1.5 < longer.breaks["joint"][1]


def test_a_load_is_what_grows() -> None:
    s = quickstart()

    def loads(along: str, factor: float, of: str = "") -> list[Any]:
        _, (batch,) = ask(measure(s, OFFERED, along, factor, 2, 0.95, of), World())
        assert [t.settings for t in batch] == [{along: factor, "replication": r} for r in (0, 1)]
        assert [t.scenario.seed for t in batch] == [s.seed, seed_of(s.seed, 1)]
        return [t.load for t in batch]

    assert loads("rate", 1.5) == [{"rate": 12.0}] * 2
    assert loads("rate", 1.0) == [{"rate": 8.0}] * 2
    assert loads("lengths", 1.5) == [{"lengths": 1.5}] * 2 and loads("lengths", 1.0) == [{}] * 2
    assert loads("burst", 3.0) == [{"burst": 3.0}] * 2
    assert loads("class", 3.0, "chat") == [{"classes": {"chat": 3.0}}] * 2 and loads("class", 1.0, "chat") == [{}] * 2
    assert worse("lengths", 2.0) == {"lengths": 2.0} and worse("burst", 2.0) == {"burst": 2.0}


def test_a_point_is_the_mean_and_interval_of_its_runs() -> None:
    s = quickstart()
    world = World(10.0, {seed_of(s.seed, r): f for r, f in enumerate((1.0, 0.9, 1.2))})
    point, _ = ask(measure(s, OFFERED, "rate", 1.1, 3, 0.9), world)
    xs = [8.8 / 10.0, 8.8 / 9.0, 8.8 / 12.0]
    assert point.attainment["ttft_s"] == pytest.approx(bounds([min(1.0, 1 / first_token(x)) for x in xs], 0.9))
    assert point.figures["ttft_p99_s"] == pytest.approx(bounds([first_token(x) for x in xs], 0.9))
    assert (point.factor, point.rate, point.runs, point.saturated) == (1.1, pytest.approx(8.8), 3, False)
    assert point.limit == "Busy to 0.88."
    two = World(10.0, {seed_of(s.seed, r): f for r, f in enumerate((1.0, 0.5, 0.5))})
    assert ask(measure(s, OFFERED, "rate", 1.0, 3, 0.9), two)[0].saturated  # most of the runs
    assert not ask(measure(s, OFFERED, "rate", 1.0, 2, 0.9), two)[0].saturated
    lengths, _ = ask(measure(s, OFFERED, "lengths", 2.0, 1, 0.9), World())
    assert lengths.rate == OFFERED


def test_several_demands_count_by_the_misses_that_each_allows() -> None:
    """A demand of 95 % that 96 % meet had 4 of 5 misses it allows: of the one share of 99 % that is as much as 99.2 %."""
    base = changed()["slo"]["demands"][0]

    def demand(target: str, required: float, attainment: float | None, **more: Any) -> dict[str, Any]:
        return base | {"target": target, "required": required, "attainment": attainment} | more

    demands = [
        demand("ttft_s", 0.95, 0.96, percentile="p95"),
        demand("joint", 0.99, 0.98, klass="code"),
        demand("joint", 0.99, 1.0),
        demand("tpot_s", 1.0, None, klass="chat"),
    ]

    def world(trial: Trial) -> Outcome:
        return Outcome(trial, changed(slo__demands=demands, slo__required=0.99, slo__effective=0.98))

    point, _ = ask(measure(quickstart(), OFFERED, "rate", 1.0, 1, 0.9), world)
    assert {k: v[0] for k, v in point.attainment.items()} == pytest.approx(
        {"ttft_s p95": 0.992, "class code": 0.98, "each": 1.0, "class chat tpot_s": 0.0, "joint": 0.98}
    )
    assert title_of("class code ttft_s p95") == "class code TTFT p95" and title_of("each") == "what every request must meet"


def curve(points: list[tuple[float, float]], **more: Any) -> Curve:
    made = [Point(f, OFFERED * f, 1, {"ttft_p99_s": (y, y, y)}, {"joint": (1.0, 1.0, 1.0)}, False, "limit") for f, y in points]
    return Curve("rate", made, 0.99, {"joint": (1.0, math.nan)}, **more)


def test_the_knee_is_where_the_latency_has_doubled() -> None:
    assert curve([(1.0, 1.0), (2.0, 1.5), (4.0, 6.0)]).knee() == pytest.approx(2 * 2 ** (math.log(2 / 1.5) / math.log(6 / 1.5)))
    assert curve([(1.0, 1.0), (2.0, 2.0), (4.0, 8.0)]).knee() == pytest.approx(2.0)
    assert curve([(1.0, 1.0), (2.0, 4.0)]).knee() == pytest.approx(math.sqrt(2))  # half of the way in logarithms
    assert (
        curve([(1.0, 1.0), (2.0, 1.9)]).knee() is None
        and curve([(1.0, 1.0)]).knee() is None
        and curve([(1.0, 0.0), (2.0, 1.0)]).knee() is None
    )
    first = replace(
        curve([(1.0, 1.0)]), breaks={"ttft_s": (2.0, 2.5), "tpot_s": (1.0, 1.2), "e2e_s": (1.0, math.nan), "joint": (0.5, 0.6)}
    )
    assert first.first() == "tpot_s"
    assert [replace(first, along=a, klass="code").unit for a in ("lengths", "burst", "failures", "class")] == [
        "lengths ×", "bursts ×", "failures ×", "code ×"
    ]  # fmt: skip


@pytest.mark.parametrize("along", ["rate", "lengths"])
@pytest.mark.parametrize("serves", [1.0, 9.0, 30.0])
def test_the_break_with_longer_and_shorter_steps(serves: float, along: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_band, "step_error", lambda _: Interval(0.7, 1.4, 9, "vllm"))
    good = border() * serves / OFFERED
    found, _ = ask(
        model_band.band(quickstart(), [], OFFERED, along, max(good, 1.0) if along != "rate" else good, 0.99), World(serves)
    )
    for end, f in ((found.low, 1.4), (found.high, 0.7)):
        true = border(f) / f * serves / OFFERED
        if along != "rate" and true < 1.0:
            assert end is None or end >= 1.0
        else:
            assert end / 1.0301 <= max(true, good) and true <= end * 1.0301
    assert (found.step_time, found.deployments, found.words, found.level) == ((0.7, 1.4), 9, "vllm", 0.8)
    for along, factor in (("failures", 1.0), ("class", 1.0), ("rate", math.nan)):
        assert ask(model_band.band(quickstart(), [], OFFERED, along, factor, 0.99), World())[0] is None
    monkeypatch.setattr(model_band, "step_error", lambda _: None)
    assert ask(model_band.band(quickstart(), [], OFFERED, "rate", 1.0, 0.99), World())[0] is None


def told(**more: Any) -> StressAnswer:
    c = replace(
        curve([(1.0, 1.0), (1.25, 2.0), (1.5, 9.0)]),
        breaks={"ttft_s": (1.25, 1.5), "tpot_s": (1.5, math.nan), "joint": (1.25, 1.5)},
    )
    return StressAnswer(**({"name": "x", "question": "", "offered": 8.0, "curve": c} | more))


def test_the_answer_in_words() -> None:
    a = told()
    assert (
        a.sentence() == "The SLO holds up to 10 requests/s (1.25 times the load of the scenario); then TTFT breaks first. limit"
    )
    band = model_band.Band(0.5, None, (0.8, 1.5), 6, "vllm")
    assert (
        replace(a, model=band)
        .sentence()
        .endswith(" limit Model error: 4 to none, as 80% of 6 measured deployments (vllm) would have it.")
    )
    assert a.verdict is True and replace(a, curve=replace(a.curve, required=1.01)).verdict is False
    assert replace(a, curve=replace(a.curve, points=a.curve.points[1:])).verdict is None
    lengths = replace(a, curve=replace(a.curve, along="lengths"))
    assert lengths.sentence() == "The SLO holds up to 1.25 times the lengths; then TTFT breaks first. limit"
    failures = replace(a, curve=replace(a.curve, along="failures"), failures_per_hour=4.0)
    assert failures.sentence().startswith("The SLO holds up to 5 failures per hour (1.25 times the load of the scenario);")
    ever = replace(a, curve=replace(a.curve, breaks={"joint": (1.5, math.nan)}))
    assert ever.sentence() == "The SLO holds up to 12 requests/s, the most that was tried."
    never = replace(a, curve=replace(a.curve, breaks={"joint": (math.nan, 0.5)}))
    assert (
        never.sentence()
        == "The SLO does not hold at any load down to 4 requests/s: no single target, but all of them together, breaks first."
    )
    data = a.as_dict()
    assert (
        data["curve"]["first"] == "ttft_s"
        and data["curve"]["knee"] == pytest.approx(1.25)
        and data["curve"]["capacity_requests_per_s"] is None
    )
    assert (
        data["hysteresis"] is data["model_error"] is None
        and data["verdict"] is True
        and data["curve"]["breaks"]["tpot_s"][1] is None
    )


def test_a_study_asks_for_curve_spikes_and_steps_of_the_right_loads() -> None:
    """9 requests/s served: joint breaks at 7.2, so 8 does not hold; the spike comes at the scenario's load only where that holds."""
    study = Stress([quickstart("traffic.synthetic.requests=200")], StressParams(replications=1, spike="3x for 20s"))
    world = World(12.0)
    kept: list[Trial] = []

    def also(trial: Trial) -> Outcome:
        out = world(trial)
        kept.append(trial)
        assert out.data is not None
        seen = {"width_s": 1.0, "start_s": [0.0], "attainment": [None], "ttft_p99_s": [None], "requests": [0]}
        recovery = vars(Recovery(trial.load["rate"], 3.0, 20.0, 4.0, None, None, 5, False))
        steps = {"met_at_step": [1.0, 0.99, 0.9, 0.2, 0.5, 0.99, 1.0]} if "course" in trial.load else {}
        return Outcome(trial, {**out.data, "spike": {"windows": seen, "recovery": recovery}, **steps})

    found, _ = ask(study.run(), also)
    good = found.curve.breaks["joint"][0]
    near = round(0.9 * good, 6)
    spikes = [t for t in kept if "spike" in t.load]
    assert [t.load["rate"] for t in spikes] == sorted({OFFERED, OFFERED * near})
    capacity = found.curve.capacity()
    for t in spikes:
        rate = t.load["rate"]
        drain = max(3 * rate - capacity, 0) * 20 / (capacity - rate)
        assert t.load["spike"] == (3.0, 60.0, 20.0) and t.settings == {"rate": rate, "spike": 3.0, "capacity": capacity}
        assert t.scenario.traffic.so_many == math.ceil(rate * (60 + 60 + max(4 * drain, 60, 120)))
    assert [r.load for r in found.recoveries] == [t.load["rate"] for t in spikes]
    (up_down,) = [t for t in kept if "course" in t.load]
    seconds, factors = up_down.load["course"]
    assert (seconds, factors) == course(capacity) and up_down.load["rate"] == capacity
    assert up_down.scenario.traffic.so_many == math.ceil(capacity * sum(w * f for w, f in zip(seconds, factors, strict=True)))
    h = found.hysteresis
    assert [(lv.rate, lv.up[0], lv.down[0], round(lv.lost[0], 9)) for lv in h.levels] == [
        (pytest.approx(0.5 * capacity), 1.0, 1.0, 0.0), (pytest.approx(0.7 * capacity), 0.99, 0.99, 0.0), (pytest.approx(0.85 * capacity), 0.9, 0.5, 0.4),
    ]  # fmt: skip
    assert (h.overload, h.overload_s) == (pytest.approx(1.15 * capacity), seconds[3])
    cut, _ = ask(study.run(), also, stop=len(kept) - 2)
    assert cut.recoveries == [] and cut.hysteresis is None
    assert cut.warnings == ["The study was interrupted: what comes after the curve is missing."]


def test_a_course_of_steps() -> None:
    seconds, factors = course(8.0)
    assert factors == (0.5, 0.7, 0.85, 1.15, 0.85, 0.7, 0.5) and (LEVELS, OVERLOAD) == ((0.5, 0.7, 0.85), 1.15)
    assert seconds == (100.0, 100.0, 100.0, 25.0, 100.0, 100.0, 100.0)  # 400 requests at 4/s
    assert course(800.0)[0] == (60.0, 60.0, 60.0, 15.0, 60.0, 60.0, 60.0)


def test_the_words_of_hysteresis() -> None:
    same = Level(4.0, (1.0,) * 3, (1.0,) * 3, (0.0, 0.0, 0.0))
    bad = Level(6.0, (0.99,) * 3, (0.8,) * 3, (0.19, 0.1, 0.28))
    worst = Level(7.0, (0.9,) * 3, (0.4,) * 3, (0.5, 0.4, 0.6))
    head = "After 25 s at 9.2 requests/s, more than can be served,"
    assert Hysteresis([same], 9.2, 25.0).sentence() == f"{head} every load is served as well as before: no hysteresis."
    assert Hysteresis([], 9.2, 25.0).sentence() == f"{head} the traffic ended before the same loads came again: nothing is known."
    assert Hysteresis([same, worst, bad], 9.2, 25.0).sentence() == (
        f"{head} hysteresis: at 7 requests/s 40.00% of requests meet the SLO, 90.00% did before, though the queue had time to be worked off."
    )
    assert (
        not Level(1.0, (1.0,) * 3, (1.0,) * 3, (0.01, 0.005, 0.02)).worse
        and not Level(1.0, (1.0,) * 3, (1.0,) * 3, (0.1, 0.0, 0.2)).worse
    )
    assert Level(1.0, (1.0,) * 3, (1.0,) * 3, (0.011, 0.005, 0.02)).worse


def test_the_words_of_a_recovery() -> None:
    r = Recovery(8.0, 3.0, 60.0, 0.0, 10.0, 2.5, 0, False)
    assert recovery_sentence(r) == "3 times the load for 60 s at 8 requests/s: nobody misses the SLO."
    hurt = replace(r, missed=1200)
    assert (
        "at 8 requests/s: 1,200 requests miss the SLO, the longest wait for a first token 2.5 s; good again as soon as"
        in recovery_sentence(hurt)
    )
    assert recovery_sentence(replace(hurt, worst_ttft_s=None)).endswith(
        "1,200 requests miss the SLO; good again as soon as the spike had ended."
    )
    assert "nothing to come back to" in recovery_sentence(replace(hurt, before=True, stuck=True))
    assert recovery_sentence(replace(hurt, stuck=True)).endswith("a metastable state.")
    assert recovery_sentence(replace(hurt, recovered_s=None)).endswith("; not recovered when the run ended.")
    assert recovery_sentence(replace(hurt, recovered_s=12.0)).endswith("; recovered 12 s after the spike.")
    assert recovery_sentence(replace(r, recovered_s=3.0)).endswith(" first token 2.5 s; recovered 3 s after the spike.")


def spiked(late: tuple[float, float], until: float = 300.0, rate: float = 10.0) -> dict[str, np.ndarray]:
    """Requests every 0.1 s; who comes within these seconds misses the SLO."""
    arrival = np.arange(0, until, 1 / rate)
    met = ~((arrival >= late[0]) & (arrival < late[1]))
    return {"arrival_s": arrival, "ttft_s": np.where(met, 0.1, 5.0), "slo_met": met}


@pytest.mark.parametrize(
    ("late", "recovered", "missed", "stuck", "before"),
    [
        ((-1.0, -1.0), 0.0, 0, False, False),
        ((70.0, 85.0), 0.0, 150, False, False),  # bad within the spike only
        ((70.0, 130.0), 40.0, 600, False, False),
        ((70.0, 1e9), None, 2300, True, False),
        ((0.0, 1e9), None, 2400, False, True),
        ((0.0, 59.0), 0.0, 0, False, True),
        ((0.0, 29.0), 0.0, 0, False, False),  # bad for less than half of the time before
        ((70.0, 265.0), 175.0, 1950, True, False),
    ],
)
def test_recovery_from_windows_that_are_known(
    late: tuple[float, float], recovered: float | None, missed: int, stuck: bool, before: bool
) -> None:
    """A spike from 60 to 90 s of twice 10/s where 15/s are served leaves 150 requests: 30 s to work off at 5/s."""
    seen, found = judge(spiked(late), 0.99, 10.0, (2.0, 60.0, 30.0), 15.0)
    assert seen.width_s == 2.5 and seen.start_s == [2.5 * i for i in range(120)] and seen.requests == [25] * 120
    assert (found.recovered_s, found.missed, found.stuck, found.before) == (recovered, missed, stuck, before)
    assert (found.load, found.factor, found.duration_s, found.expected_s) == (10.0, 2.0, 30.0, 30.0)
    assert found.worst_ttft_s == (5.0 if missed else 0.1)
    # unknown capacity, and one that is not enough: no time is expected, so nothing is stuck
    for capacity in (None, 10.0):
        _, other = judge(spiked(late), 0.99, 10.0, (2.0, 60.0, 30.0), capacity)
        assert other.expected_s is None and not other.stuck
    assert judge(spiked(late), 0.99, 10.0, (2.0, 60.0, 30.0), 25.0)[1].expected_s == 0.0


def test_windows_of_arrivals() -> None:
    assert width_for(10.0, 30.0) == 2.5 and width_for(1.0, 30.0) == 20.0
    _, none = judge(
        {"arrival_s": np.zeros(0), "ttft_s": np.zeros(0), "slo_met": np.zeros(0, bool)}, 0.99, 10.0, (2.0, 60.0, 30.0), 15.0
    )
    assert (none.recovered_s, none.worst_ttft_s, none.missed) == (0.0, None, 0)
    few = {
        "arrival_s": np.array([0.5, 7.0, 7.5, 8.0]),
        "ttft_s": np.array([0.1, np.nan, 1.0, 2.0]),
        "slo_met": np.array([1, 0, 1, 1], bool),
    }
    seen, found = judge(few, 0.99, 10.0, (2.0, 5.0, 30.0), 15.0)
    assert seen == Windows(2.5, [0.0, 2.5, 5.0, 7.5], [1.0, None, 0.0, 1.0], [0.1, None, None, pytest.approx(1.99)], [1, 0, 1, 2])
    assert found.worst_ttft_s == 2.0 and found.missed == 1


def test_failures_grow_with_the_factor() -> None:
    s = quickstart("deployment.replicas=3", "faults=[{name: crash, mtbf: 10h, for: 60s}, {name: crash, at: [20s], for: 60s}]")
    assert per_hour(s) == pytest.approx(0.3)
    assert per_hour(breaking(s, 4.0)) == pytest.approx(1.2)
    assert breaking(s, 4.0).faults[1] == s.faults[1]


def test_a_spike_at_a_load_that_does_not_hold_is_not_asked_for() -> None:
    study = Stress([quickstart()], StressParams(replications=1))
    for good, loads in ((0.5, [0.45]), (1.0, [0.9, 1.0]), (2.0, [1.0, 1.8]), (math.nan, [1.0])):
        made = replace(curve([(1.0, 1.0)]), breaks={"joint": (good, 3.0)})
        (trials,) = itertools.islice(study._spikes(made, OFFERED, 3.0, 60.0), 1)
        assert [t.load["rate"] / OFFERED for t in trials] == pytest.approx(loads)
        assert trials[0].settings["capacity"] is None
        assert trials[0].scenario.traffic.so_many == math.ceil(trials[0].load["rate"] * (60 + 180 + 180))
    lengths = replace(curve([(1.0, 1.0)]), along="lengths", breaks={"joint": (4.0, 5.0)})
    (trials,) = itertools.islice(study._spikes(lengths, OFFERED, 3.0, 60.0), 1)
    assert [t.load["rate"] for t in trials] == [OFFERED * 0.9, OFFERED]


def test_spike_is_written_as_people_write_it() -> None:
    assert StressParams(spike="2.5x for 2m").spike == (2.5, 120.0) and StressParams(spike=[2, 30]).spike == (2.0, 30.0)
    assert StressParams(spike=" None ").spike is None and StressParams(spike=None).spike is None
    assert StressParams(spike="1000x for 24h").spike == (1000.0, 86400.0)
    for wrong in ("1x for 30s", "3x", "1001x for 3s", "3x for 0s", "3x for 25h"):
        with pytest.raises(ValueError, match="must be"):
            StressParams(spike=wrong)


def test_observed_of_a_run_are_its_windows() -> None:
    columns = spiked((70.0, 130.0)) | {}
    trial = Trial(quickstart(), {"capacity": 15.0}, {"rate": 10.0, "spike": (2.0, 60.0, 30.0)})
    result = SimpleNamespace(columns=columns, summary=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.study.questions.stress.figures", lambda _: {})
        kept = Stress.observe(result, trial)  # type: ignore[arg-type]
        steps = Stress.observe(result, replace(trial, load={"rate": 10.0, "course": ((100.0, 100.0), (1.0, 1.0))}))["met_at_step"]  # type: ignore[arg-type]
        assert set(Stress.observe(result, replace(trial, load={}))) == set()  # type: ignore[arg-type]
    assert kept["spike"]["recovery"]["recovered_s"] == 40.0 and kept["spike"]["recovery"]["expected_s"] == 30.0
    assert steps == [pytest.approx(1 - 30 / 50), 1.0]  # of the second half of each step
