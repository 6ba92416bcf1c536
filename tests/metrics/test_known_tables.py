"""Latencies, groups of requests, sessions and times of tokens: small tables whose every figure can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.metrics.groups import group_rows, replica_load
from sim.metrics.histogram import ITL_BINS, ITL_LO, ITL_SCALE, cdf
from sim.metrics.latency import derive, describe, describe_itl, number
from sim.metrics.result import summarise
from sim.metrics.sections.fairness import jain, section
from sim.metrics.sections.sessions import session_table
from sim.metrics.slo import Slo, _demand, attained, demand_text, met, share
from sim.metrics.token_times import TokenTimes, by_request
from tests.metrics.records import four_requests, record_of

NAN = float("nan")


# ---- latencies


def test_latencies_of_a_request() -> None:
    columns = {
        "arrival_s": np.array([1.0, 2.0, 3.0, 4.0]), "first_scheduled_s": np.array([1.5, 2.25, NAN, 4.5]),
        "first_token_s": np.array([2.0, 3.0, NAN, 5.0]), "finish_s": np.array([6.0, 3.0, 3.5, 9.0]),
        "output_tokens": np.array([5, 1, 0, 3]), "status": np.array([0, 0, 1, 2]),
    }  # fmt: skip

    found = derive(columns)

    assert found["ttft_s"] == pytest.approx([1.0, 1.0, NAN, 1.0], nan_ok=True)
    assert found["e2e_s"] == pytest.approx([5.0, 1.0, NAN, NAN], nan_ok=True)  # of those that finished
    assert found["tpot_s"] == pytest.approx([1.0, NAN, NAN, NAN], nan_ok=True)  # four gaps in four seconds; one token has none
    assert found["ingress_s"] == pytest.approx([0.0] * 4)
    assert found["queue_s"] == pytest.approx([0.5, 0.25, NAN, 0.5], nan_ok=True)
    taken = derive(columns | {"taken_s": np.array([1.2, 2.2, 3.2, 4.2])})
    assert taken["ingress_s"] == pytest.approx([0.2] * 4)
    assert taken["queue_s"] == pytest.approx([0.3, 0.05, NAN, 0.3], nan_ok=True)
    assert columns["finish_s"].tolist() == [6.0, 3.0, 3.5, 9.0]  # what was measured stays as it is


def test_statistics_of_a_hundred_values() -> None:
    found = vars(describe(np.array([*range(101), NAN])))

    assert found == {
        "count": 101, "mean": 50.0, "std": pytest.approx(np.sqrt((101**2 - 1) / 12)), "min": 0.0,
        "p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": pytest.approx(99.9), "max": 100.0,
    }  # fmt: skip
    nothing = dict(vars(describe(np.array([NAN]))))
    assert nothing.pop("count") == 0 and set(nothing.values()) == {None}


def test_statistics_of_gaps() -> None:
    hist = np.zeros(ITL_BINS)
    hist[200], hist[400] = 90, 10  # from 1e-5·e and 1e-5·e²

    found = vars(describe_itl(hist, {"itl_count": 100.0, "itl_sum_s": 2.5, "itl_max_s": 1e-4}))

    assert (found["count"], found["mean"], found["max"], found["std"], found["min"]) == (100, 0.025, 1e-4, None, None)
    assert found["p50"] == pytest.approx(ITL_LO * np.exp((200 + 50 / 90) / ITL_SCALE))
    assert found["p95"] == pytest.approx(ITL_LO * np.exp((400 + 0.5) / ITL_SCALE))
    assert describe_itl(hist, {"itl_sum_s": 2.5, "itl_max_s": 1.0}).count == 100  # as many as the histogram holds
    assert describe_itl(np.zeros(ITL_BINS), {"itl_max_s": 0.0}).mean is None
    x, below = cdf(hist)
    assert x == pytest.approx([ITL_LO * np.exp(201 / ITL_SCALE), ITL_LO * np.exp(401 / ITL_SCALE)])  # upper edges
    assert below.tolist() == [0.9, 1.0]


@pytest.mark.parametrize(("value", "found"), [(1.5, 1.5), (NAN, None), (float("inf"), None), (-float("inf"), None), (0.0, 0.0)])
def test_a_number_that_json_holds(value: float, found: float | None) -> None:
    assert number(value) == found


# ---- groups


def test_the_rows_of_groups() -> None:
    columns = {
        "status": np.array([0, 0, 0, 1, 3, 0]), "output_tokens": np.array([5, 7, 11, 100, 2, 1]),
        "ttft_s": np.array([1.0, 3.0, 2.0, NAN, 9.0, 4.0]), "tpot_s": np.array([0.1, 0.3, 0.2, NAN, 9.0, NAN]),
        "e2e_s": np.array([10.0, 30.0, 20.0, NAN, NAN, 40.0]),
    }  # fmt: skip
    label, counted = np.array([0, 0, 2, 2, 0, 3]), np.array([1, 1, 1, 1, 0, 1], bool)
    ok = np.array([1, 0, 1, 0, 1, 1], bool)

    first, none, third, last = group_rows(columns, label, ok, counted, 4)

    assert [first[k] for k in ("requests", "finished", "output_tokens", "attainment")] == [3, 2, 12, 0.5]
    assert (first["ttft_p50_s"], first["tpot_p50_s"], first["e2e_p50_s"]) == pytest.approx((2.0, 0.2, 20.0))
    assert (first["ttft_p99_s"], first["e2e_p99_s"]) == pytest.approx((2.98, 29.8))
    assert (none.index, none.name) == (1, "1")
    assert {none[k] for k in none if k not in ("index", "name")} == {0, None}
    assert [third[k] for k in ("requests", "finished", "output_tokens", "attainment", "ttft_p50_s")] == [2, 1, 11, 0.5, 2.0]
    assert (last["tpot_p50_s"], last["ttft_p50_s"], last["requests"]) == (None, 4.0, 1)
    (whole,) = group_rows(columns, np.zeros(6, int), ok, counted, 1)
    assert [whole[k] for k in ("requests", "finished", "output_tokens", "attainment", "ttft_p50_s")] == [6, 4, 24, 0.6, 2.5]


def test_the_load_of_replicas() -> None:
    series: Any = {
        "busy_s": np.array([[2.0, 1.0], [5.0, 7.0]]), "running": np.array([[4.0, 2.0], [0.0, 5.0]]), "waiting": np.array([[1.0, 0.0], [0.0, 2.0]]),
        "kv_used": np.array([[50.0, 20.0], [0.0, 40.0]]), "time_s": np.array([[5.0, 1.0], [0.0, 5.0]]),
    }  # fmt: skip
    total = np.array([100.0, 20.0])

    one, two = replica_load(series, total, np.zeros((2, 7)), 10.0)
    assert one == pytest.approx({"busy": 0.3, "running_mean": 0.6, "waiting_mean": 0.1, "kv_mean": 0.07, "kv_peak": 0.2})
    assert two == pytest.approx({"busy": 1.0, "running_mean": 0.5, "waiting_mean": 0.2, "kv_mean": 0.2, "kv_peak": 0.4})
    short = replica_load(series, total, np.zeros((2, 7)), 10.0, np.array([5.0, 0.0]), np.array([90.0, 15.0]))
    assert short[0] == pytest.approx({"busy": 0.6, "running_mean": 1.2, "waiting_mean": 0.2, "kv_mean": 0.14, "kv_peak": 0.9})
    assert (short[1]["running_mean"], short[1]["kv_peak"]) == pytest.approx((5.0, 0.75))  # it never was: of a second
    assert replica_load(series, None, np.zeros((2, 7)), 0.0)[0] == pytest.approx(
        {"busy": 1.0, "running_mean": 6.0, "waiting_mean": 1.0}
    )
    parts = np.array([[1.0, 2.0], [9.0, 9.0]])
    assert replica_load({}, None, parts, 10.0) == [{"busy": 0.3}, {"busy": 1.0}]  # type: ignore[typeddict-item]
    assert [row["kv_peak"] for row in replica_load({}, total, parts, 10.0, None, np.array([50.0, 5.0]))] == [0.5, 0.25]  # type: ignore[typeddict-item]


def test_tenants_from_the_largest_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def tenants(*of: int) -> Any:
        return summarise(record_of(np.linspace(0.1, 1.0, len(of)), tenant=np.array(of)), renderer=None).summary.tenants

    found = tenants(4, 1, 1, 4, 4, 2)
    assert found["count"] == 3
    assert [(row["tenant"], row["requests"]) for row in found["rows"]] == [(4, 3), (1, 2), (2, 1)]
    monkeypatch.setattr("sim.metrics.sections.tenants._MOST", 2)
    few = tenants(3, 3, 3, 1, 1, 0)
    assert few["count"] == 3  # those beyond are counted and have no row
    assert [(row["tenant"], row["requests"], row["output_tokens"]) for row in few["rows"]] == [(3, 3, 33), (1, 2, 22)]


# ---- targets


def test_who_meets_what() -> None:
    columns = {
        "status": np.array([0, 0, 0, 2]), "output_tokens": np.array([5, 1, 5, 5]),
        "ttft_s": np.array([1.0, 1.1, 0.5, 0.1]), "tpot_s": np.array([0.2, NAN, 0.3, 0.1]),
    }  # fmt: skip
    found = met(columns, {"ttft_s": 1.0, "tpot_s": 0.2})
    assert {k: v.tolist() for k, v in found.items()} == {
        "ttft_s": [True, False, True, False], "tpot_s": [True, True, False, False], "joint": [True, False, False, False],
    }  # fmt: skip
    assert met(columns, {})["joint"].tolist() == [True, True, True, False]
    assert share(found["ttft_s"], np.array([1, 1, 0, 0], bool)) == 0.5
    assert share(found["ttft_s"], np.zeros(4, bool)) is None


def test_targets_from_settings() -> None:
    whole = Slo(ttft=1.0, attainment=0.9)
    assert Slo.of(None) == Slo() and Slo.of(None, whole) is whole
    assert Slo.of({"attainment": 0.5}, whole) == Slo(ttft=1.0, attainment=0.5)
    assert Slo.of({"tpot": 0.1}, whole) == Slo(tpot=0.1, attainment=0.9, each=frozenset({"tpot_s"}))
    assert (
        Slo.of({"ttft": {"p99": 3.0, "p50": 1.0}, "e2e": {"each": 9.0}}).required == 0.99
    )  # each request is asked for, and 99 % by default
    assert Slo.of({"ttft": {"p95": 3.0, "p50": 1.0}}).required == 0.95


def test_a_class_is_judged_by_its_own_targets_alone() -> None:
    klass = np.array([0, 0, 1, 1, 1])
    record = record_of(
        [0.5, 2.0, 0.5, 2.0, 4.0], klass=klass, slo=Slo(ttft=1.0, attainment=0.5), class_slo={1: Slo(ttft=3.0, attainment=0.7)}
    )
    s = summarise(record, renderer=None).summary
    assert [(d.klass, d.required, d.attainment, d.met) for d in s.slo.demands] == [
        (None, 0.5, 0.5, True),
        ("1", 0.7, pytest.approx(2 / 3), False),
    ]
    assert (s.classes[0].met, s.classes[1].met, s.classes[1].required) == (None, False, 0.7)
    only = record_of([0.5, 2.0], klass=np.array([1, 1]), slo=Slo(ttft=1.0), class_slo={1: Slo(ttft=3.0)})
    assert [d.klass for d in summarise(only, renderer=None).summary.slo.demands] == ["1"]  # nobody is left for the rest


def test_a_demand_in_words() -> None:
    assert demand_text(_demand(None, "joint", None, None, 0.99, 0.8123)) == "81.23% of requests meet the SLO, 99% required"
    assert (
        demand_text(_demand("code", "joint", None, None, 0.99, 0.0)) == "class code: none of requests meet the SLO, 99% required"
    )
    assert (
        demand_text(_demand("code", "ttft_s", "p95", 2.0, 0.95, 0.91))
        == "class code: TTFT p95 ≤ 2 s (91% of requests are within it)"
    )
    assert (_demand(None, "joint", None, None, 0.9, 0.9).met, _demand(None, "joint", None, None, 0.9, None).met) == (True, None)
    assert attained("99%", False, "the plan") == "99% of requests meet the plan"
    assert (attained("99%", True), attained("99%", True, "the plan")) == (
        "its effective attainment is 99%",
        "the plan's effective attainment is 99%",
    )


# ---- sessions and tenants


def sessions(**changes: Any) -> dict[str, Any]:
    columns = {
        "session": np.array([7, 3, 7, -1, 3, 7]), "klass": np.array([2, 1, 2, 0, 1, 2]), "status": np.array([0, 0, 0, 0, 1, 0]),
        "arrival_s": np.array([0.0, 1.0, 4.0, 2.0, 9.0, 5.0]), "finish_s": np.array([3.0, 5.0, 6.0, 3.0, 9.5, 8.0]),
        "slo_met": np.array([1, 1, 0, 1, 0, 1], bool),
    } | changes  # fmt: skip
    return {k: v.tolist() for k, v in session_table(columns, np.ones(6, bool)).items()}


def test_the_row_of_a_session() -> None:
    assert sessions() == {
        "session": [7, 3], "klass": [2, 1], "requests": [3, 2], "counted": [3, 2], "whole": [True, False], "met": [False, False],
        "start_s": [0.0, 1.0], "end_s": [8.0, 9.5], "served_s": [7.0, 4.5],  # 0–3 and 4–8; 1–5 and 9–9.5
    }  # fmt: skip
    assert sessions(slo_met=np.ones(6, bool))["met"] == [True, False]  # one was rejected
    inside = sessions(arrival_s=np.array([0.0, 1.0, 1.0, 2.0, 9.0, 2.0]), finish_s=np.array([10.0, 5.0, 3.0, 3.0, NAN, NAN]))
    assert (inside["served_s"], inside["end_s"]) == ([10.0, 4.0], [10.0, 5.0])
    never = sessions(finish_s=np.full(6, NAN))
    assert never["served_s"] == [0.0, 0.0] and np.isnan(never["end_s"]).all()


def test_sessions_in_parts_are_those_of_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    session = np.array([0, 1, 2, 0, 1, 3, -1, 3])
    record = record_of(np.linspace(0.2, 1.6, 8), np.arange(8.0), session=session, slo=Slo(ttft=1.5))
    whole = summarise(record, renderer=None).summary.sessions
    monkeypatch.setattr("sim.metrics.sections.sessions._ROWS", 3)
    parts = summarise(record, renderer=None).summary.sessions
    assert (whole["count"], whole["whole"], whole["requests_mean"], whole["met"]) == (4, 4, 1.75, 0.75)
    assert {k: v for k, v in parts.as_dict().items() if k not in ("duration_s", "served_s")} == {
        k: v for k, v in whole.as_dict().items() if k not in ("duration_s", "served_s")
    }
    for name in ("duration_s", "served_s"):  # sums of the same numbers in another order
        assert parts[name].as_dict() == pytest.approx(whole[name].as_dict())


def test_jain_of_even_and_of_uneven_shares() -> None:
    assert jain(np.full(4, 3.0)) == pytest.approx(1.0)
    assert jain(np.array([5.0, 0, 0, 0])) == pytest.approx(1 / 4)
    assert jain(np.array([1.0, 3.0])) == pytest.approx(16 / 20)
    assert jain(np.zeros(3)) is None


def test_service_of_tenants() -> None:
    columns = {
        "status": np.array([0, 0, 0, 1, 0]), "prompt_tokens": np.array([10, 20, 30, 40, 50]), "output_tokens": np.array([1, 2, 3, 0, 5]),
        "ttft_s": np.array([1.0, 3.0, 5.0, NAN, 7.0]),
    }  # fmt: skip
    tenant, counted = np.array([1, 1, 3, 3, 4]), np.array([1, 1, 1, 1, 0], bool)

    found = section(columns, tenant, ("–", "acme"), None, counted)

    assert found is not None and found.tenants == 2
    assert found.jain_service == pytest.approx((36 + 36) ** 2 / (2 * (36**2 + 36**2)))  # 10 + 2 · 1 + 20 + 2 · 2, and 30 + 2 · 3
    assert found.jain_served_share == pytest.approx(1.5**2 / (2 * 1.25))
    worst = found.worst_tenant
    assert (worst.tenant, worst.name, worst.served_share, worst.attainment, worst.service_share) == (3, "3", 0.5, None, 0.5)
    assert (worst.ttft_p50_s, worst.ttft_p99_s) == (5.0, 5.0)
    by_targets = section(columns, tenant, ("–", "acme"), np.array([0, 0, 1, 0, 1], bool), counted)
    assert by_targets is not None and (by_targets.worst_tenant.name, by_targets.worst_tenant.attainment) == ("acme", 0.0)
    assert by_targets.worst_tenant.ttft_p99_s == pytest.approx(2.98)
    half = section(columns, tenant, ("–", "acme"), np.array([1, 0, 1, 1, 1], bool), counted)
    assert half is not None and (half.worst_tenant.name, half.worst_tenant.attainment) == ("acme", 0.5)
    assert section(columns, np.array([1, 1, 1, 1, 4]), (), None, counted) is None
    equal = section(columns | {"status": np.zeros(5, int)}, np.array([0, 0, 1, 1, 1]), ("a", "b"), None, np.ones(5, bool))
    assert equal is not None and equal.worst_tenant.name == "b"  # of equals the one that waits longer


# ---- times of tokens


def test_a_token_that_two_engines_wrote_down_counts_once() -> None:
    ids = np.array([10, 20, 30])
    found = by_request([(np.array([20, 10, 20]), np.array([3.0, 1.0, 2.0])), (np.array([20, 30]), np.array([3.0, 3.0]))], ids)

    assert found is not None
    assert (found.row.tolist(), found.at.tolist()) == ([0, 1, 1, 2], [1.0, 2.0, 3.0, 3.0])
    assert by_request([], ids) is None
    empty = by_request([(np.zeros(0, int), np.zeros(0))], ids)
    assert empty is not None and empty.at.size == 0


def test_gaps_are_those_that_a_client_sees() -> None:
    times = TokenTimes(np.array([0, 0, 0, 2, 2, 2, 3, 3]), np.array([1.0, 1.5, 3.5, 3.5, 4.0, 5.0, 1.0, 2.0]))
    columns = {
        "id": np.arange(4), "status": np.array([0, 0, 0, 3]), "first_token_s": np.array([1.0, 1.0, 4.0, 1.0]),
        "finish_s": np.array([3.5, 1.0, 5.0, 2.0]),
    }  # fmt: skip
    # the second has none written down, the third's client sees only the last two, the fourth did not finish
    assert [gaps.tolist() for gaps in times.gaps(columns)] == [[0.5, 2.0], [], [1.0], []]


# ---- counts


def test_what_a_summary_warns_of() -> None:
    def warns(**changes: Any) -> list[str]:
        return [w for w in summarise(four_requests(**changes), renderer=None).summary.warnings if "finished: p99.9" not in w]

    assert warns() == ["1 request was rejected; counted as misses, without latency."]
    assert warns(warnings=("they are counted as misses",)) == ["they are counted as misses"]
    rows = four_requests().requests
    cut = rows | {
        "status": np.array([0, 3, 2, 0], np.int8),
        "finish_s": np.array([2.5, NAN, 4.0, 10.0]),
        "output_tokens": np.array([5, 1, 0, 40]),
    }
    assert warns(requests=cut) == [
        "1 failed; counted as misses, without latency.",
        "1 requests were still in flight when the run ended; they count nowhere.",
    ]
    assert warns(requests=cut, complete=False) == [
        "The run was interrupted: these are the requests simulated so far.",
        "1 failed; counted as misses, without latency.",
    ]
    both = summarise(
        four_requests(requests=rows | {"status": np.array([0, 0, 1, 1], np.int8), "output_tokens": np.array([5, 1, 0, 0])}),
        renderer=None,
    )
    assert "2 requests were rejected; counted as misses, without latency." in both.summary.warnings
    assert any(w.startswith("Only 3 requests finished") for w in summarise(four_requests(), renderer=None).summary.warnings)
    assert not any("finished: p99.9" in w for w in summarise(record_of(np.full(1000, 0.1)), renderer=None).summary.warnings)
    assert any(w.startswith("Only 999 ") for w in summarise(record_of(np.full(999, 0.1)), renderer=None).summary.warnings)
    late = summarise(record_of(np.full(5, 0.1), np.arange(5.0)), renderer=None, warmup_s=10.0).summary
    assert (late.requests.warmup, late.requests.finished) == (5, 0)
    assert any("within the warm-up" in w for w in late.warnings)
    some = summarise(record_of(np.full(5, 0.1), np.arange(5.0)), renderer=None, warmup_s=2.0).summary
    assert (some.requests.warmup, some.requests.finished) == (2, 3)  # the one at exactly 2 s counts
    assert not any("within the warm-up" in w for w in some.warnings)


def test_the_rates_of_a_summary() -> None:
    t = summarise(four_requests(accelerators=4), renderer=None).summary.throughput
    assert (t.requests_per_s, t.output_tokens_per_s, t.prompt_tokens_per_s, t.total_tokens_per_s) == pytest.approx(
        (0.3, 4.6, 40.0, 44.6)
    )
    assert t.output_tokens_per_s_per_accelerator == pytest.approx(1.15)


def test_what_the_step_time_rests_on() -> None:
    rows = [
        {"part": "a", "grade": "measured", "share": 3.0}, {"part": "a", "grade": "estimated", "share": 1.0},
        {"part": "b", "grade": "estimated"}, {"part": "elsewhere", "grade": "fitted"}, {"grade": "fitted"},
    ]  # fmt: skip
    record = four_requests(evidence=rows, parts=np.array([[4.0, 1.0], [0.0, 1.0]]), part_names=("a", "b"))
    assert summarise(record, renderer=None).summary.evidence_shares == pytest.approx(
        {"measured": 3 / 6, "estimated": (1 + 2) / 6}
    )
