"""The steps of a plan in a world in which it is known what every size does."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

import sim
from sim.hardware import load_accelerator
from sim.metrics.model_error import OWN, Interval
from sim.study.plan import finals as finals_module
from sim.study.plan import model_band as band_module
from sim.study.plan.answer import PlanAnswer, answer, winner
from sim.study.plan.bound import Bound
from sim.study.plan.candidate import Aim, Candidate, Probe, _stalled, examine, label, probe_of, screened, search
from sim.study.plan.explore import _number, _values
from sim.study.plan.finals import Final, Limits, WorseWorld, confirm, head_room, known_error, worse_world
from sim.study.plan.model_band import ModelBand, band
from sim.study.questions.plan import Plan
from sim.study.statistics.replications import bounds
from sim.study.variants import seed_of
from sim.units import show_share
from tests.study.world import OFFERED, World, ask, border, first_token

AIM = Aim("cost", 64, 300)


def quickstart(*more: str) -> Any:
    return sim.load("quickstart", ["record.timeseries=false", "economics={accelerator_hour: {h100-sxm: 2.5}}", *more])


def candidate(**more: Any) -> Candidate:
    made = {"scenario": quickstart(), "rate": OFFERED, "width": 2, "bound": Bound(9.0, 4.0)}
    return Candidate(0, {"deployment.tp": 1}, "tp 1", **(made | more))


@pytest.mark.parametrize("serves", [0.3, 1.1, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("guess", [0.0, 0.2, 3.0, 100.0])
def test_the_search_finds_the_fewest_units(serves: float, guess: float) -> None:
    need = math.ceil(OFFERED / (serves * border()))
    found, asked = ask(search(AIM, candidate(bound=Bound(99.0, guess))), World(serves))
    assert found.size == need and found.cost == need * 2.5 and not found.refused
    sizes = [t.load["units"] for (t,) in asked]
    assert len(set(sizes)) == len(sizes) and [p.size for p in found.probes] == sorted(sizes)
    assert sizes[0] == (1 if guess == 0 else min(max(1, math.ceil(OFFERED / guess)), 64))
    assert need == 1 or need - 1 in sizes
    for before, then in itertools.pairwise(sizes):
        held = [n for n in sizes[: sizes.index(then)] if n >= need]
        bad = max([n for n in sizes[: sizes.index(then)] if n < need], default=0)
        assert then == ((min(held) + bad) // 2 if held else min(max(before + 1, math.ceil(before * 1.6)), 64))
    assert all(t.settings == {"candidate": "tp 1", "stage": "screening"} and t.scenario.traffic.so_many == 300 for (t,) in asked)


def test_no_size_below_the_least_and_none_above_the_most_is_tried() -> None:
    found, asked = ask(search(AIM, candidate(least=5)), World(2.0))
    assert found.size == 5 and [t.load["units"] for (t,) in asked] == [5]  # 4 could not hold
    none, asked = ask(search(replace(AIM, max_replicas=6), candidate()), World(0.5))
    assert none.refused == "no size holds the SLO" and none.size is None
    assert [t.load["units"] for (t,) in asked] == [2, 4, 6]
    share = World().attained(OFFERED / (6 * 0.5))["joint"]
    assert none.note == f"the best of 3 sizes is 6: {show_share(share)} of requests meet the SLO"
    failed, _ = ask(search(AIM, candidate()), World(wrong=lambda _: "broken"))
    assert failed.refused == "broken" and failed.size is None


def test_a_near_miss_costs_as_much_as_the_size_that_missed() -> None:
    """With 2 units of 5.02/s x is 0.797 and all hold; of 4.95/s x is 0.808 and 96 % do, which is within 3 % of 99; with 4.93 they do not."""
    for serves in (5.02, 4.95, 4.93, 4.6):
        found, _ = ask(search(AIM, candidate()), World(serves))
        share = min(1.0, 5 * (1 - OFFERED / (2 * serves)))
        assert (found.size == 2) == (share >= 0.99)
        if found.size == 3:
            assert (found.cost_near == 5.0) == (share >= 0.96)
        else:
            assert found.cost_near == found.cost


def test_what_is_kept_of_a_probe() -> None:
    from sim.study.base import Trial

    outcome = World(5.0)(Trial(quickstart(), {}, {"units": 3}))
    for objective, cost in (("cost", 7.5), ("accelerators", 6.0), ("energy", 2.1), ("carbon", 900.0)):
        p = probe_of(replace(AIM, objective=objective), candidate(), outcome)
        assert p.cost == pytest.approx(cost)
    x = OFFERED / 15
    assert (p.size, p.met, p.attainment, p.limit) == (3, True, 1.0, f"Busy to {x:.2f}.")
    assert (p.ttft_p99_s, p.tpot_p50_s, p.per_user) == pytest.approx((0.2 / (1 - x), 0.02 * (1 + x), 1 / (0.02 * (1 + x))))
    assert p.per_accelerator == pytest.approx(outcome.figures.throughput.output_tokens_per_s / 6)
    assert p.tpot_p99_s == outcome.figures.latency.tpot.p99 and p.e2e_p99_s == outcome.figures.latency.e2e.p99


def probe(size: int, attainment: float, **more: Any) -> Probe:
    made = {
        "met": attainment >= 0.99,
        "ttft_p99_s": 1.0,
        "tpot_p50_s": None,
        "tpot_p99_s": None,
        "e2e_p99_s": None,
        "per_accelerator": 1.0,
        "per_user": None,
        "cost": 2.5 * size,
        "limit": "",
    }
    return Probe(size=size, attainment=attainment, **(made | more))


def test_more_units_have_stopped_helping() -> None:
    def stalled(*shares: tuple[int, float]) -> bool:
        return _stalled({n: probe(n, share) for n, share in shares})

    flat = ((1, 0.5), (2, 0.5), (3, 0.5005), (4, 0.501))
    assert stalled(*flat) and not stalled(*flat[:3])
    assert not stalled((2, 0.5), (3, 0.5), (4, 0.5), (5, 0.5))  # less than three times as many
    assert stalled((2, 0.5), (3, 0.5), (4, 0.5), (6, 0.5))
    assert not stalled(*flat[:3], (4, 0.502)) and stalled((1, 0.1), *((n, 0.5) for n in (2, 3, 4, 6)))


def test_a_rough_run_has_fewer_requests_where_traffic_is_alike_all_the_time() -> None:
    s = quickstart("traffic.synthetic.requests=1000")
    assert screened(s, 300).traffic.so_many == 300 and screened(s, 1000) is s and screened(s, 2000) is s
    wave = quickstart(
        "traffic.synthetic.requests=1000",
        "traffic.synthetic.arrival={process: sinusoidal, rate: 8/s, amplitude: 0.5, period: 60s}",
    )
    assert screened(wave, 300) is wave


def test_how_a_candidate_is_called() -> None:
    assert label(
        {"deployment.accelerator": "h100-sxm", "deployment.tp": 2, "deployment.engine": {"name": "vllm", "max_num_seqs": 8}}
    ) == ("h100-sxm, tp 2, vllm max_num_seqs=8")
    assert label({"a.b": {"x": 1}}) == '{"x": 1} x=1'


def test_a_candidate_is_bounded_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    s = quickstart("traffic.synthetic.arrival.rate=40/s", "deployment.tp=2", "deployment.replicas=3")
    for rate, least in ((50.0, 1), (40.0, 1), (39.9, 2), (8.0, 5), (7.9, 6)):
        monkeypatch.setattr("sim.study.plan.candidate.of_scenario", lambda _, r=rate: Bound(r, r / 2))
        c = examine(3, {"deployment.tp": 2}, s, AIM)
        assert (c.number, c.rate, c.width, c.pools, c.least, c.least_cost, c.refused) == (3, 40.0, 2, 1, least, least * 5.0, "")
    aim = replace(AIM, max_replicas=5)
    assert examine(0, {}, s, aim).refused == "needs at least 6 replicas; 5 are allowed"
    assert examine(0, {}, s, replace(AIM, objective="accelerators")).least_cost == 12.0
    energy = examine(0, {}, s, replace(AIM, objective="energy")).least_cost
    assert energy == pytest.approx(6 * 2 * load_accelerator("h100-sxm").idle_watts / 1000)
    carbon = examine(
        0,
        {},
        s.model_copy(update={"economics": s.economics.model_copy(update={"grid": 400.0})}),
        replace(AIM, objective="carbon"),
    )
    assert carbon.least_cost == pytest.approx(400.0 * energy)
    monkeypatch.setattr("sim.study.plan.candidate.of_scenario", lambda _: Bound(0.0, 0.0, "too slow"))
    assert examine(0, {}, s, AIM).refused == "cannot hold the SLO: too slow"
    monkeypatch.setattr("sim.study.plan.candidate.of_scenario", lambda _: None)
    assert examine(0, {}, s, AIM).least == 1
    unpriced = examine(0, {}, quickstart("deployment.accelerator=l40s"), AIM)
    assert unpriced.unpriced and "no price" in unpriced.refused
    pools = sim.load("pd-vllm", ["economics={accelerator_hour: {h100-sxm: 2.0}}"])
    c = examine(0, {}, pools, AIM)
    cards = sum(p.replicas * p.tp for p in pools.pools)
    assert (c.pools, c.width, c.least_cost) == (len(pools.pools), cards, cards * 2.0)


def final(size: int = 4, **more: Any) -> Final:
    made = {
        "candidate": candidate(size=size, cost=2.5 * size),
        "size": size,
        "sure": True,
        "attainment": 0.995,
        "attainment_low": 0.9912345,
        "held": 3,
        "runs": 3,
    }
    made |= {"cost": 2.5 * size, "cost_low": 2.4 * size, "cost_high": 2.6 * size, "accelerators": 2 * size}
    return Final(**(made | more))


def test_a_finalist_grows_until_it_surely_holds() -> None:
    s = quickstart()
    world = World(5.0, {seed_of(s.seed, r): f for r, f in enumerate((1.0, 0.9, 0.8, 1.1))})
    found, asked = ask(confirm(AIM, candidate(size=2, cost=5.0, cost_near=5.0), 4, 0.9), world)
    for size, batch in enumerate(asked, 2):
        shares = [min(1.0, 1 / first_token(OFFERED / (size * 5 * f))) for f in world.luck.values()]
        mean = sum(shares) / 4
        spread = math.sqrt(sum((v - mean) ** 2 for v in shares) / 3)
        low = mean - stats.t.ppf(0.9, 3) * spread / 2
        assert [t.load["units"] for t in batch] == [size] * 4
        assert [t.settings["replication"] for t in batch] == [0, 1, 2, 3]
        if size < found.size:
            assert low < 0.99
    assert low >= 0.99 and found.sure and found.size == size == 3
    assert (found.attainment, found.attainment_low, found.held, found.runs) == (pytest.approx(mean), pytest.approx(low), 4, 4)
    assert found.accelerators == 6 and (found.cost, found.cost_low, found.cost_high) == (7.5, 7.5, 7.5)
    assert found.figures["ttft_p99_s"] == pytest.approx(
        bounds([first_token(OFFERED / (15 * f)) for f in world.luck.values()], 0.9)
    )
    # a size that missed narrowly is tried first
    again, asked = ask(confirm(AIM, candidate(size=3, cost=7.5, cost_near=5.0), 1, 0.9), World(5.0))
    assert [t.load["units"] for b in asked for t in b] == [2]
    assert again.runs == 1 and again.attainment_low == again.attainment


def test_a_finalist_that_never_holds_is_the_best_of_its_sizes() -> None:
    found, asked = ask(confirm(AIM, candidate(size=2, cost=5.0, cost_near=5.0), 1, 0.9), World(0.5))
    assert [t.load["units"] for (t,) in asked] == list(range(2, 10)) and not found.sure and found.held == 0
    most, asked = ask(confirm(replace(AIM, max_replicas=4), candidate(size=2, cost=5.0, cost_near=5.0), 1, 0.9), World(2.5))
    assert [t.load["units"] for (t,) in asked] == [2, 3, 4] and most.size == 4 and most.attainment == pytest.approx(1.0)
    broken, _ = ask(confirm(AIM, candidate(size=2, cost=5.0, cost_near=5.0), 1, 0.9), World(wrong=lambda _: "broken"))
    assert (broken.error, broken.size, broken.sure, broken.accelerators, broken.cost, broken.runs) == (
        "broken",
        2,
        False,
        4,
        5.0,
        0,
    )


@pytest.mark.parametrize("serves", [0.01, 0.2, 2.0, 5.0, 2000.0])
def test_head_room_is_the_highest_rate_to_two_percent(serves: float) -> None:
    room, asked = ask(head_room(final(4)), World(serves))
    most = 4 * serves * border()
    rates = [t.load["rate"] for (t,) in asked]
    assert rates[0] == OFFERED and all(t.load["units"] == 4 for (t,) in asked)
    if most < OFFERED / 64:
        assert room.rate is None and min(rates) < OFFERED / 64 and room.breaks.startswith("Busy to")
    elif most > OFFERED * 64:
        assert room.rate == max(rates) and OFFERED * 64 < max(rates) < OFFERED * 64 * 1.25**2 and room.breaks == ""
    else:
        assert room.rate <= most < room.rate * 1.02
        assert room.breaks == f"Busy to {min(r for r in rates if r > most) / (4 * serves):.2f}."
        for before, then in itertools.pairwise(rates):
            past = rates[: rates.index(then)]
            good, bad = max([r for r in past if r <= most], default=0), min([r for r in past if r > most], default=0)
            assert then == pytest.approx(math.sqrt(good * bad) if good and bad else before * 1.25 if good else before / 1.25)


@pytest.mark.parametrize(("what", "more"), [("rate", 1.0), ("lengths", 1.0), ("burst", 1.0), ("step_time", 0.0)])
def test_a_worse_world_takes_so_many_more(what: str, more: float) -> None:
    """4 units of 2.6/s hold 8/s; of half as much again they need 5 or 6, found in steps of one."""
    found, asked = ask(worse_world(final(4), what, 1.5, "because"), World(2.6))
    need = math.ceil(OFFERED * 1.5 / (2.6 * (border(1.5) if what == "step_time" else border())))
    assert (found.what, found.factor, found.holds, found.size_needed, found.why) == (what, 1.5, False, need, "because")
    assert [t.load["units"] for (t,) in asked] == list(range(4, need + 1))
    ok, _ = ask(worse_world(final(4), what, 1.01), World(2.6))
    assert ok.holds and ok.size_needed == 4 and ok.attainment >= 0.99
    never, asked = ask(worse_world(final(4), what, 9.0), World(2.6))
    assert never.size_needed is None and not never.holds and [t.load["units"] for (t,) in asked] == [4, 5, 6, 7, 8]
    (trial,) = asked[0]
    assert trial.settings == {"candidate": "tp 1", "stage": f"{what} ×9"}
    loads = {"rate": {"rate": 72.0}, "lengths": {"lengths": 9.0}, "burst": {"burst": 9.0}, "step_time": {"rate": 72.0}}
    assert {k: v for k, v in trial.load.items() if k != "units"} == loads[what]
    assert trial.scenario.slo.ttft == (pytest.approx(1 / 9) if what == "step_time" else 1.0)
    assert found.attainment == pytest.approx(
        World().attained(12 / 10.4, *((1 / 1.5, 0.05 / 1.5) if what == "step_time" else ()))["joint"]
    )


def test_sizes_grow_by_a_tenth() -> None:
    _, asked = ask(worse_world(final(24), "rate", 1000.0), World(0.5))
    assert [t.load["units"] for (t,) in asked] == [*range(24, 47, 2), 48]


@pytest.mark.parametrize("size", [1, 4, 30])
def test_the_error_of_the_model_in_units(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band_module, "step_error", lambda _: Interval(0.6, 1.3, 12, "vllm"))
    serves = OFFERED / (size * border()) * 1.001
    found, asked = ask(band(quickstart(), OFFERED, size, 0.99, {"candidate": "x"}), World(serves))
    need = {f: OFFERED * f / (serves * border(f)) for f in (0.6, 1.3)}
    assert found.low - max(1, round(size * 0.1)) < need[0.6] <= found.low or found.low == 1
    assert found.high >= need[1.3] > found.high - 1.1 * max(1, round(found.high * 0.1)) - 1e-9
    assert (found.step_time, found.deployments, found.words, found.level) == ((0.6, 1.3), 12, "vllm", 0.8)
    assert (found.cost_low, found.cost_high) == (2.5 * found.low, 2.5 * found.high)
    stages = {t.settings["stage"] for b in asked for t in b}
    assert stages == {"step_time ×0.6", "step_time ×1.3"}
    monkeypatch.setattr(band_module, "step_error", lambda _: Interval(0.6, 9.0, 12, "vllm"))
    far, _ = ask(band(quickstart(), OFFERED, size, 0.99, {}), World(serves))
    assert far.high is None and far.cost_high is None
    monkeypatch.setattr(band_module, "step_error", lambda _: None)
    assert ask(band(quickstart(), OFFERED, size, 0.99, {}), World())[0] is None


def test_an_end_that_one_run_wants_smaller_costs_what_its_size_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several runs asked for 6 where one holds with fewer even if steps are longer: the upper end is 6, and costs as much."""
    monkeypatch.setattr(band_module, "step_error", lambda _: Interval(0.9, 1.1, 12, "vllm"))
    found, _ = ask(band(quickstart(), OFFERED, 6, 0.99, {}), World(OFFERED))
    assert found.low < found.high == 6
    assert (found.cost_low, found.cost_high) == (2.5 * found.low, 2.5 * 6)


def test_how_long_steps_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, said in (
        (None, (1.1, "assumed: no measured deployment is on record")),
        (
            Interval(0.8, 1.337, 9, "vllm on h100"),
            (1.34, "9 of 10 measured deployments like it were no slower; 9 on record: vllm on h100"),
        ),
        (Interval(0.8, 1.01, 9, OWN), (1.05, f"9 of 10 of {OWN} were no slower; 9 of them")),
    ):
        monkeypatch.setattr(finals_module, "step_error", lambda _, e=error: e)
        assert known_error(final()) == said


def test_the_winner_and_those_as_good() -> None:
    a, b, c, d = (
        replace(final(2), candidate=replace(candidate(), number=n), attainment=t, sure=sure)
        for n, t, sure in ((3, 0.995, True), (1, 0.999, True), (0, 1.0, False), (2, 0.999, True))
    )
    everything = {f.candidate.number: f for f in (a, b, c, d)}
    assert winner(everything) is b and winner({0: c}) is None and winner({}) is None
    assert winner(everything | {9: replace(a, cost=1.0)}).cost == 1.0  # type: ignore[union-attr]
    params = Plan.Params(candidates={"deployment.tp": [1]})
    told = answer(quickstart(), params, [f.candidate for f in everything.values()], everything, None, True, 7)
    assert told.finals == [b, d, a, c]
    assert told.warnings[:2] == [
        "The plan was interrupted: this is the best of what was tried.",
        "Of 7 combinations a search looked at 4: a better one may be among the others.",
    ]
    assert told.warnings[-1] == "As good by cost: 2 × tp 1; 2 × tp 1."
    assert told.unit == "USD per hour" and told.rate == OFFERED
    assert list(told.prices) and "h100-sxm" in str(told.prices[0]["what"])
    sizes = {0: replace(a, size=2), 1: replace(b, size=3)}  # one price, however many of it are bought
    told = answer(quickstart(), params, [f.candidate for f in sizes.values()], sizes, None, True, 7)
    assert [p["what"] for p in told.prices] == [str(told.prices[0]["what"])] and not str(told.prices[0]["what"])[0].isdigit()


def told(best: Final | None = None, **more: Any) -> PlanAnswer:
    made = {
        "name": "x",
        "question": "",
        "objective": "cost",
        "unit": "USD per hour",
        "slo": {},
        "rate": 8.0,
        "confidence": 0.95,
        "winner": best,
    }
    return PlanAnswer(**(made | {"finals": [], "candidates": [], "limits": None} | more))


def test_the_decision_in_words() -> None:
    w = final(4)
    head = "4 × tp 1 (8 accelerators, 10.00 USD per hour) is the cheapest that holds the SLO at 8 requests/s: "
    assert told(w).sentence() == head + "all 3 runs met it, and at least 99.12% of requests meet it (95% confidence)."
    assert "2 of 3 runs met it, and" in told(replace(w, held=2)).sentence()
    assert told(replace(w, runs=1, held=1)).sentence() == head + "99.50% of requests meet it."
    one = told(replace(w, size=1, accelerators=1), objective="accelerators", rate=math.nan).sentence()
    assert one.startswith("1 × tp 1 (1 accelerator) is the smallest that holds the SLO: all 3")
    assert told(w, objective="energy", unit="kW").sentence().startswith("4 × tp 1 (8 accelerators, 10.00 kW) is the best that")
    for low, high, costs, words in (
        (3, 6, (7.5, 15.0), "3 to 6 replicas, 7.50 to 15.00 USD per hour"),
        (3, 6, (None, 15.0), "3 to 6 replicas"),
        (3, None, (7.5, None), "3 to more than twice as many replicas"),
        (4, 4, (1.0, 1.0), "4 replicas at either end"),
        (1, 1, (1.0, 2.0), "1 replica at either end"),
    ):
        model = ModelBand(low, high, (0.8, 1.2), 9, "vllm", cost_low=costs[0], cost_high=costs[1])
        said = told(w, limits=Limits(8.0, 9.0, "", model=model)).sentence()
        assert said.endswith(f" Model error: {words}, as 80% of 9 measured deployments (vllm) would have it.")
    assert told(w).verdict is True and told().verdict is False


def test_nothing_holds_in_words() -> None:
    assert (
        told().sentence() == "Nothing can be said yet: the plan was stopped before its first candidate was searched to the end."
    )
    refused = [candidate(refused="too slow"), candidate(), candidate(refused="other")]
    assert (
        told(candidates=refused).sentence()
        == "No candidate can be deployed so that it may hold the SLO (2 refused, the first because too slow)."
    )
    far = candidate(probes=(probe(1, 0.3), probe(2, 0.4)))
    near = candidate(probes=(probe(3, 0.5), probe(2, 0.7), probe(9, 0.7)))
    none = told(candidates=[far, near, candidate()])
    assert (
        none.sentence()
        == "No candidate surely holds the SLO. The nearest is 2 × tp 1: 70.00% of requests meet it, 99.00% is required."
    )
    rows = [
        candidate(probes=(probe(4, 1.0, ttft_p99_s=0.5), probe(3, 1.0, ttft_p99_s=0.9), probe(2, 0.5, ttft_p99_s=0.1))),
        candidate(probes=(probe(3, 1.0, ttft_p99_s=0.8), probe(5, 1.0, ttft_p99_s=0.5), probe(6, 1.0, ttft_p99_s=None))),
    ]
    front = told(candidates=rows).front()
    assert [(r.size, r.ttft_p99_s) for r in front] == [(3, 0.8), (4, 0.5)] and front[0].label == "tp 1"
    assert [r.ttft_p99_s for r in told(candidates=[candidate(probes=(probe(6, 1.0, ttft_p99_s=None),))]).front()] == [None]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_whole_plan_is_the_cheapest_of_all_sizes(confidence: float) -> None:
    """tp 2 serves 1.7 times what tp 1 does, tp 4 2.4 times: by the accelerator tp 1 is the cheapest, where its units are not wasted."""
    s = quickstart("traffic.synthetic.arrival.rate=40/s", "traffic.synthetic.requests=200")
    speed = {1: 6.0, 2: 10.2, 4: 14.4}
    best = min((math.ceil(40 / (v * border())) * tp * 2.5, tp) for tp, v in speed.items())

    class Priced(World):
        def __call__(self, trial: Any) -> Any:
            self.price = 2.5 * trial.scenario.deployment.tp
            return super().__call__(trial)

    params = Plan.Params(
        candidates={"deployment.tp": [1, 2, 4]}, replications=2, screen=100, confidence=confidence, step_time=1.2, rate=1.3
    )
    world = Priced(lambda sc: speed[sc.deployment.tp], offered=40.0)
    found, _ = ask(Plan([s], params).run(), world)
    assert (found.winner.cost, found.winner.candidate.choice["deployment.tp"]) == best
    assert found.winner.size == math.ceil(40 / (speed[best[1]] * border())) and found.winner.runs == 2
    most = found.winner.size * speed[best[1]] * border()
    assert found.limits.rate <= most < found.limits.rate * 1.02 and found.limits.offered == 40.0
    worlds = {w.what: w for w in found.limits.worse}
    assert set(worlds) == {"lengths", "burst", "rate", "step_time"}
    assert {k: w.factor for k, w in worlds.items()} == {"lengths": 1.2, "burst": 2.0, "rate": 1.3, "step_time": 1.2}
    assert all(w.holds == (w.factor * 40 <= most) for k, w in worlds.items() if k != "step_time")
    assert all(c.size is not None or c.skipped for c in found.candidates)
    few = Plan(
        [s],
        Plan.Params(
            candidates={"deployment.tp": [1, 2, 4]},
            replications=2,
            screen=100,
            finalists=1,
            lengths=1,
            burst=1,
            rate=1,
            step_time=1,
        ),
    )
    again, _ = ask(few.run(), Priced(world.serves, offered=40.0))
    assert again.winner.cost == found.winner.cost and again.limits.worse == ()
    none, _ = ask(few.run(), Priced(lambda _: 0.001, offered=40.0))
    assert none.winner is None and none.limits is None


def test_what_optuna_is_told() -> None:
    held = replace(candidate(size=3), probes=(probe(3, 1.0, cost=7.5, ttft_p99_s=0.4), probe(4, 1.0, cost=10.0)))
    assert _values(held) == (7.5, 0.4) and _values(replace(held, probes=(probe(3, 1.0, ttft_p99_s=None),)))[1] == 0.0
    assert _values(candidate(probes=(probe(1, 0.2), probe(2, 0.6)))) == (1.4e12, 1e9) and _values(candidate()) == (2e12, 1e9)

    class Chooses:
        def __init__(self, **chosen: int) -> None:
            self.chosen = chosen

        def suggest_categorical(self, name: str, values: list[int]) -> int:
            assert self.chosen[name.replace(":", "_")] in values
            return self.chosen[name.replace(":", "_")]

    one = [{"a": [5, 6, 7], "b": [1, 2]}]
    assert [_number(one, Chooses(a=a, b=b)) for a in (0, 1, 2) for b in (0, 1)] == list(range(6))  # type: ignore[arg-type]
    two = [{"a": [1, 2, 3], "b": [1, 2]}, {"c": [1, 2, 3, 4]}]
    assert [_number(two, Chooses(grid=1, **{"1_c": c})) for c in range(4)] == [6, 7, 8, 9]  # type: ignore[arg-type]
    assert _number(two, Chooses(grid=0, **{"0_a": 2, "0_b": 1})) == 5  # type: ignore[arg-type]


def test_worlds_and_limits_are_told() -> None:
    limits = Limits(8.0, 9.0, "busy", (WorseWorld("rate", 1.2, 0.97, False, 5, "why"),))
    data = told(final(), limits=limits, candidates=[candidate(probes=(probe(2, 1.0),))]).as_dict()
    assert data["limits"]["worse"][0]["size_needed"] == 5 and data["winner"]["size"] == 4 and data["winner"]["label"] == "tp 1"
    assert (
        data["candidates"][0]["bound"] == {"rate": 9.0, "guess": 4.0, "hopeless": ""}
        and data["candidates"][0]["probes"][0]["size"] == 2
    )
    assert "scenario" not in data["candidates"][0] and data["front"][0]["label"] == "tp 1" and data["verdict"] is True
