"""The search for a rate, or a number of replicas, in a world whose border is known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.errors import ConfigError
from sim.metrics.model_error import Interval
from sim.study.questions.capacity import Capacity, CapacityAnswer, CapacityParams, Probe
from sim.study.short import too_few, too_short
from sim.study.statistics.replications import replicated
from sim.study.variants import seed_of
from sim.units import show_number, show_share
from tests.study.world import OFFERED, World, ask, border, changed

BREAKS = border()


def study(*more: str, **params: Any) -> Capacity:
    made = Capacity([sim.load("quickstart", ["record.timeseries=false", *more])], CapacityParams(**params))
    return made


def highest(most: float, tolerance: float) -> float:
    """The last power of 1 + tolerance of the offered rate that is not beyond the border."""
    k = math.floor(math.log(most / OFFERED) / math.log1p(tolerance))
    return float(f"{OFFERED * (1 + tolerance) ** k:.6g}")


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.6])
@pytest.mark.parametrize("serves", [0.3, 9.5, 10.0, 31.0, 900.0])
def test_the_rate_is_the_last_one_that_holds(serves: float, tolerance: float) -> None:
    world = World(serves)
    found, asked = ask(study(replications=1, tolerance=tolerance, model_error=False).run(), world)
    assert found.answer == highest(serves * BREAKS, tolerance)
    assert found.found == (found.answer,) and found.safe == found.answer and found.verdict is found.answered is True
    assert (found.low, found.high, found.tolerance) == (None, None, tolerance)
    # each rate once, between two of them one step; doublings first and halves then
    rates = [p.value for p in found.probes]
    assert rates == sorted(rates) and len(set(rates)) == len(rates) == len(asked) == len(world.trials)
    far = abs(math.log2(serves * BREAKS / OFFERED))
    doubling = max(1, math.ceil(math.log(2) / math.log1p(tolerance)))
    assert len(rates) <= 2 * math.log2(far + 2) + math.log2(doubling) + 3
    above = min(p.value for p in found.probes if not p.held)
    assert above / found.answer == pytest.approx(1 + tolerance, rel=1e-5)
    assert (
        found.limit()
        == f"at {above:.4g} requests/s only {show_share(World().attained(above / serves)['ttft_s'])} meet TTFT. Busy to {above / serves:.2f}."
    )


def test_probes_double_their_distance_and_then_halve_it() -> None:
    """From 8/s on in steps of 36 powers of 1.02, one doubling: 1, 2, 4 of them, as the border is at 60 × 0.802; then halves."""
    found, asked = ask(study(replications=1, model_error=False).run(), World(60.0))
    ks = [round(math.log(t.load["rate"] / OFFERED) / math.log(1.02)) for (t,) in asked]
    assert ks[:4] == [0, 36, 108, 72]
    good, bad = 72, 108
    for k in ks[4:]:
        assert k == (good + bad) // 2
        good, bad = (k, bad) if OFFERED * 1.02**k <= 60 * BREAKS else (good, k)
    assert bad - good == 1 and found.answer == pytest.approx(OFFERED * 1.02**good, rel=1e-5)


def test_repetitions_start_where_the_first_ended_and_make_the_interval() -> None:
    base = sim.load("quickstart").seed
    luck = {seed_of(base, r): f for r, f in enumerate((1.0, 1.05, 0.96, 1.1))}
    found, asked = ask(study(replications=4, model_error=False).run(), World(10.0, luck))
    assert found.found == tuple(highest(10 * f * BREAKS, 0.02) for f in luck.values())
    inside = replicated(list(found.found), 0.95)
    assert inside is not None
    assert found.answer == pytest.approx(inside.value)
    assert (found.low, found.high) == pytest.approx((inside.low - 0.01 * inside.value, inside.high + 0.01 * inside.value))
    assert found.safe == min(found.found)
    alone = next(i for i, batch in enumerate(asked) if len(batch) == 3)
    assert {t.load["rate"] for t in asked[alone]} == {found.found[0]}
    assert {t.settings["replication"] for t in asked[alone]} == {1, 2, 3}
    second = [abs(round(math.log(t.load["rate"] / found.found[0], 1.02))) for batch in asked[alone + 1 :] for t in batch]
    assert max(second) <= 7  # steps of 1, 2 and 4
    assert [p.value for p in found.probes] == sorted(p.value for p in found.probes)
    assert f"from 4 repetitions. Every one of them held {show_number(found.safe, 4)}/s." in found.sentence()
    assert found.sentence().startswith(
        f"quickstart holds its SLO up to {found.answer:.3g} requests/s with 1 replica (1 × NVIDIA H100 SXM5 80GB); "
        f"95% interval {found.low:.3g} to {found.high:.3g}"
    )


@pytest.mark.parametrize(("serves", "start"), [(10.0, 1), (2.0, 1), (0.5, 1), (0.5, 40), (3.0, 7)])
def test_the_fewest_replicas(serves: float, start: int) -> None:
    found, asked = ask(
        study(f"deployment.replicas={start}", replicas=True, replications=1, model_error=False).run(), World(serves)
    )
    need = math.ceil(OFFERED / (serves * BREAKS))
    assert found.answer == need and found.found == (need,)
    assert len(asked) <= 2 * math.log2(max(need / start, start / need, 1)) + math.log2(start) + 4
    assert (found.low, found.high, found.tolerance, found.bound) == (None, None, 0.0, "8 requests/s")
    cards = f"{need} × NVIDIA H100 SXM5 80GB"
    plural = "s" * (need != 1)
    assert (
        found.sentence()
        == f"quickstart needs {need} replica{plural} ({cards}) for 8 requests/s (one repetition: another seed may give another answer)."
    )
    told = found.as_dict()
    assert told["accelerators"] == cards and told["safe"] == need and len(told["probes"]) == len(asked)
    if need > 1:
        assert found.limit().startswith(f"at {need - 1} replica{'s' * (need != 2)} only ")
    else:
        assert found.limit() == "No probe broke the SLO."


def test_replicas_that_hold_in_every_repetition() -> None:
    base = sim.load("quickstart").seed
    luck = {seed_of(base, r): f for r, f in enumerate((1.0, 0.7, 1.0))}
    found, _ = ask(study(replicas=True, replications=3, model_error=False).run(), World(2.0, luck))
    assert found.found == (5, 8, 5) and found.answer == found.safe == 8
    assert found.sentence().endswith(" for 8 requests/s to hold in all 3 repetitions; 5 hold in 2 of them.")
    alike, _ = ask(study(replicas=True, replications=3, model_error=False).run(), World(2.0))
    assert alike.sentence().endswith(" for 8 requests/s: so say all 3 repetitions.")


@pytest.mark.parametrize("most", [3, 16])
def test_no_number_of_replicas_holds(most: int) -> None:
    found, asked = ask(study(replicas=True, replications=2, max_replicas=most, model_error=False).run(), World(0.01))
    assert found.answer is None and found.found == (None, None) and not found.verdict
    assert max(t.load["replicas"] for batch in asked for t in batch) == most
    assert found.warnings == () and found.sentence() == "quickstart does not hold its SLO for 8 requests/s at any probed size."
    assert found.as_dict()["accelerators"] is None
    half, _ = ask(
        study(replicas=True, replications=2, max_replicas=most, model_error=False).run(),
        World(10.0, {seed_of(sim.load("quickstart").seed, 1): 1e-3}),
    )
    assert half.answer is None and half.found == (1, None)
    assert half.warnings[0] == "1 of 2 repetitions hold at no probed load."


def test_no_rate_holds_and_every_rate_holds() -> None:
    never, asked = ask(study(replications=1, tolerance=0.5, model_error=False).run(), World(1e-9))
    assert never.answer is None and not never.unbounded
    assert min(t.load["rate"] for (t,) in asked) == pytest.approx(OFFERED * 1.5**-40, rel=1e-5)
    assert never.sentence() == "quickstart does not hold its SLO with 1 replica (1 × NVIDIA H100 SXM5 80GB) at any probed rate."
    ever, asked = ask(study(replications=3, tolerance=0.5).run(), World(1e12))
    assert ever.answer is None and ever.unbounded and ever.found == (None,)
    assert max(t.load["rate"] for (t,) in asked) == pytest.approx(OFFERED * 1.5**40, rel=1e-5)
    assert "even where all 20 requests come at once: too few to find the rate" in ever.sentence()


@pytest.mark.parametrize("replicas", [False, True])
def test_longer_and_shorter_steps_are_searches_of_their_own(replicas: bool) -> None:
    """Steps f times as long: rates f times as high against targets f times as short, told at the rate that is meant."""
    asked_for = study(replicas=replicas, replications=1, tolerance=0.05)
    asked_for._error = Interval(0.8, 1.5, 7, "vllm on h100")
    serves = 2.0 if replicas else 30.0
    found, asked = ask(asked_for.run(), World(serves))
    ends = {}
    for f in (0.8, 1.5):
        most = serves * border(f) / f
        ends[f] = math.ceil(OFFERED / most) if replicas else highest(most, 0.05)
    held = found.model_error
    assert (held.low, held.high) == ((ends[0.8], ends[1.5]) if replicas else (ends[1.5], ends[0.8]))
    assert (held.step_time_low, held.step_time_high, held.deployments, held.words, held.level) == (
        0.8,
        1.5,
        7,
        "vllm on h100",
        0.8,
    )
    assert all(
        "step_time" not in t.settings or t.scenario.slo.ttft == pytest.approx(1 / t.settings["step_time"])
        for b in asked
        for t in b
    )
    assert len(found.probes) == sum("step_time" not in t.settings for b in asked for t in b)
    words = f"{held.low:.0f} to {held.high:.0f}" if replicas else f"{held.low:.3g} to {held.high:.3g}"
    assert found.sentence().endswith(f" Model error: {words}, as 80% of 7 measured deployments (vllm on h100) would have it.")


def test_interrupted_it_tells_the_best_so_far() -> None:
    told, asked = ask(study(replications=3, model_error=False).run(), World(60.0), stop=2)
    assert told.answer == pytest.approx(OFFERED * 1.02**36, rel=1e-5) and told.tolerance == 0.0
    assert told.warnings[1:] == ("The search was interrupted: the answer is the best of the probes so far.",)
    assert told.warnings[0].startswith("At 16.3 requests/s the 20 requests come within 1.23 s")
    few, _ = ask(study(replicas=True, replications=3, model_error=False).run(), World(2.0), stop=5)
    assert few.answer == min(p.value for p in few.probes if p.held)
    none, _ = ask(study(replications=1, model_error=False).run(), World(1.0), stop=1)
    assert none.answer is None and len(none.probes) == 1
    later = study(replications=1, tolerance=0.05)
    later._error = Interval(0.5, 2.0, 7, "vllm")
    whole, asked = ask(study(replications=1, tolerance=0.05, model_error=False).run(), World(30.0))
    found, _ = ask(later.run(), World(30.0), stop=len(asked) + 1)
    assert found.answer == whole.answer and len(found.probes) == len(asked) and found.model_error is None


def test_what_breaks_first_where_each_target_alone_is_met() -> None:
    from sim.study.figures import Figures

    def probe(value: float, replication: int = 0, **shares: float) -> Probe:
        data = changed(
            slo__attainment=shares, slo__met=min(shares.values()) >= 0.99, bottleneck__sentence="Nothing is saturated: memory."
        )
        return Probe(value, Figures.from_dict(data), replication)

    ok = probe(4.0, ttft_s=1.0, tpot_s=1.0, joint=1.0)
    both = probe(5.0, ttft_s=0.995, tpot_s=0.993, joint=0.985)
    worst = probe(6.0, ttft_s=0.9, tpot_s=0.8, joint=0.7)
    other = probe(4.5, 1, ttft_s=0.5, tpot_s=0.9, joint=0.5)
    below = probe(3.0, ttft_s=0.2, tpot_s=0.9, joint=0.2)

    def limit(*probes: Probe, answer: float | None = 4.0) -> str:
        return CapacityAnswer("x", "rate", answer, probes).limit()

    long = "No limit is hit, but steps have grown long: memory."
    assert limit(ok, both, worst) == f"at 5 requests/s each target alone is met, but only 98.50% meet all of them. {long}"
    assert limit(ok, worst) == f"at 6 requests/s only 80.00% meet TPOT. {long}"
    assert limit(ok, other, worst) == f"at 6 requests/s only 80.00% meet TPOT. {long}"  # of the repetition that is shown
    assert limit(ok, other) == f"at 4.5 requests/s only 50.00% meet TTFT. {long}"
    assert limit(below, ok, worst) == f"at 6 requests/s only 80.00% meet TPOT. {long}"  # noise below the answer
    assert limit(below, worst, answer=None) == f"at 3 requests/s only 20.00% meet TTFT. {long}"
    assert limit(ok) == "No probe broke the SLO."
    replicas = [probe(n, ttft_s=1 - 0.1 / n, tpot_s=1.0, joint=1 - 0.1 / n) for n in (1.0, 2.0)]
    assert CapacityAnswer("x", "replicas", 3.0, replicas).limit().startswith("at 2 replicas only 95.00% meet TTFT.")
    assert CapacityAnswer("x", "replicas", 1.0, replicas[:1]).limit().startswith("at 1 replica only 90.00% meet TTFT.")


def test_what_is_safe_and_the_words_of_one_repetition() -> None:
    def of(**more: Any) -> CapacityAnswer:
        return CapacityAnswer("x", "rate", 5.0, (), **more)

    assert of(found=(4.0, 6.0)).safe == 4.0 and of(found=(4.0, None)).safe == 5.0 and of().safe == 5.0
    assert of(found=(5.0,), tolerance=0.02).sentence() == (
        "x holds its SLO up to 5 requests/s (one repetition, to within 2.0%: another seed may give another answer)."
    )
    assert of(found=(5.0,)).sentence().endswith("5 requests/s (one repetition: another seed may give another answer).")
    assert of().sentence() == "x holds its SLO up to 5 requests/s."
    assert CapacityAnswer("x", "replicas", 2.0, ()).sentence() == "x needs 2 replicas."
    assert CapacityAnswer("x", "replicas", 2.0, (), cards=(8, "H100")).accelerators(200.0) == "1,600 × H100"


@given(serves=st.floats(0.05, 500.0), tolerance=st.floats(0.005, 0.9))
@settings(max_examples=40)
def test_any_border_is_found_to_the_tolerance(serves: float, tolerance: float) -> None:
    found, _ = ask(study(replications=1, tolerance=tolerance, model_error=False).run(), World(serves))
    assert found.answer <= serves * BREAKS * (1 + 1e-5) and found.answer * (1 + tolerance) >= serves * BREAKS * (1 - 1e-5)


def test_what_has_no_capacity() -> None:
    with pytest.raises(ConfigError, match="slo: is needed"):
        study("slo={}")
    with pytest.raises(ConfigError, match="has no rate to search for"):
        Capacity([sim.load("closed-loop", ["slo={ttft: 1s}"])], CapacityParams())


def test_a_stretch_too_short_to_show_a_rate() -> None:
    """100 requests at 5/s come within 20 s: enough where one takes 4 s at most, which is five in a row."""

    def held(*means: float | None, requests: int = 100) -> Any:
        return [
            SimpleNamespace(latency=SimpleNamespace(e2e=SimpleNamespace(mean=m)), requests=SimpleNamespace(injected=requests))
            for m in means
        ]

    assert too_short(held(1.0, 4.0), 5.0) == [] and too_short(held(None), 5.0) == [] and too_short([], 5.0) == []
    (said,) = too_short(held(4.1, 1.0, None), 5.0)
    assert said.startswith("At 5 requests/s the 100 requests come within 20 s, and one takes 4.1 s: too short")
    assert said.endswith("send 410 or more.")
    assert too_few(held(1.0, requests=1)[0]).startswith("for the one request that comes at once:")
    assert too_few(held(1.0, requests=2)[0]).startswith("even where all 2 requests come at once:")
