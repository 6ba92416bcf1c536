"""Single figures of a summary whose value is known, at the edges of their rules."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.ledger import SERIES
from sim.metrics.bottleneck import queue_grows
from sim.metrics.expect import _inside
from sim.metrics.faults import Incident
from sim.metrics.model_error import band
from sim.metrics.money import Expense, Power, economics_section
from sim.metrics.on_disk import DiskTable
from sim.metrics.record import join_series
from sim.metrics.result import summarise
from sim.metrics.sections.events import MOST
from sim.metrics.sections.fairness import Fairness, WorstTenant
from sim.metrics.sections.kv_pools import KvPool, KvPools
from sim.metrics.sections.kv_tiers import KvTiers
from sim.metrics.sections.sessions import Sessions
from sim.metrics.series import table
from sim.metrics.slo import Demand, Slo, _effective
from sim.metrics.spell import worst_spell
from sim.metrics.steady import steady
from sim.metrics.store import _blocks
from tests.metrics.records import four_requests, record_of


def test_money_energy_and_carbon_of_a_run() -> None:
    summary = summarise(four_requests(slo=Slo(ttft=0.7)), renderer=None).summary
    expense = Expense("EUR", 12.0, 2.0, 2.0, 8.0, 1.0, ({"what": "cards", "amount_hour": 10.0},))
    s = economics_section(
        summary,
        expense,
        Power(500.0, 100.0, 300.0, 1.5),
        output_to_input=4.0,
        g_per_kwh=50.0,
        notes={"grid": "x", "pue_source": "y"},
    )

    through = summary.throughput
    requests, prompts, outputs = (3600.0 * rate for rate in (0.3, 40.0, 4.6))  # 3 requests, 400 and 46 tokens in 10 s
    assert (through.requests_per_s, through.prompt_tokens_per_s, through.output_tokens_per_s) == pytest.approx((0.3, 40.0, 4.6))
    assert (s.per_hour, s.per_month, s.electricity_per_hour) == (12.0, 8760.0, 2.0)
    assert s.per_1000_requests == pytest.approx(12000 / requests)
    assert s.per_1000_good_requests == pytest.approx(12000 / (3600.0 * (summary.slo.goodput_requests_per_s or 0)))
    assert s.per_million_input_tokens == pytest.approx(12e6 / (prompts + 4 * outputs))
    assert s.per_million_output_tokens == pytest.approx(4 * 12e6 / (prompts + 4 * outputs))
    assert s.per_million_tokens == pytest.approx(12e6 / (prompts + outputs))
    paid = (s.per_million_input_tokens or 0) * prompts + (s.per_million_output_tokens or 0) * outputs
    assert paid == pytest.approx(12e6)  # both prices together pay for the hour
    assert s.idle_share == pytest.approx(1 - 2 / 8 * (summary.utilisation.busy or 0))
    assert (s.kilowatts, s.power.watts) == pytest.approx((1.2, 1200.0))
    assert s.kwh_per_million_output_tokens == pytest.approx(1.2e6 / outputs)
    assert s.kwh_per_1000_requests == pytest.approx(1200 / requests)
    assert s.g_co2e_per_hour == pytest.approx(60.0)
    assert s.g_co2e_per_million_output_tokens == pytest.approx(60e6 / outputs)
    free = economics_section(
        summary, replace(expense, accelerators_paid=0.0), Power(0, 0, 0, 1), output_to_input=4.0, g_per_kwh=None, notes={"grid": None, "pue_source": ""}
    )  # fmt: skip
    assert (free.g_co2e_per_hour, free.g_co2e_per_million_output_tokens, free.idle_share) == (None, None, 1.0)
    aimless = summarise(four_requests(), renderer=None).summary
    notes = {"grid": None, "pue_source": ""}
    untold = economics_section(aimless, expense, Power(5.0, 1.0, 3.0, 1.5), output_to_input=4.0, g_per_kwh=None, notes=notes)
    assert untold.per_1000_good_requests is None  # without targets nobody knows who is good


def test_what_a_summary_says_of_the_run_itself() -> None:
    s = summarise(
        four_requests(totals={"last_s": 10.0, "itl_sum_s": 0.0, "itl_count": 0.0, "itl_max_s": 0.0}), renderer=None
    ).summary

    assert (s.context["replicas"], s.steps, s.preemptions, s.fleet) == (2, 0, 1, None)
    assert summarise(four_requests(replicas=1), renderer=None).summary.context["replicas"] == 1
    assert s.spell is None
    assert s.bottleneck.request_time["queue"] == pytest.approx(((0 + 1 + 0) / 3) / ((2.5 + 2 + 8) / 3))


def test_a_short_run_has_shares_too() -> None:
    record = four_requests()
    series = {k: v * 0.01 if k in ("time_s", "kv_full", "width_s") else v for k, v in record.series.items()}
    assert summarise(replace(record, series=series), renderer=None).summary.utilisation.kv_blocked == pytest.approx(0.5 / 15)


# ---- the worst stretch


def rows(came: list[int], missed: list[int]) -> Any:
    """Columns of a run with so many requests in each window of a second, of which the first so many miss their targets."""
    arrival = np.concatenate([k + np.arange(n) / n for k, n in enumerate(came)])
    arrival[-1] = len(came)
    ok = np.concatenate([np.arange(n) >= bad for n, bad in zip(came, missed, strict=True)])
    columns = {"arrival_s": arrival, "first_scheduled_s": arrival + 0.5 * ~ok, "finish_s": arrival + 1.0}
    return columns, ok, np.ones(arrival.size, bool)


EVEN = [50] * 20


def test_the_stretch_and_what_lies_outside() -> None:
    found = worst_spell(*rows(EVEN, [0] * 5 + [40] * 4 + [0] * 11), 0.9)
    assert found is not None
    assert (found.start_s, found.end_s, found.requests, found.stretches, found.width_s) == pytest.approx((5, 9, 200, 1, 1))
    assert (found.met, found.met_outside, found.bad_s) == pytest.approx((0.2, 1.0, 4.0))
    assert found.recovered and found.recovery_s is None  # the load did not fall


def test_where_all_must_be_met_a_window_without_a_miss_is_good() -> None:
    found = worst_spell(*rows(EVEN, [0] * 5 + [1] * 4 + [0] * 11), 1.0)
    assert found is not None and (found.start_s, found.end_s) == pytest.approx((5, 9))


def test_a_load_that_falls_by_a_third_has_fallen() -> None:
    came = [40] * 5 + [80] * 5 + [40] * 10
    found = worst_spell(*rows(came, [0] * 7 + [40] * 6 + [0] * 7), 0.9)
    assert found is not None
    assert found.offered_peak_per_s == pytest.approx(80)
    assert found.recovery_s == pytest.approx(3.0)  # from 10 s, when it fell, to 13 s
    little = worst_spell(*rows([48] * 5 + [58] * 5 + [47] * 10, [0] * 7 + [40] * 6 + [0] * 7), 0.9)
    assert little is not None and little.recovery_s is None


def test_a_first_window_with_few_requests_is_not_bad() -> None:
    came = [4, 96, *[50] * 18]
    for bad in ([4, 0] + [0] * 8 + [45] * 3 + [0] * 7, [0, 90, 45, 45] + [0] * 16):
        found = worst_spell(*rows(came, bad), 0.9)
        assert found is not None and (found.stretches, found.start_s) == (1, pytest.approx(10 if bad[0] else 1))


def test_single_good_windows_do_not_part_a_stretch() -> None:
    found = worst_spell(*rows(EVEN, [0] * 5 + [45, 0, 45, 0, 45] + [0] * 10), 0.9)
    assert found is not None and (found.stretches, found.bad_s, found.start_s) == (1, pytest.approx(5), pytest.approx(5))


# ---- what limits


@pytest.mark.parametrize(("last", "grows"), [(0.19, False), (0.21, True)])
def test_a_queue_that_grows_is_a_fifth_of_the_time_at_least(last: float, grows: bool) -> None:
    queue = np.repeat([0.0, 0.05, 0.1, last], 25)
    columns = {"arrival_s": np.arange(100.0), "ingress_s": np.zeros(100), "queue_s": queue, "e2e_s": np.ones(100)}
    assert queue_grows(columns) is grows
    assert queue_grows({k: v[:99] for k, v in columns.items()}) is False
    assert queue_grows(columns | {"queue_s": np.repeat([0.0, 0.15, 0.1, 0.29], 25)}) is False


# ---- steady rates


def test_steady_rates_of_a_metronome() -> None:
    n = 1000
    columns = {
        "arrival_s": np.arange(n) * 0.5, "first_scheduled_s": np.arange(n) * 0.5, "finish_s": np.arange(n) * 0.5 + 1.0,
        "output_tokens": np.full(n, 4), "prompt_tokens": np.full(n, 6),
    }  # fmt: skip
    all_, good = np.ones(n, bool), np.arange(n) % 2 == 0
    found = steady(columns, all_, good, all_, True)
    assert (found.offered_requests_per_s, found.offered_peak_requests_per_s) == pytest.approx((2.0, 2.0), rel=0.01)
    assert found.requests_per_s == pytest.approx(2.0, rel=0.01)
    assert found.goodput_requests_per_s == pytest.approx(1.0, rel=0.01)
    assert (found.output_tokens_per_s, found.total_tokens_per_s) == pytest.approx((8, 20), rel=0.01)
    two = steady({k: v[:2] for k, v in columns.items()}, all_[:2], good[:2], all_[:2], False)
    assert (two.offered_requests_per_s, two.requests_per_s) == (2.0, None)
    assert steady({k: v[:1] for k, v in columns.items()}, all_[:1], good[:1], all_[:1], False).offered_requests_per_s is None


# ---- tables and series


def test_pools_of_other_lengths_are_joined() -> None:
    def pool(replicas: int, bins: int, width: float) -> dict[str, Any]:
        return {"width_s": width} | {k: np.ones((replicas, bins)) for k in SERIES}

    found = join_series([pool(1, 3, 2.0), pool(2, 4, 1.0), {}])
    assert found["width_s"] == 2.0
    assert found["time_s"].tolist() == [[1, 1, 1], [2, 2, 0], [2, 2, 0]]
    assert join_series([{}]) == {}


def test_a_table_of_the_series_has_at_most_so_many_rows() -> None:
    series = {"width_s": 1.0} | {k: np.ones((1, 8)) for k in SERIES}
    assert [len(table(series, max_rows=n)["time_s"]) for n in (8, 7, 4, 3)] == [8, 4, 4, 2]


def test_columns_are_written_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.metrics.store.BLOCK_ROWS", 2)
    blocks = list(_blocks({"a": np.arange(5), "b": np.arange(5)}))
    assert [b["a"].tolist() for b in blocks] == [[0, 1], [2, 3], [4]]
    assert [len(b) for b in _blocks({"a": np.zeros(0)})] == [1]
    assert list(_blocks({})) == [{}]


def test_events_beyond_the_most_are_counted() -> None:
    many = [Incident("crash", 0.01 * k, 0.01 * k + 0.005, 0, "broke") for k in range(MOST + 3)]
    for some, shown, left_out in ((many, MOST, 3), (many[:2], 2, 0)):
        found = summarise(four_requests(stations={"faults": some}), renderer=None).summary["events"]
        assert (len(found["events"]), found["left_out"]) == (shown, left_out)


def test_places_in_a_summary() -> None:
    found = [{"name": "a", "x": 1}, {"name": "1", "x": 2}, 7]
    assert _inside(found, "a") == {"name": "a", "x": 1}
    assert _inside(found, "1") == {"name": "1", "x": 2}  # a name first, else a number
    assert [_inside(found, part) for part in ("2", "3", "b", "-1")] == [7, None, None, None]
    assert _inside({"a": 3}, "a") == 3 and _inside("text", "0") is None


def test_the_band_of_measurements_of_ones_own() -> None:
    logs = [0.0, 0.1, 0.2, 0.3, 0.4]
    half = 1.5332 * np.std(logs, ddof=1) * (1 + 1 / 5) ** 0.5  # Student's t of four degrees at 90 %
    found = band(logs)
    assert found is not None and np.log(found) == pytest.approx((0.2 - half, 0.2 + half), rel=1e-4)
    assert band(logs[:1]) is None


def test_what_is_said_of_tenants() -> None:
    worst = WorstTenant(1, "acme", 0.5, 0.4, 0.1, 1.0, 2.0)
    assert Fairness(3, 0.75, 0.9, worst).sentences() == [
        "3 tenants: Jain's index of service 0.75; worst served is acme: 50% of its requests were served, 40% met the SLO, TTFT p99 2.00 s"
    ]
    assert Fairness(3, None, 0.9, replace(worst, served_share=1.0, attainment=0.99)).sentences() == []
    short = Fairness(3, None, 0.9, replace(worst, served_share=0.999, attainment=None, ttft_p99_s=None)).sentences()
    assert short == ["3 tenants: worst served is acme: 100% of its requests were served"]


def test_tiers_of_several_deployments_are_added() -> None:
    def use(longest: float, **more: float) -> dict[str, Any]:
        cpu = {
            "name": "cpu",
            "capacity": 100.0,
            "stores": 1.0,
            "hit_tokens": 30.0,
            "read": 5.0,
            "written": 6.0,
            "skipped": 7.0,
            "evicted": 8.0,
        }
        return {"longest": longest, "tiers": [cpu]} | more

    base = {"asked": 100.0, "device": 20.0, "loads": 2.0, "waited": 0.5, "stalled": 1.0, "late": 1.0}
    facts = SimpleNamespace(record=SimpleNamespace(stations={"kv_tiers": [use(0.2, **base), use(0.4, **base)]}), horizon=10.0)
    found = KvTiers.of(facts)  # type: ignore[arg-type]
    assert found is not None
    assert (found.loads, found.wait_mean, found.wait_longest) == (4, pytest.approx(0.25), 0.4)
    assert (found.device_share, found.recomputed_share) == pytest.approx((0.2, 0.5))
    assert (found.tiers[0].hit_share, found.tiers[0].capacity, found.tiers[0].hit_tokens) == (pytest.approx(0.3), 100.0, 60)


def test_tokens_of_one_request_meet_any_tpot() -> None:
    record = record_of([0.1, 0.1, 0.1], slo=Slo(tpot=0.01, attainment=0.5))
    record.requests["output_tokens"] = np.array([1, 2, 11])
    assert summarise(record, renderer=None).summary.slo.attainment["tpot_s"] == pytest.approx(1 / 3)


def test_a_tenth_of_the_time_in_the_queue_is_what_limits() -> None:
    record = record_of(np.full(200, 1.0), np.arange(200.0))  # E2E is 2 s
    for wait, limit in ((0.19, False), (0.21, True)):
        record.requests["first_scheduled_s"] = record.requests["arrival_s"] + wait
        found = summarise(record, renderer=None).summary.bottleneck
        assert (found.limit == "queueing") is limit
        assert found.request_time["queue"] == pytest.approx(wait / 2)


def test_a_stretch_is_told_only_of_a_run_that_misses_its_slo() -> None:
    ttft = np.where((np.arange(1000) >= 300) & (np.arange(1000) < 500), 5.0, 0.1)
    for attainment, told in ((0.9, True), (0.5, False)):
        record = record_of(ttft, np.arange(1000.0), slo=Slo(ttft=1.0, attainment=attainment))
        assert (summarise(record, renderer=None).summary.spell is not None) is told


def test_one_demand_of_another_share_is_weighed() -> None:
    def demand(required: float, found: float) -> Demand:
        return Demand("chat", "ttft_s", None, 1.0, required, found, found >= required)

    assert _effective([demand(0.8, 0.85)], 0.9) == pytest.approx(1 - 0.1 * 0.15 / 0.2)
    assert _effective([demand(0.9, 0.85)], 0.9) == 0.85
    assert _effective([], 0.9) is None


def test_rows_on_disk() -> None:
    table = DiskTable()
    table.append({"id": np.array([3, 1]), "x": np.array([0.5, 1.5])})
    table.append({"id": np.array([2]), "x": np.array([2.5])})
    assert (table.rows, table["id"].tolist(), table["x"].tolist()) == (3, [3, 1, 2], [0.5, 1.5, 2.5])
    table.change(lambda block: {"y": block["x"] * 2})
    table.sort("id")
    assert (table["id"].tolist(), table["y"].tolist()) == ([1, 2, 3], [3.0, 5.0, 1.0])
    table.arrange(["y", "id", "z"])
    assert list(table) == ["y", "id"]


def test_a_pool_is_named_from_a_twentieth_of_the_time_on() -> None:
    pool = KvPool("d", "windows", "blocks", 100, False, 0.5, 0.75, 0.05, 1.0, ())
    assert KvPools((pool, replace(pool, waited=0.049))).sentences() == [
        "the queue waited for windows (100 blocks a replica) for 5% of the time; 50% of them were in use on average, 75% at most"
    ]


def test_what_is_said_of_sessions() -> None:
    duration = SimpleNamespace(p50=90.0, p99=300.0)
    said = SimpleNamespace(count=1200, requests_mean=4.25, duration_s=duration, met=0.5)
    (found,) = Sessions.sentences(said)  # type: ignore[arg-type]
    assert found.startswith("1,200 sessions of 4.25 requests, ") and "from first request to last answer (p99 " in found
    assert found.endswith("; in 50% of them every request met the SLO")
    duration.p50 = duration.p99 = None
    assert Sessions.sentences(said) == ["1,200 sessions of 4.25 requests; in 50% of them every request met the SLO"]  # type: ignore[arg-type]
