"""The cheapest deployment that holds: bounds that bound, the answer of exhaustive search, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.errors import ConfigError
from sim.metrics.slo import Slo
from sim.study.base import Outcome, Trial
from sim.study.plan.bound import bound, demand
from sim.study.plan.together import together
from sim.study.questions.plan import Plan
from sim.study.single import Prepared
from sim.workload.stretched import stretched

BASE = [
    "traffic.synthetic.requests=600",
    "traffic.synthetic.arrival.rate=40/s",
    "economics={accelerator_hour: {h100-sxm: 2.5, a100-sxm-80g: 1.2, l40s: 0.7}}",
]
SMALL: dict[str, Any] = {"screen": 300, "replications": 3, "lengths": 1, "burst": 1, "rate": 1, "step_time": 1}


def quickstart(*more: str) -> Any:
    return sim.load("quickstart", [*BASE, *more])


@pytest.fixture(scope="module")
def answer() -> Any:
    grid = {"deployment.accelerator": ["h100-sxm", "a100-sxm-80g", "l40s"], "deployment.tp": [1, 2]}
    return sim.plan(quickstart(), candidates=grid, jobs=1, **SMALL)


@pytest.mark.parametrize("accelerator", ["h100-sxm", "l40s"])
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("traffic.synthetic.lengths={kind: fixed, prompt_tokens: 2000, output_tokens: 8}",),
        ("model=gpt-oss-20b", "deployment.kv_blocks=2500", "deployment.engine.max_model_len=4096", "traffic.too_long=skip"),
        (
            "deployment.kv_blocks=2000",
            "deployment.engine.max_model_len=16384",
            "traffic.too_long=skip",
            "traffic.synthetic.prefixes={groups: 1, shared_tokens: 9000}",
        ),
    ],
    ids=("lengths of chat", "long prompts", "windows that few blocks hold", "a prefix that few blocks hold once"),
)
def test_no_replica_serves_more_than_its_bound(accelerator: str, more: tuple[str, ...]) -> None:
    prepared = Prepared(quickstart(f"deployment.accelerator={accelerator}", "slo={e2e: 1000s}", *more))
    found = bound(prepared.plans[0], demand(prepared.traffic, 0.99), Slo(e2e=1000.0))
    flood = prepared.run(rate=1000.0).summary  # all at once: served as fast as it can be
    served = flood["requests"]["finished"] / flood["simulated_s"]
    assert served <= found.rate
    assert found.guess <= found.rate
    assert found.rate < 20 * served  # and it says something


def test_what_an_empty_engine_cannot_hold_is_hopeless() -> None:
    for slo, says in (("{tpot: 1ms}", "a token takes"), ("{ttft: 5ms}", "a prompt of")):
        prepared = Prepared(quickstart(f"slo={slo}"))
        found = bound(prepared.plans[0], demand(prepared.traffic, 0.99), Slo.of(prepared.scenario.slo))
        assert says in found.hopeless
        assert not prepared.run(rate=0.5).summary["slo"]["met"]


def test_the_answer_is_that_of_exhaustive_search(answer: Any) -> None:
    """Every candidate at every size up to twice the winner's, whole traffic: nothing cheaper holds."""
    from sim.study.variants import repeated

    best = answer.winner
    assert best is not None
    for c in answer.candidates:
        if c.scenario is None:
            continue
        price = c.scenario.economics.accelerator_hour[c.choice["deployment.accelerator"]]
        size = 1
        while size * c.width * price < best.cost - 1e-9:
            runs = [Prepared(repeated(c.scenario, r)).run(units=size).summary["slo"] for r in range(3)]
            assert not all(r["met"] for r in runs), (c.label, size)
            size += 1


def test_the_winner_runs_as_printed_and_holds(answer: Any) -> None:
    text = next(iter(answer.scenarios.values()))
    summary = sim.run(sim.loads(text)).summary
    assert summary["slo"]["met"]
    assert summary["context"]["accelerators"] == answer.winner.accelerators
    assert summary["economics"]["per_hour"] == pytest.approx(answer.winner.cost)


def test_every_candidate_has_a_fate(answer: Any) -> None:
    finalists = Plan.Params.model_fields["finalists"].default
    limit = sorted(c.cost for c in answer.candidates if c.size is not None)[finalists - 1]
    for c in answer.candidates:
        assert c.refused or c.skipped or c.size is not None
        if c.skipped:
            assert c.least_cost > limit
            assert c.least_cost > answer.finals[-1].cost or c.least_cost > min(f.cost for f in answer.finals)
            assert c.least_cost >= answer.winner.cost
    rows = answer.front()
    assert [r.cost for r in rows] == sorted(r.cost for r in rows)
    assert [r.ttft_p99_s for r in rows] == sorted((r.ttft_p99_s for r in rows), reverse=True)


def test_a_finalist_that_needs_more_than_it_seemed_brings_back_what_was_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight candidates the first four are screened; the rest is searched where the confirmed best costs more than they might."""
    from sim.study.plan import candidate, finals

    found = {i: candidate.Candidate(i, {}, f"c{i}", least_cost=1.0 + i) for i in range(8)}
    confirmed = {i: 1.5 + i for i in found} | dict.fromkeys(range(4), 6.5)

    def search(aim: Any, c: Any) -> Any:
        yield from ()
        return replace(c, size=1, cost=c.least_cost, cost_near=c.least_cost)

    def confirm(aim: Any, c: Any, *how: Any) -> Any:
        yield from ()
        cost = confirmed[c.number]
        return finals.Final(c, 1, sure, 1.0, 1.0, 1, 1, cost, cost, cost, 1)

    monkeypatch.setattr(candidate, "search", search)
    monkeypatch.setattr(finals, "confirm", confirm)
    plan = Plan([quickstart()], Plan.Params(candidates={"deployment.tp": [1, 2]}))
    for sure, left in ((True, [6, 7]), (False, [])):
        seen: dict[int, Any] = dict(found)
        sized: dict[int, Any] = {}
        assert list(plan._screen(None, seen, sized)) == []
        assert [c.number for c in seen.values() if c.skipped] == left
        if sure:
            best = min(f.cost for f in sized.values())
            assert best == 5.5
            assert all(c.least_cost >= best for c in seen.values() if c.skipped)


def test_the_error_of_the_model_is_beside_the_figures_and_in_the_decision(answer: Any) -> None:
    from sim.study.plan.answer import size_of

    model = answer.limits.model
    assert model.low <= answer.winner.size <= (model.high or answer.winner.size)
    assert model.step_time[0] < 1.0 < model.step_time[1]
    assert "Model error: " in answer.sentence()
    assert f"{model.deployments} measured deployments ({model.words})" in answer.sentence()
    shown = answer.bands[size_of(answer.winner)]
    assert {"ttft_p99_s", "tpot_p99_s"} <= set(shown)
    assert all(0 < b["low"] < b["high"] for b in shown.values())
    assert answer.as_dict()["limits"]["model"]["level"] == 0.8


def test_slower_steps_need_more_and_faster_ones_fewer() -> None:
    from sim.study.driver import run_study
    from sim.study.plan.model_band import _fewest
    from sim.study.slower import slower

    found: dict[float, int | None] = {}

    class Sizes(Plan):
        def run(self) -> Any:
            for factor in (0.4, 1.0, 1.6):
                found[factor], _ = yield from _fewest(slower(self.scenarios[0], factor), 40.0 * factor, 3, 0.99, {})
            return self

        verdict = None

        def sentence(self) -> str:
            return "sizes"

        def as_dict(self) -> dict[str, Any]:
            return {}

    run_study(Sizes([quickstart()], Sizes.Params(candidates={"deployment.tp": [1]})))
    assert found[0.4] is not None
    assert found[1.0] is not None
    assert found[0.4] < found[1.0] < (found[1.6] or 7)


def test_several_demands_are_told_by_their_effective_attainment() -> None:
    from sim.metrics.slo import attained, several

    assert not several(quickstart())
    assert several(quickstart("slo={ttft: {p99: 1s}, tpot: 50ms}"))
    assert attained("99.10%", False) == "99.10% of requests meet it"
    assert attained("99.10%", True, "the SLO") == "the SLO's effective attainment is 99.10%"
    found = sim.plan(
        quickstart("slo={ttft: {p99: 1s}, tpot: 60ms}"), candidates={"deployment.accelerator": ["h100-sxm"]}, jobs=1, **SMALL
    )
    assert "effective attainment is at least" in found.sentence()
    assert "of requests" not in found.sentence()


def test_head_room_and_worse_worlds_agree() -> None:
    asked = SMALL | {"rate": 1.5, "step_time": 1.5, "lengths": 1.3, "burst": 2.0}
    found = sim.plan(quickstart(), candidates={"deployment.accelerator": ["h100-sxm"]}, jobs=1, **asked)
    lim = found.limits
    assert lim.rate >= lim.offered
    worse = {w.what: w for w in lim.worse}
    assert worse["rate"].holds == (lim.rate >= 1.5 * lim.offered * 0.98) or abs(lim.rate / lim.offered - 1.5) < 0.05
    assert worse["step_time"].attainment <= worse["rate"].attainment  # as much more load, judged by shorter targets
    for w in worse.values():
        assert w.holds == (w.size_needed == found.winner.size)
    assert "Head-room" in "\n".join(__import__("sim.report.plan", fromlist=["limits"]).limits(found))


def test_a_candidate_that_cannot_be_is_a_row_with_its_reason() -> None:
    found = sim.plan(quickstart(), candidates={"deployment.tp": [1, 3]}, jobs=1, **SMALL)
    assert "tp" in found.candidates[1].refused
    assert found.winner.candidate.number == 0


def test_when_nothing_holds_the_nearest_miss_is_named() -> None:
    found = sim.plan(
        quickstart("slo={ttft: 60ms, tpot: 20ms}"), candidates={"deployment.tp": [1]}, max_replicas=40, jobs=1, **SMALL
    )
    assert found.winner is None
    assert found.verdict is False
    assert "nearest" in found.sentence() or "No candidate can be deployed" in found.sentence()


@pytest.mark.parametrize(
    ("more", "options", "says"),
    [
        (("slo={}",), {}, "slo: is needed"),
        (("economics=null",), {}, "what does an hour of each accelerator cost"),
        (("economics=null",), {"objective": "carbon"}, "economics"),
        ((), {"objective": "carbon"}, r"economics\.grid"),
        ((), {"candidates": {"deployment.tpp": [1]}}, "tpp"),
        ((), {"candidates": {"deployment.accelerator": ["h1000"]}}, "did you mean"),
        ((), {"candidates": {}}, "needs settings to choose from"),
        ((), {"candidates": {"deployment.tp": []}}, "list of values"),
        ((), {"confidence": 2.0}, "confidence"),
    ],
)
def test_what_cannot_be_asked(more: tuple[str, ...], options: dict[str, Any], says: str) -> None:
    asked = {"candidates": {"deployment.tp": [1]}} | SMALL | options
    with pytest.raises(ConfigError, match=says):
        sim.plan(quickstart(*more), jobs=1, **asked)


def test_missing_prices_are_asked_for_by_name() -> None:
    found = sim.plan(quickstart(), candidates={"deployment.accelerator": ["h100-sxm", "h200-sxm"]}, jobs=1, **SMALL)
    assert "economics.accelerator_hour={h200-sxm" in found.candidates[1].refused


def test_candidates_without_a_price_are_left_out_by_name() -> None:
    few = quickstart("economics={accelerator_hour: {h100-sxm: 2.5}}")
    found = sim.plan(few, candidates={"deployment.accelerator": ["h100-sxm", "l40s"]}, jobs=1, **SMALL)
    assert found.winner.candidate.label == "h100-sxm"
    (warning,) = [w for w in found.warnings if "price" in w]
    assert "l40s" in warning
    assert "economics.accelerator_hour" in warning


def test_accelerators_need_no_prices_and_energy_needs_a_grid_for_carbon() -> None:
    few = sim.plan(quickstart("economics=null"), candidates={"deployment.tp": [1, 2]}, objective="accelerators", jobs=1, **SMALL)
    assert few.winner.cost == few.winner.accelerators
    green = sim.plan(quickstart("economics.grid=50"), candidates={"deployment.tp": [1, 2]}, objective="carbon", jobs=1, **SMALL)
    assert green.winner.cost > 0
    assert "gCO2e" in green.sentence()


def test_pools_are_scaled_together() -> None:
    pd = sim.load(
        "pd-vllm",
        ["traffic.synthetic.requests=300", "economics={accelerator_hour: {h100-sxm: 2}}", "slo={ttft: 5s, tpot: 100ms}"],
    )
    found = sim.plan(pd, candidates={"pools[0].replicas": [1, 2], "pools[1].replicas": [1]}, jobs=1, **SMALL)
    assert found.winner is not None
    assert found.winner.accelerators == found.winner.size * found.winner.candidate.width


def test_questions_side_by_side_see_their_own_outcomes() -> None:
    def part(n: int) -> Any:
        seen = []
        for _ in range(n):
            outcomes = yield [Trial(None, {"n": n})] * n  # type: ignore[arg-type]
            seen += [o.trial.settings["n"] for o in outcomes]
        return seen

    steps = together([part(n) for n in (0, 1, 3)])
    batch = next(steps)
    try:
        while True:
            batch = steps.send([Outcome(t, {}) for t in batch])
    except StopIteration as done:
        assert done.value == [[], [1], [3] * 9]


def test_traffic_made_worse_keeps_its_mean_and_order() -> None:
    traffic = Prepared(quickstart()).traffic
    (plain,), (longer,), (waves,) = (
        list(t.blocks()) for t in (traffic, stretched(traffic, lengths=2), stretched(traffic, burst=3))
    )
    assert (longer.output_tokens == 2 * plain.output_tokens).all()
    assert (longer.arrival_s == plain.arrival_s).all()
    assert (waves.arrival_s[1:] >= waves.arrival_s[:-1]).all()
    assert (waves.arrival_s % 60 <= 20).all()
    assert stretched(traffic, burst=3).mean_rate == traffic.mean_rate
    assert math.isclose(float(waves.prompt_tokens.sum()), float(plain.prompt_tokens.sum()))


def test_a_search_that_may_look_at_all_finds_the_best_of_all(answer: Any, tmp_path: Any) -> None:
    optuna = pytest.importorskip("optuna")
    grid = {"deployment.accelerator": ["h100-sxm", "a100-sxm-80g", "l40s"], "deployment.tp": [1, 2]}
    url = f"sqlite:///{tmp_path / 'plan.db'}"
    asked = SMALL | {"search": "optuna", "trials": 40, "jobs": 1}
    found = sim.plan(quickstart(), candidates=grid, storage=url, **asked)
    assert found.winner.candidate.label == answer.winner.candidate.label
    assert found.winner.size == answer.winner.size
    again = sim.plan(quickstart(), candidates=grid, **asked)
    assert again.as_dict() == found.as_dict()
    (kept,) = optuna.get_all_study_summaries(url)
    assert kept.n_trials == 40
    few = sim.plan(quickstart(), candidates=grid, **(asked | {"trials": 2}))
    assert any("a search looked at" in w for w in few.warnings)


def test_a_search_says_what_is_wrong(tmp_path: Any) -> None:
    pytest.importorskip("optuna")
    grid = {"deployment.tp": [1, 2]}
    with pytest.raises(ConfigError, match="--search optuna"):
        sim.plan(quickstart(), candidates=grid, storage="sqlite:///x.db", **SMALL)
    with pytest.raises(ConfigError, match="cannot be opened"):
        sim.plan(quickstart(), candidates=grid, search="optuna", trials=2, storage="nosuchdb://x", **SMALL)
    with pytest.raises(ConfigError, match="tpp"):
        sim.plan(quickstart(), candidates={"deployment.tpp": [1]}, search="optuna", **SMALL)


def test_bands_of_a_calibrated_server_are_its_own(tmp_path: Path) -> None:
    from sim.metrics.model_error import OWN
    from sim.study.plan.model_band import figures

    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "base: vllm\nlines: [{from: '0.14', accelerators: {h100-sxm: {band: {tpot_s.mean: [0.96, 1.04, 9], ttft_s.p99: [0.8, 1.5, 9]}}}}]\n"
    )
    scenario = sim.load("quickstart", [f"deployment.profile={mine}"])
    known = figures(scenario, {"ttft_p99_s": (2.0, 1.9, 2.1), "tpot_p50_s": (0.1, 0.1, 0.1), "ttft_p50_s": (1.0, 1.0, 1.0)})
    assert (known["ttft_p99_s"]["low"], known["ttft_p99_s"]["high"]) == (1.6, 3.0)
    assert (known["tpot_p50_s"]["class"], known["tpot_p50_s"]["deployments"]) == (OWN, 9)
    assert known["ttft_p50_s"]["class"] != OWN


def test_how_slow_steps_may_be_follows_from_the_record_of_errors() -> None:
    from sim.fleet.build import plan
    from sim.study.slower import step_error

    found = sim.plan(quickstart(), candidates={"deployment.accelerator": ["h100-sxm"]}, jobs=1, **(SMALL | {"step_time": None}))
    (worse,) = found.limits.worse
    known = step_error(plan(quickstart()))
    assert known is not None
    assert worse.factor == pytest.approx(max(known.high, 1.05), abs=0.01)
    assert "measured deployments" in worse.why
