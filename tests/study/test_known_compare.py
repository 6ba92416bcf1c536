"""Comparisons, repetitions, sweeps and the choice of an engine, of runs whose figures are known."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import ConfigError
from sim.metrics.model_error import Interval
from sim.metrics.steady import Steady
from sim.report.compare import ROWS, shown
from sim.report.compare import best as marked
from sim.study.against import BESIDE, FIGURES, Against, against
from sim.study.base import Outcome, Trial
from sim.study.plan import model_band as band_module
from sim.study.plan.model_band import ModelBand
from sim.study.questions.compare import PARTS, Compare, CompareParams, Deployment
from sim.study.questions.repeat import Repeat, RepeatParams
from sim.study.questions.select import Select, SelectParams
from sim.study.questions.sweep import PER_CARD, Sweep, SweepAnswer, SweepParams
from sim.study.selection.advice import Row, advice, best
from sim.study.statistics.holm import holm
from sim.study.statistics.paired import Difference, paired_difference, percent
from sim.study.statistics.replications import MOST, needed, replicated
from sim.study.statistics.replications import bounds as spread_of
from sim.study.variants import seed_of
from tests.study.world import OFFERED, World, ask, border, changed


def quickstart(*more: str) -> Any:
    return sim.load("quickstart", ["record.timeseries=false", *more])


def seen(ttft: float, **more: Any) -> dict[str, Any]:
    """Of a run, as the study compare keeps it."""
    made = changed(latency__ttft_s__p99=ttft, warnings=[], **more)
    parts = {"latency.ttft_s.p99": [ttft * (1 + 0.01 * math.sin(i)) for i in range(PARTS)]}
    return made | {"stationary": "", "warmup_s": 3.0, "scenario": "", "alone": {}, "curves": {}, "parts": parts}


def compared(takes: dict[str, float], noise: float = 0.05, **params: Any) -> tuple[Any, list[list[Trial]]]:
    """Deployments by ``max_num_seqs`` whose p99 TTFT is ``takes`` times what the seed's luck is, the same for all."""
    luck = {seed_of(0, r): 1 + noise * math.sin(3 * r) for r in range(MOST)}

    def world(trial: Trial) -> Outcome:
        if trial.problem:
            return Outcome(trial, None, trial.problem)
        own = 1e-3 * math.cos(5 * list(luck).index(trial.scenario.seed))
        return Outcome(trial, seen(takes[str(trial.settings["deployment"])] * luck[trial.scenario.seed] * (1 + own)))

    study = Compare([quickstart()], CompareParams(over={"deployment.engine.max_num_seqs": [int(k) for k in takes]}, **params))
    return ask(study.run(), world)


def test_the_difference_of_pairs_is_known_though_the_runs_scatter() -> None:
    found, asked = compared({"8": 1.0, "16": 0.8, "32": 1.0, "64": 1.3}, noise=0.5)
    assert [len(batch) for batch in asked] == [20] and found.replications == 5
    assert [(t.settings["deployment"], t.settings["replication"]) for t in asked[0][:6]] == [
        *(("8", r) for r in range(5)),
        ("16", 0),
    ]
    lower, same, higher = found.comparisons
    key = "latency.ttft_s.p99"
    assert lower.differences[key].relative.value == pytest.approx(-0.2, abs=1e-6)
    assert (lower.better, lower.worse, same.better, same.worse, higher.better, higher.worse) == (
        True,
        False,
        False,
        False,
        False,
        True,
    )
    assert (
        "lowers p99 TTFT by 20 % ±" in lower.verdict
        and "p99 TTFT unchanged" in same.verdict
        and "raises p99 TTFT by 30 %" in higher.verdict
    )
    assert found.verdict is False
    assert found.headline() == "Against 8: 16 is better; 32 is not shown to differ; 64 is worse."
    assert found.sentence() == " ".join(c.verdict for c in found.comparisons)
    values = found.deployments[1].values[key]
    assert found.deployments[1].intervals[key] == replicated(values, 0.95) and len(values) == 5
    alone, _ = compared({"8": 1.0, "16": 0.8})
    assert alone.verdict is True and alone.headline() == alone.comparisons[0].verdict
    assert compared({"8": 1.0, "16": 1.0})[0].verdict is None


def test_what_is_told_beside_the_verdict_is_of_all_repetitions() -> None:
    """Preemptions 0, 1, 2 …: the first run alone would say none."""

    def world(trial: Trial) -> Outcome:
        return Outcome(trial, seen(0.1, preemptions=int(trial.settings["replication"])))  # type: ignore[call-overload]

    study = Compare([quickstart()], CompareParams(over={"deployment.engine.max_num_seqs": [8, 16]}, replications=4))
    found, _ = ask(study.run(), world)
    row = next(r for r in ROWS if r.path == "preemptions")
    assert [row.value(d) for d in found.deployments] == [1.5, 1.5] and found.deployments[0].summary.preemptions == 0
    assert {r.path for r in ROWS} <= {*FIGURES, *BESIDE}
    measured = replace(row, path="latency.itl_s.p99", best="min")
    for d, other in zip(found.deployments, (0.1, 0.2), strict=True):
        d.means["latency.itl_s.p99"] = d.means["context.accelerators"] = other
    assert not marked(measured, found)  # nobody has tested whether it differs
    assert marked(replace(measured, path="context.accelerators"), found) == {0}
    said = []
    for steady in ((1.0, 1.0), (1.0, None), (None, None)):
        for d, rate in zip(found.deployments, steady, strict=True):
            d.summary = replace(d.summary, steady=Steady(requests_per_s=rate))
        said += [r.title for r in shown(found) if "oodput" in r.title]
    assert said == ["Goodput/s without the drain", "Goodput/s", "Goodput/s with the drain"]


def test_one_repetition_is_compared_in_stretches() -> None:
    found, _ = compared({"8": 1.0, "16": 0.5}, replications=1)
    assert found.notes == ["One repetition: differences are those of 20 stretches of the same requests."]
    assert set(found.comparisons[0].differences) == {"latency.ttft_s.p99"}
    assert found.comparisons[0].differences["latency.ttft_s.p99"].relative.value == pytest.approx(-0.5)
    assert found.deployments[0].intervals == {}


def test_as_many_repetitions_as_the_precision_takes() -> None:
    found, asked = compared({"8": 1.0, "16": 2.0}, noise=0.4, precision=0.1)
    first = [1 + 0.4 * math.sin(3 * r) for r in range(5)]
    want = needed(first, 0.1)
    assert len(asked) > 1 and len(asked[1]) == 2 * (want - 5) == pytest.approx(2 * (want - 5))
    assert [t.settings["replication"] for t in asked[1][: want - 5]] == list(range(5, want))
    last = found.deployments[0].values["latency.ttft_s.p99"]
    assert len(last) == found.replications and needed(last, 0.1) == len(last)
    assert all(needed(last[:n], 0.1) > n for n in np.cumsum([len(b) // 2 for b in asked])[:-1])


def test_the_warm_up_that_is_found_is_cut() -> None:
    found, asked = compared({"8": 1.0, "16": 1.0}, replications=2, warmup="auto")
    assert [len(batch) for batch in asked] == [2, 4]
    assert {t.scenario.warmup for t in asked[0]} == {0.0} and {t.scenario.warmup for t in asked[1]} == {3.0}
    assert found.notes == ["The first 3 s are warm-up (MSER-5) and left out."]
    study = Compare([quickstart()], CompareParams(over={"deployment.tp": [1, 2]}, replications=2, warmup="auto"))

    def world(trial: Trial) -> Outcome:
        return Outcome(trial, seen(1.0) | {"warmup_s": None if trial.settings["deployment"] == "2" else 3.0})

    never, asked = ask(study.run(), world)
    assert never.notes == ["MSER-5 finds no end of the warm-up in some deployment: nothing is cut."]
    assert {t.scenario.warmup for batch in asked for t in batch} == {0.0}


def test_a_deployment_that_fails_is_named_and_the_others_compared() -> None:
    study = Compare([quickstart()], CompareParams(over={"deployment.tp": [1, 3, 2]}, replications=2))
    assert study.expected == 6

    def world(trial: Trial) -> Outcome:
        if trial.settings["deployment"] == "3":
            return Outcome(trial, None, "no tp of 3")
        return Outcome(trial, seen(1.0, slo__met=True) | {"stationary": "Not stationary"})

    found, _ = ask(study.run(), world)
    assert found.failed == {"3": "no tp of 3"} and [d.name for d in found.deployments] == ["1", "2"]
    assert found.verdict is False and found.sentence().startswith("3 failed: no tp of 3. 2 against 1: ")
    assert found.cautions() == ["1: Not stationary", "2: Not stationary"]
    own = replace(found, same_traffic=False).sentence()
    assert "Each deployment had its own traffic: differences are those of traffic and deployment together. 2 against 1" in own
    assert (
        found.as_dict()["stationary"] == {"1": "Not stationary", "2": "Not stationary"} and found.as_dict()["replications"] == 2
    )


def test_an_slo_holds_when_every_repetition_met_it() -> None:
    from sim.study.figures import Figures

    def of(effective: list[float], met: bool | None = True, required: float | None = 0.99) -> bool | None:
        figures = Figures.from_dict(changed(slo__met=met, slo__required=required))
        d = Deployment("x", figures, {}, {}, effective=effective)
        base, _ = compared({"8": 1.0, "16": 1.0}, replications=2)
        return base.held(d)  # type: ignore[no-any-return]

    assert of([0.99, 1.0]) is True and of([0.98, 1.0]) is False and of([1.0], met=False) is False
    assert of([1.0], met=None) is None and of([1.0], required=None) is None
    one, _ = compared({"8": 1.0, "16": 1.0}, replications=1)
    missed = Deployment("x", Figures.from_dict(changed(slo__met=True)), {}, {}, effective=[0.1])
    assert one.held(missed) is True


def test_the_mood_and_what_counts_as_a_difference() -> None:
    assert [Against("a", "b", {}, "", w, b).mood for w, b in ((True, True), (False, True), (True, False), (False, False))] == [
        "better in some, worse in others", "better", "worse", "not shown to differ",
    ]  # fmt: skip
    base = [1.0, 1.1, 0.9, 1.05]

    def other(ratio: float) -> list[float]:
        return [ratio * v * (1 + 1e-6 * i) for i, v in enumerate(base)]

    path, more = "latency.ttft_s.p99", PER_CARD
    found = against(
        ["a", "b", "c"],
        [{path: base, more: base}, {path: other(1.0005), more: other(1.2)}, {path: other(0.9), more: base[:3]}],
        0.95,
    )
    assert (found[0].better, found[0].worse) == (True, False)  # half a thousandth is not worth a word
    assert set(found[1].differences) == {path} and found[1].better
    raw = [paired_difference(base, other(1.0005)), paired_difference(base, other(1.2)), paired_difference(base, other(0.9))]
    adjusted = holm([d.p for d in raw if d])
    assert [found[0].differences[path].holm, found[0].differences[more].holm, found[1].differences[path].holm] == adjusted
    assert found[0].verdict.startswith("b against a: ") and found[0].verdict.endswith(".") and found[0].verdict.count(",") == 1
    untold = against(["a", "b"], [{"latency.ttft_s.p50": base}, {"latency.ttft_s.p50": other(2.0)}], 0.95)[0]
    assert untold.verdict == "" and not untold.worse and untold.differences["latency.ttft_s.p50"].holm is None
    assert sum(primary for _, _, primary in FIGURES.values()) == 5


def test_the_words_of_a_difference() -> None:
    def of(first: list[float], second: list[float]) -> Difference:
        found = paired_difference(first, second)
        assert found is not None
        return found

    assert [percent(v) for v in (0.0949, 0.0995, 0.1, 0.00949, 0.00095, 0.0009)] == [
        "9.5 %",
        "10 %",
        "10 %",
        "0.9 %",
        "0.1 %",
        "0.09 %",
    ]
    assert percent(0.5, sign=True) == "+50 %" and percent(-0.5, sign=True) == "−50 %"
    points = of([0.9, 0.91, 0.92], [0.95, 0.961, 0.97])
    assert points.verdict("met", points=True).startswith("raises met by 5 points ±")
    assert of([0.9, 0.9, 0.9], [0.901, 0.9, 0.899]).verdict("met", points=True) == "met unchanged (± 0.25 points)"
    assert of([1.0, 1.0, 0.999], [0.0, 0.0, 0.001]).verdict("met", points=True).startswith("lowers met by 100 points ±")
    assert of([1.0, 1.1, 1.0], [2000.0, 2210.0, 2001.0]).verdict("x").startswith("raises x to 2,00")
    assert "not shown to differ (+3.3 points ±" in of([0.8, 0.8, 0.8], [0.9, 0.8, 0.8]).verdict("met", points=True)
    far = of([1.0, 1.1, 1.2], [4.0, 4.41, 4.8])
    assert far.verdict("wait") == "raises wait to 4 times (3.99 to 4.02)"
    assert of([1.0, 1.1, 1.2], [2.9, 3.2, 3.47]).verdict("wait").startswith("raises wait by 190 %")
    negative = of([-1.0, -2.0, 1.0], [1.0, 0.1, 3.0])
    assert negative.relative.value == pytest.approx(negative.change.value / (2 / 3)) and negative.relative.low == pytest.approx(
        negative.change.low / (2 / 3)
    )
    zero = of([-1.0, 1.0], [0.0, 3.0])
    assert (zero.relative.value, zero.relative.low, zero.relative.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([1.0, 2.0], [1.0])
    shifted = of([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert (shifted.p, shifted.effect, shifted.significant) == (0.0, math.inf, True) and shifted.as_dict()["effect"] is None
    assert of([2.0, 3.0], [1.0, 2.0]).effect == -math.inf
    level = replace(of([1.0, 1.1, 1.2], [1.3, 1.35, 1.6]), holm=0.05)
    assert level.significant and not replace(level, holm=0.0501).significant
    # sharp, and near enough to nothing: unchanged
    assert of([1.0, 1.0, 1.0], [1.004, 1.0, 0.996]).verdict("wait") == "wait unchanged (± 1.0 %)"
    assert of([1.0, 1.0, 1.0], [1.03, 1.0, 0.97]).verdict("wait").startswith("wait not shown to differ (")
    assert of([1.0, 1.0, 1.0], [0.99, 1.0, 0.97]).verdict("wait").startswith("wait not shown to differ (−1.3 %")


def test_repetitions_and_what_they_say() -> None:
    s = quickstart()
    luck = {seed_of(s.seed, r): f for r, f in enumerate((1.1, 0.9, 1.0))}
    world = World(9.9, luck)

    def also(trial: Trial) -> Outcome:
        out = world(trial)
        assert out.data is not None
        return Outcome(trial, {**out.data, "stationary": "Not stationary" if trial.settings["replication"] == 1 else ""})

    found, asked = ask(Repeat([s], RepeatParams(replications=3)).run(), also)
    assert [t.settings["replication"] for batch in asked for t in batch] == [0, 1, 2]
    assert (found.replications, found.met, found.stationary, found.verdict, found.reached) == (
        3,
        1,
        "Not stationary",
        False,
        True,
    )
    assert found.sentence() == "quickstart: 3 runs under other random numbers, 1 met the SLO."
    assert found.intervals["throughput.requests_per_s"] == replicated([OFFERED] * 3)
    tp = [0.2 / (1 - OFFERED / (9.9 * f)) if OFFERED / (9.9 * f) < 0.95 else 0 for f in luck.values()]
    assert found.intervals["latency.ttft_s.p99"].value == pytest.approx(np.mean(tp))
    assert replace(found, met=3).sentence().endswith(", all met the SLO.") and replace(found, met=3).verdict is True
    assert replace(found, met=0).sentence().endswith(", none met the SLO.")
    assert replace(found, replications=1, met=1).sentence() == "quickstart: 1 run under other random numbers, all met the SLO."
    assert replace(found, precision=0.05).sentence().endswith("met the SLO; every interval is within 0.05 of its value.")
    assert replace(found, precision=0.05, reached=False).sentence().endswith("; 0.05 was not reached.")
    part, _ = ask(Repeat([s], RepeatParams(replications=3)).run(), also, stop=2)
    assert part.replications == 2 and part.met == 1


@pytest.mark.parametrize("precision", [0.5, 0.2, 0.01])
def test_a_precision_takes_as_many_repetitions_as_it_needs(precision: float) -> None:
    luck = {seed_of(0, r): 1 + 0.2 * math.sin(3 * r) for r in range(MOST)}

    def world(trial: Trial) -> Outcome:
        return Outcome(trial, changed(latency__ttft_s__p99=luck[trial.scenario.seed], warnings=[]) | {"stationary": ""})

    study = Repeat([quickstart()], RepeatParams(replications=4, precision=precision))
    assert study.expected == 4
    found, asked = ask(study.run(), world)
    done = np.cumsum([len(batch) for batch in asked]).tolist()
    values = list(luck.values())
    assert done[0] == 4 and all(then == needed(values[:now], precision) for now, then in itertools.pairwise(done))
    assert found.replications == done[-1] == study.expected and (
        needed(values[: done[-1]], precision) == done[-1] or done[-1] == MOST
    )
    sharp = found.intervals["latency.ttft_s.p99"].relative
    assert found.reached == (sharp <= precision) and found.precision == precision
    with pytest.raises(ConfigError, match="too few to judge"):
        Repeat([quickstart()], RepeatParams(replications=1, precision=0.1))


def test_how_many_repetitions_are_needed() -> None:
    values = [1.0, 1.2, 0.9, 1.1]
    now = replicated(values)
    assert now is not None
    for precision in (0.05, 0.1, 0.15):
        assert needed(values, precision) == max(5, math.ceil(4 * (now.relative / precision) ** 2))
    assert needed(values, now.relative) == 4 and needed(values, now.relative * 0.999) == 5
    assert needed([1.0], 0.1) == 1 and needed([-1.0, 1.0], 0.1) == 2
    assert spread_of([3.0]) == (3.0, 3.0, 3.0) and spread_of(values) == (now.value, now.low, now.high)
    assert now.n == 4.0 and now.method == "4 replications"


def test_rows_of_a_sweep() -> None:
    world = World(lambda s: 4.0 * s.deployment.tp, wrong=lambda t: "broken" if t.scenario.deployment.tp in (3, 4) else "")
    study = Sweep([quickstart()], SweepParams(over={"deployment.tp": [1, 2, 3, 4, 8]}, replications=2))
    assert study.expected == 10
    found, asked = ask(study.run(), world)
    assert [t.settings for t in asked[0][:3]] == [
        {"deployment.tp": 1, "replication": 0},
        {"deployment.tp": 1, "replication": 1},
        {"deployment.tp": 2, "replication": 0},
    ]
    assert [r["error"] is not None for r in found.rows] == [False] * 4 + [True] * 4 + [False] * 2 and found.failed == 4
    assert [r.get("slo.met") for r in found.rows[::2]] == [False, False, None, None, True] and found.verdict is True
    assert found.rows[1]["seed"] == seed_of(quickstart().seed, 1) and found.paths == ("deployment.tp",)
    top = found.best(PER_CARD)
    assert top is not None and top["deployment.tp"] == 8
    per = f"{top[PER_CARD]:,.0f}"
    assert (
        found.sentence()
        == f"10 runs over tp, 4 failed; 2 of 6 hold the SLO; most output tokens/s per accelerator among them: tp 8 ({per})."
    )
    part, _ = ask(study.run(), world, stop=3)
    assert part.missing == 7 and len(part.rows) == 3 and part.sentence() == "3 runs over tp, 7 still to run; 0 of 3 hold the SLO."


def test_the_best_row_of_a_sweep() -> None:
    rows: list[dict[str, Any]] = [
        {"x": 1, "v": 3.0, "slo.met": True, "error": None},
        {"x": 2, "v": 9.0, "slo.met": False, "error": None},
        {"x": 3, "v": 1.0, "slo.met": None, "error": None},
        {"x": 4, "error": "e"},
    ]
    answer = SweepAnswer("n", ("a.x",), rows)
    assert answer.best("v")["x"] == 1 and answer.best("v", largest=False)["x"] == 3 and answer.best("w") is None  # type: ignore[index]
    assert SweepAnswer("n", ("x",), rows[2:]).verdict is None and SweepAnswer("n", ("x",), rows[1:]).verdict is False
    with pytest.raises(ConfigError, match="settings to vary"):
        Sweep([quickstart()], SweepParams())
    with pytest.raises(ConfigError, match="does not name the settings"):
        Sweep([quickstart()], SweepParams(points=({"deployment.tp": 1}, {"deployment.replicas": 1})))
    points = Sweep([quickstart()], SweepParams(points=({"deployment.tp": 1}, {"deployment.tp": 2})))
    assert [t.scenario.deployment.tp for t in points.trials()] == [1, 2] and points.expected == 2


def row(engine: str, cards: int, holds: bool = True, cost: float | None = None, **more: Any) -> Row:
    made = {"size": cards, "accelerators": cards, "cost": cost, "figures": {}, "attainment": 0.995, "attainment_low": 0.99}
    return Row(engine, engine, "h100-sxm", 1, holds, **(made | more))


def test_advice_in_every_case() -> None:
    rows = [
        row("vllm", 10),
        row("sglang", 11),
        row("tgi", 9),
        row("bladellm", 5),
        row("ollama", 20),
        row("llamacpp", 19),
        row("mindie", 12),
    ]
    english, chinese = advice(rows, "", 8.0)
    assert english == [
        "Under this traffic (8 requests/s): vLLM, 10 × h100-sxm tp 1 (10 accelerators); 99.50% of requests meet the SLO.",
        "As good within 10 %: SGLang, BladeLLM (PAI-EAS). Facts decide between them, not this simulation.",
        "TGI holds the SLO too, but it is archived: do not choose it for a new deployment.",
        "BladeLLM (PAI-EAS) runs only inside Alibaba Cloud PAI.",
        "Ollama: made for few users at once; under this load far more hardware, or none, holds the SLO.",
    ]
    assert (
        len(chinese) == 5
        and "10 张卡" in chinese[0]
        and "SGLang" in chinese[1]
        and "TGI" in chinese[2]
        and "PAI" in chinese[3]
        and chinese[4].startswith("Ollama：")
    )
    english, _ = advice(
        [row("vllm", 1, cost=10.0, attainment=0.991), row("sglang", 3, cost=11.0), row("mindie", 1, cost=11.01)], "EUR", 8.0
    )
    assert english[0].endswith("1 × h100-sxm tp 1 (1 accelerator, 10.00 EUR per hour); 99.10% of requests meet the SLO.")
    assert english[1].startswith("As good within 10 %: SGLang. ")
    both = advice([row("vllm", 1), row("ollama", 1, holds=False), row("llamacpp", 2)], "", 8.0)[0]
    assert both[-1].startswith("Ollama and llama.cpp: made for few users")
    assert advice([], "", 8.0)[0] == ["No engine was judged before the study ended."]
    assert advice([row("vllm", 1, apart=True)], "", 8.0)[0][0].endswith("the SLO's effective attainment is 99.50%.")
    # what is tied goes by attainment; what has no price is counted in accelerators
    assert best([row("vllm", 2), row("sglang", 2, attainment=0.999)]).engine == "sglang"  # type: ignore[union-attr]
    assert best([row("vllm", 2), row("sglang", 3, cost=1.0)]).engine == "vllm"  # type: ignore[union-attr]
    model = ModelBand(1, 3, (0.7, 1.4), 21, "vllm")
    wide = row("vllm", 8, model=model)
    assert replace(wide, size=2).within() == "4 to 12" and replace(wide, size=2, model=replace(model, high=1)).within() == "4"
    assert row("vllm", 1).within() == "" and replace(wide, size=None).within() == ""
    same = advice([replace(wide, size=8, model=replace(model, low=8, high=8))], "", 8.0)[0][0]
    assert " Model error: 8 accelerators at either end, as 80% of 21" in same
    assert (
        " Model error: 1 accelerator at either end, as" in advice([row("vllm", 1, model=replace(model, high=1))], "", 8.0)[0][0]
    )


def test_a_choice_is_the_engine_that_needs_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """sglang serves half as much again as vllm; ollama a hundredth. tp 2 serves 1.5 times as much: dearer by the accelerator."""
    monkeypatch.setattr(band_module, "step_error", lambda _: Interval(0.8, 1.2, 9, "vllm"))
    speed = {"vllm": 2.0, "sglang": 3.0, "ollama": 0.02}

    def serves(s: Any) -> float:
        return speed[s.deployment.engine.name] * (1.5 if s.deployment.tp == 2 else 1.0)

    priced = quickstart("economics={accelerator_hour: {h100-sxm: 2.0}, currency: EUR}")
    params = SelectParams(engines="vllm,sglang,ollama", tp="1,2", screen=100, replications=2, max_replicas=30)
    found, _ = ask(Select([priced], params).run(), World(serves))
    by = {r.engine: r for r in found.rows}
    assert list(by) == ["vllm", "sglang", "ollama"]
    for name in ("vllm", "sglang"):
        need = min(tp * math.ceil(OFFERED / (speed[name] * f * border())) for tp, f in ((1, 1.0), (2, 1.5)))
        r = by[name]
        assert (r.holds, r.accelerators, r.cost, r.size * r.tp) == (True, need, 2.0 * need, need)
        assert r.model is not None and r.model.low <= r.size <= (r.model.high or r.size) and r.why == ""
        assert r.figures["tpot_p50_s"] == pytest.approx(0.02 * (1 + OFFERED / (r.size * speed[name] * (1.5 if r.tp == 2 else 1))))
    slow = by["ollama"]
    assert (
        not slow.holds and slow.size is None and slow.cost is None and slow.why.startswith("no size holds the SLO: the best of ")
    )
    assert (
        found.verdict
        and found.english[0].startswith("Under this traffic (8 requests/s): SGLang")
        and "EUR per hour" in found.english[0]
    )
    assert found.rate == OFFERED and found.currency == "EUR" and found.warnings == []
    assert [t["engine"] for t in found.tried] == ["vllm"] * 2 + ["sglang"] * 2 + ["ollama"] * 2
    cut, _ = ask(Select([priced], params).run(), World(serves), stop=1)
    assert cut.warnings[0] == "The study was interrupted: engines that are missing were not reached." and not cut.verdict


def test_a_card_without_a_price_is_not_the_cheapest() -> None:
    """Of h100 the price is known, of l40s not: a plain count decides, instead of no price for a price of nothing."""
    s = quickstart("economics={accelerator_hour: {h100-sxm: 2.0}}")
    params = SelectParams(engines="vllm", accelerators="h100-sxm,l40s", tp="1", screen=100, replications=1, max_replicas=30)
    found, _ = ask(Select([s], params).run(), World(lambda sc: 6.0 if sc.deployment.accelerator == "h100-sxm" else 2.0))
    (only,) = found.rows
    assert (only.accelerator, only.accelerators, only.cost) == ("h100-sxm", 2, 4.0)
    other, _ = ask(Select([s], params).run(), World(lambda sc: 2.0 if sc.deployment.accelerator == "h100-sxm" else 3.5))
    assert other.rows[0].accelerator == "l40s" and other.rows[0].cost is None
    assert other.warnings == [
        "No price of l40s is known: engines on it are compared by accelerators; give economics.accelerator_hour or purchase."
    ]


def test_what_is_compared_has_names_of_its_own_and_the_traffic_of_the_first() -> None:
    with pytest.raises(ConfigError, match="is the name of two of the scenarios"):
        Compare([quickstart(), quickstart()], CompareParams())
    other = quickstart().model_copy(update={"name": "other", "seed": 5})
    assert [s.seed for s in Compare([quickstart(), other], CompareParams()).made] == [0, 0]  # type: ignore[union-attr]
    assert [s.seed for s in Compare([quickstart(), other], CompareParams(own_traffic=True)).made] == [0, 5]  # type: ignore[union-attr]
    rates = Compare([quickstart()], CompareParams(over={"traffic.synthetic.arrival.rate": ["2/s", "3/s"]})).made
    assert rates[0].traffic != rates[1].traffic  # type: ignore[union-attr]
