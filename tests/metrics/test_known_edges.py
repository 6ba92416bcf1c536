"""At the edges of the rules: where a law begins to be broken, a storm is over, a series ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.errors import LawViolation
from sim.metrics.clients import ClientRecord
from sim.metrics.expect import unmet
from sim.metrics.faults import Incident
from sim.metrics.laws import check_laws
from sim.metrics.model_error import family
from sim.metrics.result import load_result, summarise
from sim.metrics.sections.kv_tiers import KvTier, KvTiers, _over_time
from sim.metrics.sections.models import ModelRow, Models
from sim.metrics.series import fleet, table
from sim.metrics.slo import Slo
from sim.metrics.spell import _bad, _fall, _waiting_peak
from sim.metrics.steady import steady
from sim.metrics.storm import Storm, _back, _limit
from sim.metrics.summary_laws import check_result
from sim.metrics.token_times import TokenTimes
from sim.metrics.windows import stretches
from tests.metrics.records import four_requests, record_of

NAN = float("nan")


# ---- laws


@pytest.mark.parametrize(
    ("column", "row", "value", "law"),
    [
        ("arrival_s", 0, NAN, "has an arrival time"),
        ("first_scheduled_s", 1, 0.99, "arrival ≤ first scheduled"),
        ("first_token_s", 1, 1.99, "first scheduled ≤ first token"),
        ("finish_s", 0, 0.49, "first token ≤ finish"),
        ("finish_s", 2, 3.99, "arrival ≤ finish"),
        ("first_scheduled_s", 0, NAN, "a finished request was scheduled"),
        ("first_token_s", 0, NAN, "a finished request was scheduled"),
        ("finish_s", 0, NAN, "a finished request was scheduled"),
        ("output_tokens", 1, 0, "a finished request has tokens"),
        ("output_tokens", 2, 1, "a rejected request has no token"),
        ("cached_tokens", 1, 51, "cached tokens are prompt tokens"),
        ("cached_tokens", 1, -1, "cached tokens are prompt tokens"),
        ("status", 0, -1, "status is known"),
        ("status", 0, 4, "status is known"),
        ("id", 2, 1, "an id occurs twice"),
        ("preemptions", 0, 1, "preemptions add up: 2 in the requests, 1 counted"),
        ("status", 0, 3, "in flight has not finished"),
    ],
)
def test_a_law_that_is_just_broken_is_named(column: str, row: int, value: float, law: str) -> None:
    record = four_requests()
    record.requests[column][row] = value
    with pytest.raises(LawViolation, match=law):
        check_laws(record)


def test_what_the_laws_just_allow() -> None:
    record = four_requests()
    rows = record.requests
    rows["first_scheduled_s"][:2] = rows["first_token_s"][:2] = rows["arrival_s"][:2]
    rows["finish_s"][1] = rows["arrival_s"][1]
    rows["cached_tokens"][1] = rows["prompt_tokens"][1]
    rows["status"][2], rows["finish_s"][2] = 3, NAN
    check_laws(record)
    del rows["preemptions"]
    record.totals = dict(record.totals) | {"preemptions": 0}
    check_laws(record)


def test_who_takes_a_request_does_so_between_its_arrival_and_its_first_step() -> None:
    taken = np.array([0.0, 1.5, 4.0, 2.0])
    check_laws(four_requests(requests=four_requests().requests | {"taken_s": taken}))
    for row, when, law in ((0, -0.1, "arrival ≤ taken"), (1, 2.1, "taken by the engine ≤ first scheduled")):
        late = taken.copy()
        late[row] = when
        with pytest.raises(LawViolation, match=law):
            check_laws(four_requests(requests=four_requests().requests | {"taken_s": late}))


def test_series_and_gaps_have_their_bounds() -> None:
    record = four_requests()
    record.series["kv_used"][1, 1] = 500.0  # all that there is
    check_laws(record)
    record.series["time_s"][0, 0] = 5.1
    with pytest.raises(LawViolation, match="no more time than its width"):
        check_laws(record)
    with pytest.raises(LawViolation, match="time is never negative"):
        check_laws(four_requests(parts=np.array([[0.5] * 7, [0.5] * 6 + [-0.1]])))
    totals = four_requests().totals
    check_laws(four_requests(totals=totals | {"itl_sum_s": 9.9, "unseen_gap_s": 0.11}))  # 9.8 s are seen
    with pytest.raises(LawViolation, match=r"they sum to 9\.9 s of 9\.89 s"):
        check_laws(four_requests(totals=totals | {"itl_sum_s": 9.9, "unseen_gap_s": 0.09}))
    cut = four_requests(totals=totals | {"itl_sum_s": 9.8 + 5.9})  # one in flight from 4 s on until the end at 10 s
    cut.requests["status"][2], cut.requests["finish_s"][2] = 3, NAN
    check_laws(cut)


# ---- windows, storms, spells


def test_stretches_of_windows() -> None:
    def found(text: str) -> list[tuple[int, int]]:
        return stretches(np.array([c == "x" for c in text]))

    assert found(".xx..x.x.") == [(1, 3), (5, 8)]
    assert found("x.x") == [(0, 3)]
    assert found("x..x") == [(0, 1), (3, 4)]
    assert found("....") == []


def test_the_load_is_back_when_it_is_as_before() -> None:
    assert (_limit(10.0), _limit(1000.0)) == pytest.approx((10 + 2.5 * 10**0.5, 1150.0))
    calm = [10.0] * 10
    assert _back(np.array([30.0, 20.0, *calm]), 0, 12, 10.0) == 2  # means of three: 26.7, 20, 13.3 …; 17.9 is more than chance
    assert _back(np.array([*calm, 10.0, 30.0]), 3, 12, 10.0) is None  # the last mean is 23.3
    assert _back(np.array([*calm, 10.0, 10.0]), 3, 12, 10.0) == 3
    assert _back(np.array([*calm, 40.0, 10.0, 10.0]), 10, 13, 10.0) == 12


def test_a_storm_that_outlives_its_cause_by_little_is_told() -> None:
    made = Storm(10.0, 20.0, 3.0, True, 5.0, 9.0, 19.5, 0.25, 0.5, 1.0)
    assert len(made.sentences()) == 2 and "only 25% are served" in made.sentences()[1]


def test_windows_that_miss_by_more_than_chance() -> None:
    came = np.array([100, 100, 7, 100, 8, 3])
    met = np.array([85, 83, 0, 95, 4, 0])
    # of 100 with 90 % required two σ are 6 %: 85 is enough; too few say what those before them said
    assert _bad(came, met, 0.9).tolist() == [False, True, True, False, True, True]


def test_where_the_load_has_fallen() -> None:
    rate = np.array([10.0, 10, 40, 40, 40, 10, 10, 10, 10, 10])
    assert _fall(rate, 3, 8) == (40.0, 5)  # means of three: 20, 30, 40, 30, 20, 10; half of both is 25
    assert _fall(np.full(10, 10.0), 3, 8) == (pytest.approx(10.0), None)
    assert _fall(np.array([13.0, 13, 13, 13, 10, 10, 10]), 1, 4)[1] == 4  # three tenths more: it fell
    assert _fall(np.array([20.0, 10.0]), 0, 1) == (20.0, 1)  # too short for means
    assert _fall(np.array([40.0, 40, 40, 40]), 2, 4) == (pytest.approx(40.0), None)


def test_most_that_waited_at_once() -> None:
    columns = {
        "arrival_s": np.array([0.0, 1.0, 2.0, 3.0, 4.0]), "first_scheduled_s": np.array([0.0, 3.0, 3.5, NAN, NAN]),
        "finish_s": np.array([9.0, 9.0, 9.0, 3.2, NAN]),
    }  # fmt: skip
    # at 2 s two wait; at 3 s one of them is scheduled and one more comes; at 4 s only the last does
    assert [_waiting_peak(columns, a, b) for a, b in ((0, 1.9), (0, 2), (3, 4), (4, 4), (5, 9))] == [1, 2, 2, 1, 0]


def test_peak_and_window_of_the_load() -> None:
    n = 300  # three parts of a hundred: 1, 2 and 4 requests per second
    arrival = np.concatenate([np.arange(100) * 0.5, 50 + np.arange(200) * 0.25])
    columns = {
        "arrival_s": arrival, "first_scheduled_s": arrival, "finish_s": arrival + 1.0, "output_tokens": np.full(n, 3), "prompt_tokens": np.full(n, 5),
    }  # fmt: skip
    every = np.ones(n, bool)
    found = steady(columns, every, every, every, False)
    assert found.offered_peak_requests_per_s == pytest.approx(4.0, rel=0.02)
    assert found.offered_requests_per_s == pytest.approx(299 / 99.75)
    assert found.window_s == pytest.approx(np.quantile(arrival, 0.9) - np.quantile(arrival, 0.1))
    assert found.goodput_requests_per_s is None and found.requests_per_s == pytest.approx(240 / (found.window_s or 0.0))
    few = steady({k: v[:20] for k, v in columns.items()}, every[:20], every[:20], every[:20], False)
    assert few.requests_per_s == pytest.approx(16 / (few.window_s or 0.0))
    assert steady({k: v[:19] for k, v in columns.items()}, every[:19], every[:19], every[:19], False).requests_per_s is None
    for takes, known in ((few.window_s or 0.0) / 3 - 0.01, True), ((few.window_s or 0.0) / 3 + 0.01, False):
        slow = {k: v[:20] for k, v in columns.items()} | {"finish_s": arrival[:20] + takes}
        assert (steady(slow, every[:20], every[:20], every[:20], False).requests_per_s is not None) is known


# ---- tiers over time


def use(width: float, rows: list[list[float]], **tier: Any) -> dict[str, Any]:
    return {"width_s": width, "tiers": [{"name": "cpu", "capacity": 10.0, "stores": 2.0, "series": np.array(rows)} | tier]}


def test_tiers_of_pools_with_bins_of_other_widths() -> None:
    found = _over_time(
        [
            use(2.0, [[4.0, 8.0, 2.0, 20.0], [0.0, 0.0, 1.0, 10.0]]),
            use(1.0, [[1.0, 0, 0, 5.0], [1.0, 0, 0, 5.0], [3.0, 0, 0, 0]]),
        ],
        3.0,
    )

    assert found is not None
    assert (found.width_s, found.time_s) == (2.0, (1.0, 2.5))  # the last bin is half as wide
    (cpu,) = found.tiers
    assert cpu.hit_tokens_per_s == pytest.approx((3.0, 3.0))
    assert (cpu.read_bytes_per_s, cpu.written_bytes_per_s) == (pytest.approx((4.0, 0.0)), pytest.approx((1.0, 1.0)))
    assert cpu.used == pytest.approx((15 / 40, 10 / 40))  # of two pools with two stores of ten bytes each
    assert _over_time([use(1.0, [[1.0] * 4])], 0.0) is None
    assert _over_time([{"width_s": 1.0, "tiers": [{"name": "cpu", "series": None}]}], 3.0) is None
    none = _over_time([use(1.0, [[1.0] * 4], capacity=0.0)], 1.0)
    assert none is not None and none.tiers[0].used == (0.0,)


def test_a_long_run_has_two_hundred_bins_of_tiers_at_most() -> None:
    for seconds, bins, width in ((200.0, 200, 1.0), (201.0, 101, 2.0), (800.0, 200, 4.0)):
        found = _over_time([use(1.0, [[1.0] * 4] * int(seconds))], seconds)
        assert found is not None and (len(found.time_s), found.width_s) == (bins, width)
        assert found.tiers[0].hit_tokens_per_s == pytest.approx([1.0] * bins)


def test_what_is_said_of_tiers() -> None:
    def tiers(late: int, skipped: float, loads: int = 1000) -> list[str]:
        cpu = KvTier("cpu", 2.0**30, 1, 30, 0.3, 0.0, 9e9, skipped, 0.0)
        wait = (0.005, 0.25) if loads else (None, None)
        return KvTiers(100, 0.2, 0.5, (cpu,), loads, *wait, 0.0, late).sentences()

    first = "of the tokens looked up 20% on the accelerator, 30% in host memory, 50% computed"
    assert tiers(0, 1e9) == [f"{first}; 1,000 loads, 5 ms on average, 250 ms at most"]  # a tenth is not yet worth a word
    assert tiers(0, 0.0, 0) == [first]
    assert tiers(1, 1.1e9, 0)[1:] == [
        "1.1 GB were not kept in host memory, as all of it was in use: 1 GiB are few",
        "1 loads took longer than the engine's time-out, after which it would have computed again",
    ]


# ---- faults, models, clients


def test_a_fault_that_ends_after_what_it_did_is_one_with_what_follows() -> None:
    ttft = np.full(400, 0.1)
    ttft[100:150] = ttft[240:290] = 5.0  # both are the doing of one fault that lasts from 100 s to 230 s

    def missed(end: float) -> tuple[int, float]:
        broke = [Incident("crash", 100.0, end, 1, "replica 1 died")]
        record = record_of(ttft, np.arange(400.0), slo=Slo(ttft=1.0, attainment=0.95), stations={"faults": broke})
        (row,) = summarise(record, renderer=None).summary["faults"]["incidents"]
        return row["missed"], row["recovery_s"]

    assert (missed(230.0)[0], missed(120.0)[0]) == (100, 50)
    assert missed(230.0)[1] > 180 > missed(120.0)[1]


def test_a_model_whose_replicas_idle_is_told_beside_a_busy_one() -> None:
    def says(most: float, least: float) -> list[str]:
        rows = [ModelRow(k, name, 1, 1, 1, *[None] * 7, busy=busy) for k, (name, busy) in enumerate((("a", least), ("b", most)))]
        return Models(tuple(rows)).sentences()

    said = "the replicas of b were busy 50% of the time, those of a 25%: each serves only its own model"
    assert says(0.5, 0.25) == [said]
    assert says(0.499, 0.1) == says(0.5, 0.251) == []


def test_clients_of_whom_nothing_was_wasted() -> None:
    nobody = {
        k: np.zeros_like(v) if k in ("prompt_tokens", "output_tokens", "cached_tokens") else v
        for k, v in four_requests().requests.items()
    }
    record = four_requests(
        requests=nobody | {"status": np.array([1, 1, 1, 1], np.int8)}, stations={"clients": ClientRecord("openai", "test")}
    )
    found = summarise(record, renderer=None).summary["clients"]
    assert (found["wasted"]["share"], found["attempts_per_request"]) == (0.0, 1.0)


# ---- what a scenario expects, what a result says and keeps


def bound(**given: Any) -> Any:
    return SimpleNamespace(**({"min": None, "max": None, "value": None, "tolerance": None} | given))


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"min": 2.0}, True),
        ({"min": 2.01}, False),
        ({"max": 2.0}, True),
        ({"max": 1.99}, False),
        ({"value": 2.0}, True),
        ({"value": 2.01}, False),
        ({"value": 2.2, "tolerance": 0.1}, True),
        ({"value": 1.8, "tolerance": 0.1}, False),
        ({"value": -2.0, "tolerance": 0.1}, False),
    ],
)
def test_a_figure_within_what_is_expected(given: dict[str, Any], holds: bool) -> None:
    assert (unmet({"a": {"b": 2}}, {"a.b": bound(**given)}) == []) is holds


def test_an_expectation_in_words() -> None:
    summary = {"a": 2.5, "rows": [{"name": "chat", "x": -2.0}], "yes": True}
    said = unmet(
        summary,
        {"a": bound(min=3.0, max=4.0), "rows.chat.x": bound(value=-1.0, tolerance=0.5), "yes": bound(min=0), "no": bound(min=0)},
    )
    assert said == [
        "a is 2.5, expected at least 3 and at most 4", "rows.chat.x is -2, expected at least -1.5 and at most -0.5",
        "yes: the result has no such figure", "no: the result has no such figure",
    ]  # fmt: skip


def test_a_result_in_a_line() -> None:
    def line(slo: Slo) -> str:
        return str(summarise(record_of(np.arange(1, 11) * 0.1, slo=slo), renderer=None)).split(". ")[1]

    assert line(Slo(ttft=0.95, attainment=0.9)) == "Holds: 90% of requests meet its SLO, 90% required"
    assert line(Slo(ttft=0.85, attainment=0.9)) == "Misses: 80% of requests meet its SLO, 90% required"
    assert line(Slo.of({"ttft": {"p50": 0.45, "p90": 0.95}})) == "Misses: TTFT p50 ≤ 450 ms (40% of requests are within it)"
    assert line(Slo.of({"ttft": {"p50": 0.55, "p90": 0.95}})).startswith("Holds: 90% of requests meet its SLO")


def test_times_of_tokens_are_kept(tmp_path: Path) -> None:
    result = summarise(four_requests(), renderer=None)
    result.token_times = TokenTimes(np.array([0, 0, 3]), np.array([0.5, 1.0, 2.2]))
    back = load_result(result.save(tmp_path / "out")).token_times
    assert back is not None and (back.row.tolist(), back.at.tolist()) == ([0, 0, 3], [0.5, 1.0, 2.2])


def test_the_columns_of_a_table_over_time() -> None:
    record = four_requests()
    found = table(record.series, record.kv_total)
    assert {k: v.tolist() for k, v in found.items()} == {
        "time_s": [0.0, 0.0, 5.0], "width_s": [5.0, 5.0, 5.0], "replica": [0, 1, 1], "running": [0.6, 0.6, 1.0], "waiting": [0.2, 0.0, 0.0],
        "kv_used": [10.0, 20.0, 40.0], "kv_use": [0.1, 0.2, 0.4], "kv_blocked": [0.1, 0.0, 0.0], "busy": [0.6, 0.6, 1.0],
        "steps_per_s": [1.2, 2.0, 5.0], "step_time_s": [0.5, 0.3, 0.2], "batch_tokens": [154 / 6, 18.4, 1.0],
        "decode_tokens_per_s": [0.8, 2.8, 5.0], "prefill_tokens_per_s": [30.0, 34.0, 0.0],
    }  # fmt: skip
    assert np.isnan(table(record.series)["kv_use"]).all()
    assert {v.size for v in table({}).values()} == {0}  # type: ignore[typeddict-item]


def test_a_fleet_over_time_is_the_sum_of_its_replicas() -> None:
    columns = dict.fromkeys(("kv_use", "kv_blocked", "busy", "step_time_s"), np.full(4, 0.5))
    columns |= dict.fromkeys(
        ("running", "waiting", "steps_per_s", "decode_tokens_per_s", "prefill_tokens_per_s"), np.array([1.0, 2.0, 4.0, 8.0])
    )
    found = fleet(columns | {"time_s": np.array([0.0, 5.0, 5.0, 10.0]), "width_s": np.array([5.0, 5.0, 2.5, 2.5])})
    assert {k: found[k].tolist() for k in ("time_s", "replicas", "running", "busy")} == {
        "time_s": [0.0, 5.0, 10.0], "replicas": [1.0, 1.5, 1.0], "running": [1.0, 4.0, 8.0], "busy": [0.5, 0.5, 0.5],
    }  # fmt: skip


def test_a_share_may_be_all() -> None:
    result = summarise(four_requests(), renderer=None)
    summary = result.summary.as_dict()
    for share, broken in ((1.0, False), (1.001, True)):
        summary["utilisation"]["busy"] = share
        if broken:
            with pytest.raises(LawViolation, match="no share exceeds one"):
                check_result(result.columns, summary)
        else:
            check_result(result.columns, summary)


def test_a_family_of_one_word() -> None:
    assert [family(name) for name in ("rtx", "rtx-4090", "ascend", "ascend-910b4", "h100_sxm")] == [
        "rtx",
        "rtx-4090",
        "ascend",
        "ascend-910b",
        "h100",
    ]
