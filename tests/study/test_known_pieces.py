"""Small pieces that studies are made of: values of settings, tables, reasons, notes, money, intervals; each against what is worked out by hand."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import sim
from sim.errors import ConfigError
from sim.hardware import load_accelerator
from sim.ledger import FAILED, FINISHED, N_PARTS, PARTS, REJECTED
from sim.study import economics
from sim.study.domains import Domain, domains, grid, plain, sample
from sim.study.headroom import _again
from sim.study.keys import contents, digest
from sim.study.reasons import reasons
from sim.study.sensitivity import _place
from sim.study.statistics.attainment import attainment_interval, wilson
from sim.study.statistics.batches import BATCHES, batch_means, mean_interval, skewness_adjusted, spread, worth_of
from sim.study.statistics.interval import Interval
from sim.study.statistics.percentile import percentile_interval
from sim.study.statistics.throughput import throughput_interval
from sim.study.store import differences
from sim.study.stretches import GRID, curve_grid, stretches
from sim.study.table import arrow, flatten
from sim.study.warm import engine_of
from sim.workload.table import RequestBlock

# ---- values of settings


def test_values_as_people_write_them() -> None:
    assert domains("a.b=1,2,4")[0] == Domain("a.b", (1, 2, 4)) and domains(["a=x, true", "b=4..16"])[1] == Domain(
        "b", (), 4.0, 16.0, None, False, True
    )
    assert domains("r=4/s..16/s:7")[0] == Domain("r", (), 4.0, 16.0, 7, False, False, "/s")
    assert domains("r=4/s..16/s:7")[0].grid() == ("4/s", "6/s", "8/s", "10/s", "12/s", "14/s", "16/s")
    assert domains("x=1..100:3log")[0].grid() == (1, 10, 100) and domains("x=1..100:3 log")[0].log
    assert domains("x=0.5..1.5:3")[0].grid() == (0.5, 1.0, 1.5) and domains("x=1..3:5")[0].grid() == (
        1,
        2,
        3,
    )  # whole numbers once each
    assert domains({"x": {"from": 1, "to": 2, "steps": 3, "whole": False}})[0].grid() == (1.0, 1.5, 2.0)
    assert domains({"x": "2..4:3", "y": [True, None]})[0].grid() == (2, 3, 4)
    assert (
        domains("x=1.0..3:2")[0].whole is False and domains("x=1ms..2ms:2")[0].unit == "ms" and domains("x=1..2")[0].steps is None
    )
    assert [plain(v) for v in (None, True, "x", 1.5, [1], {"a": 1})] == ["null", "true", "x", "1.5", "[1]", '{"a": 1}']
    assert grid(domains(["a=1,2", "b=x,y"])) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ("a", "must be PATH=VALUES"), ("=1", "must be PATH=VALUES"), ("a= ", "must be PATH=VALUES"), (["a=1", "a=2"], "is given twice"),
        ({"a": []}, "must be a list of values"), ({"a": 3}, "must be a list of values"), ("a=1,2,1", "is in the list twice"),
        ({"a": {"from": 1, "to": 2, "step": 3}}, "is no part of a range"), ("a=1/s..2s", "has two units"), ("a=2..2", "must rise"),
        ("a=0..2:3log", "must be above 0"), ({"a": {"from": 1, "to": 2, "scale": "cubic"}}, "is not one of the choices"), ("a=1..2:1", "at least 2"),
        ({"a": {"from": 1, "to": 2, "steps": True}}, "at least 2"), ("a=x..2", "must be a number"), ({"a": {"from": 1}}, "must be a number"),
        ({"a": {"from": 1, "to": 2, "steps": 2.5}}, "at least 2"),
    ],
)  # fmt: skip
def test_values_that_mean_nothing(given_: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        domains(given_)


def test_a_range_without_steps_has_no_grid() -> None:
    with pytest.raises(ConfigError, match="a grid needs the number of values"):
        Domain("x", (), 1.0, 2.0).grid()
    assert Domain("x", (), 1.0, 3.0, 2).grid() == (1.0, 3.0) and Domain("x", (), 1.0, 3.0, 1).grid() == (1.0,)


@given(st.floats(0, 1), st.booleans())
def test_a_place_and_its_value_are_inverse(share: float, log: bool) -> None:
    over = Domain("x", (), 2.0, 200.0, None, log)
    value = over.at(share)
    assert _place(over, value) == pytest.approx(share, abs=1e-5)
    assert value == pytest.approx(2 * 100**share if log else 2 + 198 * share, rel=1e-5)
    listed = Domain("x", ("a", "b", "c", "d"))
    assert (
        listed.at(share) == "abcd"[min(int(4 * share), 3)]
        and _place(listed, listed.at(share)) == ("abcd".index(str(listed.at(share))) + 0.5) / 4
    )


@pytest.mark.parametrize("method", ["latin-hypercube", "sobol", "random"])
def test_samples_fill_their_ranges(method: str) -> None:
    over = domains(["x=0..1:2", "y=1/s..16/s", "z=a,b"])
    over = (Domain("x", (), 0.0, 1.0), over[1], over[2])
    points = sample(over, method, 64, 7)
    assert points == sample(over, method, 64, 7) != sample(over, method, 64, 8) and len(points) == 64
    xs = np.array([float(p["x"]) for p in points])  # type: ignore[arg-type]
    assert (
        xs.mean() == pytest.approx(0.5, abs=0.1)
        and {p["z"] for p in points} == {"a", "b"}
        and all(str(p["y"]).endswith("/s") for p in points)
    )
    if method != "random":  # one in each of 64 equal parts
        assert sorted(np.floor(xs * 64).astype(int).tolist()) == list(range(64))


# ---- tables and keys


def test_rows_of_a_table() -> None:
    assert flatten({"a": {"b": 1, "c": [2]}, "d": "x"}) == {"a.b": 1, "d": "x"}
    found = arrow(
        [
            {"a": 1, "b": True, "c": 1.5, "d": "x", "e": None, "f": 2**63},
            {"a": None, "b": False, "c": 2, "d": 3, "e": None, "g": {"h": 1}},
        ]
    )
    assert {n: str(t) for n, t in zip(found.schema.names, found.schema.types, strict=True)} == {
        "a": "int64", "b": "bool", "c": "double", "d": "string", "e": "string", "f": "double", "g.h": "int64",
    }  # fmt: skip
    assert found.to_pylist()[1] == {"a": None, "b": False, "c": 2.0, "d": "3", "e": None, "f": None, "g.h": 1}


def test_what_changed_between_two_studies() -> None:
    before: Any = {"a": {"b": 1, "c": [1, 2]}, "gone": 3, "l": [1]}
    now: Any = {"a": {"b": 2, "c": [1, 5]}, "l": [1, 2], "new": "x"}
    assert differences(before, now) == [
        "a.b was 1 and is 2",
        "a.c[1] was 2 and is 5",
        "gone is gone: 3",
        "l was [1] and is [1, 2]",
        'new is new: "x"',
    ]
    assert differences(before, json.loads(json.dumps(before))) == []


def test_files_count_by_what_is_in_them(tmp_path: Any) -> None:
    one, two = tmp_path / "a.py", tmp_path / "b.txt"
    one.write_text("x")
    two.write_text("x")
    found = list(contents({"p": f"{one}:Name", "l": [str(two), "b.txt", 3], "none": "/no/such"}))
    assert len(found) == 2 and found[0] == found[1] and digest(found) == digest(list(found)) != digest(found[:1])


def test_the_engine_of_a_compiled_function() -> None:
    assert engine_of("x sim.engine.schedulers.vllm.state y") == "vllm" and engine_of("own_0123456789ab_mine.State") == "mine"
    assert engine_of("sim.engine.plain_state") == "plain" and engine_of("sim.cost.step") == ""


# ---- why requests were not served


def test_reasons_of_what_was_not_served() -> None:
    def pool(name: str, most: int, **more: Any) -> Any:
        return SimpleNamespace(scheduler=SimpleNamespace(name=name, **more), replicas=2, rank_count=1, max_context=most)

    def rows(*status: int) -> dict[str, Any]:
        n = len(status)
        return {
            "status": np.array(status),
            "replica": np.array([0, 1, 2, 3, 0][:n]),
            "prompt_tokens": np.array([9, 10, 50, 9, 9][:n]),
        }

    all_but = rows(REJECTED, REJECTED, REJECTED, FAILED, FINISHED)
    tail = "counted as misses, without latency"
    assert reasons([pool("tgi", 10)], all_but, {}) == [
        f"tgi: 2 requests rejected (prompts as long as the 10 tokens that it accepts, or longer); {tail}",
        f"tgi: 1 request rejected (answered 429: more than max_concurrent_requests at once); {tail}",
        f"tgi: 1 request failed (waited too long, and their clients left); {tail}",
    ]
    two = reasons([pool("a", 10), pool("b", 100, reasons={"queue": "no", "failed": "lost"})], all_but, {})
    assert two == [
        f"a: 1 request rejected (prompts as long as the 10 tokens that it accepts, or longer); {tail}",
        f"a: 1 request rejected (turned away at the door); {tail}", f"b: 1 request rejected (no); {tail}", f"b: 1 request failed (lost); {tail}",
    ]  # fmt: skip
    assert reasons([pool("a", 10)], rows(FINISHED, FINISHED), {}) == []
    doors = {"fleet_limit_refused": 1200.0, "fleet_limit_timed_out": 1.0, "fleet_gateway_failed": 2.0}
    unseen = all_but | {"taken_s": np.array([math.nan, 1.0, math.nan, math.nan, 1.0])}
    assert reasons([pool("a", 100)], unseen, doors) == [
        f"a: 1 request rejected (turned away at the door); {tail}", f"a: 1 request failed (given up after they had been admitted); {tail}",
        f"limit: 1,200 requests rejected (refused at the door); {tail}", f"limit: 1 request rejected (they waited at the door for too long); {tail}",
        f"gateway: 2 requests rejected (no replica took them in time); {tail}",
    ]  # fmt: skip
    assert reasons([pool("a", 100)], unseen, {"unseen_gap_s": 0.0}) == [
        f"a: 1 request rejected (turned away at the door); {tail}"
    ]


# ---- the same requests once more


def test_requests_that_come_again_share_only_what_all_share() -> None:
    from sim.workload import content

    own, all_ = content.PROMPT + 5, content.SHARED + 3
    spans = (np.array([0, 2, 3]), np.array([all_, own, own + 1]), np.zeros(3, int), np.array([4, 6, 10]))
    block = RequestBlock.of([0.0, 1.0], [10, 10], [2, 3], out_content=[100, 200], spans=spans)
    assert len(_again(block, 1)) == 1 and _again(block, 2).span_id.tolist() == block.span_id.tolist()
    made = _again(block, 5)
    assert made.output_tokens.tolist() == [2, 3, 2, 3, 2]
    assert len(set(made.out_content.tolist())) == 5 and made.out_content[:2].tolist() == [100, 200]
    ids = [made.span_id[a:b].tolist() for a, b in zip(made.span_off, made.span_off[1:], strict=False)]
    assert [x[0] for x in (ids[0], ids[2], ids[4])] == [all_] * 3 and len(
        {ids[0][1], ids[2][1], ids[4][1], ids[1][0], ids[3][0]}
    ) == 5


# ---- money and power


def plan_of(name: str, replicas: int, tp: int = 1, pp: int = 1, ranks: int = 1, several: Any = ()) -> Any:
    layout = SimpleNamespace(tp=tp, pp=pp, dp=ranks)
    return SimpleNamespace(
        accelerator=load_accelerator(name), layout=layout, replicas=replicas, rank_count=ranks, several=several
    )


def test_what_replicas_cost() -> None:
    e = sim.load("quickstart", ["economics={accelerator_hour: {h100: 3.0, l40s: 1.0}, electricity: 0.2, node: 4}"]).economics
    plans = [plan_of("h100-sxm", 3, 2), plan_of("l40s", 2, 1, 2, 3), plan_of("h100-sxm", 1, 4)]
    assert economics.replica_widths(plans) == {"h100-sxm": [2, 2, 2, 4], "l40s": [6, 6]}
    assert economics.replica_widths([plan_of("l40s", 2, several=(1,)), *plans]) == {"l40s": [1, 1]}
    widths = {"h100-sxm": [2, 2, 2, 4]}
    whole = economics.expense_of(e, widths, None)
    assert (whole.price_hour, whole.accelerators, whole.accelerators_paid, whole.nodes) == pytest.approx((36.0, 10.0, 12.0, 3.0))
    assert whole.lines[0]["amount_hour"] == pytest.approx(36.0) and whole.electricity_hour == 0.0
    assert whole.lines[0]["what"] == "3 × own price (4 × h100-sxm), 12.00 USD per hour each"
    mean = economics.expense_of(e, {"h100-sxm": [2, 2]}, None, 1.25)
    assert (mean.price_hour, mean.accelerators, mean.accelerators_paid, mean.nodes) == pytest.approx((7.5, 2.5, 2.5, 2.5 / 4))
    owned = sim.load(
        "quickstart", ["economics={purchase: {h100-sxm: {price: 87600, years: 5, upkeep: 0.1}}, electricity: 0.2}"]
    ).economics
    power = SimpleNamespace(watts=5000.0)
    paid = economics.expense_of(owned, {"h100-sxm": [2, 2]}, power)  # type: ignore[arg-type]
    assert paid.price_hour == pytest.approx(4 * 87600 * 0.3 / 8760 + 1.0) and paid.lines[-1]["amount_hour"] == pytest.approx(1.0)
    assert paid.lines[0]["source"] == "given: 87,600 USD over 5 years, 10% upkeep a year"
    rented = economics.expense_of(e, widths, power)  # type: ignore[arg-type]
    assert rented.price_hour == pytest.approx(36.0)  # who rents pays no electricity
    assert economics.carbon_intensity(e) is None


def test_power_is_what_each_replica_drew() -> None:
    """Two replicas of two ranks each, of two accelerators: one that computes all the time, one that idles half of its life."""
    e = sim.load("quickstart", ["economics={accelerator_hour: {h100: 3.0}, host_watts: 100}"]).economics
    card = load_accelerator("h100-sxm")
    parts = np.zeros((4, N_PARTS))
    parts[0, PARTS.index("linear_compute")] = 10.0
    record: Any = SimpleNamespace(totals={"last_s": 10.0}, parts=parts, alive_s=[10.0, 10.0, 5.0, 5.0])
    found = economics.power_of(e, [plan_of("h100-sxm", 2, 2, 1, 2)], record, 1.5)
    assert (found.idle_accelerator_watts, found.host_watts, found.pue) == pytest.approx(
        (2 * 20.0 * card.idle_watts / 10, 100 * 2 * 30 / 10, 1.5)
    )
    assert found.accelerator_watts > 2 * 30.0 * card.idle_watts / 10
    always: Any = SimpleNamespace(totals={"last_s": 10.0}, parts=parts, alive_s=None)
    more = economics.power_of(e, [plan_of("h100-sxm", 2, 2, 1, 2)], always, 1.5)
    assert more.idle_accelerator_watts == pytest.approx(2 * 30.0 * card.idle_watts / 10)


# ---- intervals


def test_batch_means_and_what_they_are_worth() -> None:
    x = np.arange(103.0)
    assert batch_means(x, 20).tolist() == [5.0 + 5 * k for k in range(20)]  # what does not fill them is left out at the start
    assert spread(np.ones(20)) == 0.0 and spread(np.tile([1.0, -1.0], 10)) == pytest.approx(math.sqrt(20 / 19 / 20))
    m = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 9.0, 8.0, 7.0])
    d = m - m.mean()
    phi = (d[1:] * d[:-1]).sum() / (d * d).sum()
    assert 0 < phi < 0.9 and spread(m) == pytest.approx(m.std(ddof=1) / math.sqrt(8) * math.sqrt((1 + phi) / (1 - phi)))
    trend = np.arange(400.0)  # correlated as far as it counts: 0.9 at most
    assert spread(batch_means(trend)) <= batch_means(trend).std(ddof=1) / math.sqrt(20) * math.sqrt(1.9 / 0.1) + 1e-9
    assert worth_of(np.ones(200)) == 200.0
    noise = np.random.default_rng(1).normal(size=2000)
    error = spread(batch_means(noise))
    assert worth_of(noise) == pytest.approx(min(2000.0, noise.var() / error**2))


def test_skewness_bends_the_interval() -> None:
    even = np.array([-2.0, -1.0, 0.0, 1.0, 2.0] * 4) + 10
    low, high = skewness_adjusted(even, 0.95)
    t = stats.t.ppf(0.975, 19)
    assert (low, high) == pytest.approx((10 - t * spread(even), 10 + t * spread(even)))
    skewed = np.array([0.0] * 18 + [1.0, 9.0])
    k, error = 20, spread(skewed)
    beta = stats.skew(skewed, bias=False) / (6 * math.sqrt(k))
    ends = sorted(skewed.mean() - (np.cbrt(1 + 6 * beta * (z - beta)) - 1) / (2 * beta) * error for z in (t, -t))
    assert skewness_adjusted(skewed, 0.95) == pytest.approx(tuple(ends)) and ends[1] - skewed.mean() > skewed.mean() - ends[0]
    found = mean_interval(np.repeat(skewed, 5))
    assert (
        found is not None
        and (found.value, found.low, found.high) == pytest.approx((skewed.mean(), *ends))
        and found.level == 0.95
    )


def test_a_share_of_dependent_requests() -> None:
    met = np.tile([True] * 9 + [False], 20)
    found = attainment_interval(met)
    assert found is not None and found.value == 0.9 and found.n == 200.0
    z = stats.t.ppf(0.975, BATCHES - 1)
    assert (found.low, found.high) == pytest.approx(wilson(0.9, 200, z=z))
    assert wilson(0.5, 10, z=0.0) == (0.5, 0.5) and wilson(0.5, 100, 0.9)[0] > wilson(0.5, 100, 0.99)[0]
    none = attainment_interval(np.zeros(200))
    assert none is not None and none.low == 0.0 and none.high == pytest.approx(wilson(0.0, 200)[1])
    assert attainment_interval(np.ones(100)) is not None


def test_percentiles_of_independent_values() -> None:
    n = 4000
    x = np.random.default_rng(5).permutation(np.arange(float(n)))
    for p in (0.5, 0.9):
        found = percentile_interval(x, p)
        assert found is not None and found.value == pytest.approx(np.quantile(x, p))
        scale = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, BATCHES - 1)) ** 2
        below, above = found.n * scale * p, found.n * scale * (1 - p)
        low, high = stats.beta.ppf(0.025, below, above + 1), stats.beta.ppf(0.975, below + 1, above)
        assert (found.low, found.high) == pytest.approx((np.quantile(x, low), np.quantile(x, high)))
    far = percentile_interval(x[:300], 0.99)
    assert far is not None and math.isinf(far.high) and far.low <= far.value  # three requests lie beyond it
    near = percentile_interval(x[:1000], 0.99)
    assert near is not None and near.value < near.high < math.inf
    low_end = percentile_interval(x[:300], 0.01)
    assert low_end is not None and math.isfinite(low_end.high)
    assert percentile_interval(np.ones(100), 0.5) is not None


def test_throughput_of_equal_stretches() -> None:
    arrival = np.arange(0.0, 2101.0)
    found = throughput_interval(arrival, arrival + 0.5)
    assert found is not None and found.value == pytest.approx(1.0) and found.n == 20.0
    half = np.where(arrival % 2 == 0, arrival + 0.5, np.nan)
    seen = throughput_interval(arrival, half, np.full(2101, 4.0))
    assert seen is not None and seen.value == pytest.approx(2.0)
    few = np.where((arrival >= 100) & (arrival < 200), arrival + 0.5, np.nan)
    assert (
        throughput_interval(arrival, few) is not None
        and throughput_interval(arrival, np.where(arrival == 150, np.nan, few)) is None
    )
    assert throughput_interval(arrival[:0], arrival[:0]) is None


def test_an_interval_as_plain_data() -> None:
    i = Interval(2.0, 1.0, 4.0, 0.9, "m", 7.26)
    assert (i.half, i.relative) == (1.5, 1.0) and Interval(-2.0, -5.0, -1.0, 0.9, "m", 1.0).relative == 1.5
    assert (
        i.as_dict() == {"value": 2.0, "low": 1.0, "high": 4.0, "level": 0.9, "method": "m", "n": 7.3}
        and Interval.from_dict(i.as_dict()).high == 4.0
    )
    open_ = Interval(2.0, 1.0, math.inf, 0.9, "m", 7.0)
    assert open_.as_dict()["high"] is None and Interval.from_dict(open_.as_dict()) == open_
    assert Interval(0.0, 0.0, 0.0, 0.9, "m", 1.0).relative == 0.0 and math.isinf(Interval(0.0, 0.0, 1.0, 0.9, "m", 1.0).relative)


def test_stretches_of_a_run_and_the_grid_of_curves() -> None:
    shares = curve_grid()
    assert (
        len(shares) == GRID
        and shares[0] == 0.0
        and shares[-1] == 1.0
        and (np.diff(shares) > 0).all()
        and shares[-2] == pytest.approx(0.9999)
    )
    n = 100
    columns = {
        "status": np.zeros(n, int) + FINISHED,
        "arrival_s": np.arange(float(n)),
        "ttft_s": np.arange(float(n)),
        "slo_met": np.arange(n) % 4 > 0,
    }
    result: Any = SimpleNamespace(columns=columns, summary={"warmup_s": 0.0, "slo": {"required": 0.99}})
    paths = ("latency.ttft_s.mean", "latency.ttft_s.p50", "slo.attainment.joint", "throughput.x")
    found = stretches(result, paths, 5)
    assert found == {
        "latency.ttft_s.mean": [9.5 + 20 * k for k in range(5)],
        "latency.ttft_s.p50": [9.5 + 20 * k for k in range(5)],
        "slo.attainment.joint": [0.75] * 5,
    }
    warm: Any = SimpleNamespace(columns=columns, summary={"warmup_s": 50.0, "slo": {"required": None}})
    assert stretches(warm, paths, 5)["latency.ttft_s.mean"] == [
        54.5 + 10 * k for k in range(5)
    ] and "slo.attainment.joint" not in stretches(warm, paths, 5)
    assert stretches(result, paths, 20) != {} and stretches(result, paths, 21) == {}
