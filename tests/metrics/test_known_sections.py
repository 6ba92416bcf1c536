"""Sections of a summary made from small runs whose every figure can be worked out by hand."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.metrics.clients import ClientRecord, Waste
from sim.metrics.faults import Incident
from sim.metrics.result import summarise
from sim.metrics.sections.clients import Clients
from sim.metrics.sections.faults import Faults
from sim.metrics.sections.links import Links
from sim.metrics.slo import Slo
from tests.metrics.records import four_requests, record_of


def facts(horizon: float, **stations: Any) -> Any:
    return SimpleNamespace(record=SimpleNamespace(stations=stations), horizon=horizon)


# ---- links between replicas


def test_transfers_fill_the_bins_that_they_lie_in() -> None:
    rows = [(2, 0.5, 1.0), (0, 3.25, 0.5), (2, 57.0, 9.0), (2, 1.5, 0.25)]  # replica, start, seconds; 60 bins of a second
    columns = tuple(array(kind, [row[k] for row in rows]) for k, kind in enumerate("qdd"))

    found = Links.of(facts(60.0, links=columns))

    assert found is not None
    assert found.width_s == 1.0
    assert found.time_s[:2] == (0.5, 1.5)
    first, second = found.ports  # the busiest first; replica 1 sent nothing
    assert (first.replica, first.transfers, second.replica, second.transfers) == (2, 3, 0, 1)
    assert first.busy_share == pytest.approx((0.5, 0.75, *[0.0] * 55, 1.0, 1.0, 1.0))
    assert first.busy == pytest.approx(4.25 / 60)
    assert second.busy_share[3] == pytest.approx(0.5)
    assert sum(second.busy_share) == pytest.approx(0.5)


def test_two_transfers_at_once_do_not_fill_a_link_twice() -> None:
    found = Links.of(facts(60.0, links=(array("q", [0, 0]), array("d", [1.0, 1.0]), array("d", [1.0, 1.0]))))
    assert found is not None and found.ports[0].busy_share[1] == 1.0


def test_of_many_links_the_busiest_are_kept() -> None:
    n = 70
    columns = (array("q", range(n)), array("d", [0.0] * n), array("d", [0.01 * (k + 1) for k in range(n)]))
    found = Links.of(facts(60.0, links=columns))
    assert found is not None
    assert [port.replica for port in found.ports] == list(range(69, 5, -1))


def test_no_transfers_no_section() -> None:
    assert Links.of(facts(60.0)) is None
    assert Links.of(facts(60.0, links=(array("q"), array("d"), array("d")))) is None
    assert Links.of(facts(0.0, links=(array("q", [0]), array("d", [0.0]), array("d", [0.0])))) is None


# ---- utilisation


def test_shares_of_machines() -> None:
    found = summarise(four_requests(), renderer=None).summary.utilisation

    assert found.busy == pytest.approx((0.3 + 0.8) / 2)  # 3 and 8 of 10 s
    assert found.kv_mean == pytest.approx((0.05 + 0.3) / 2)
    assert found.kv_peak == pytest.approx(0.4)  # 200 of 100 × 5
    assert found.kv_blocked == pytest.approx(0.5 / 15)
    assert (found.running_mean, found.waiting_mean) == pytest.approx((0.3 + 0.8, 0.1))
    assert found.step_time_mean_s == pytest.approx(11.0 / 41)
    assert found.batch_tokens_mean == pytest.approx((43 + 320) / 41)


def test_a_replica_counts_for_the_time_in_which_it_existed() -> None:
    found = summarise(four_requests(alive_s=np.array([5.0, 10.0])), renderer=None).summary.utilisation

    assert found.busy == pytest.approx((0.6 * 0.5 + 0.8 * 1.0) / 1.5)
    assert found.running_mean == pytest.approx(0.6 * 0.5 + 0.8)
    assert found.kv_peak == pytest.approx(0.4)


def test_replicas_that_never_existed_say_nothing() -> None:
    found = summarise(four_requests(alive_s=np.zeros(2)), renderer=None).summary.utilisation
    assert found.busy is None and found.kv_mean is None


# ---- what clients did


def clients(**changes: Any) -> Clients:
    record = ClientRecord("openai", "test", waste=Waste(2, 60, 40, 0.0), retries_s=np.array([5.0, 6.0]), **changes)
    found = summarise(four_requests(stations={"clients": record}), renderer=None).summary["clients"]
    return Clients(**{k: found[k] for k in Clients.__dataclass_fields__})


def test_attempts_and_what_nobody_got() -> None:
    found = clients(failed_s=np.array([4.0]), given_up_s=np.array([9.0]), left=1, hedges=3, hedges_won=2)

    assert (found.attempts, found.attempts_per_request, found.given_up) == (6, 1.5, 1)
    useful = (100 + 5) + (50 + 1) + (250 - 80 + 40)
    assert found.wasted["share"] == pytest.approx(100 / (100 + useful))
    assert clients().given_up == 0


def test_attempts_over_time() -> None:
    series = clients(failed_s=np.array([4.0])).series

    assert series["time_s"] == pytest.approx((2.5, 7.5))  # two bins of 5 s
    assert series["wanted_per_s"] == pytest.approx((4 / 5, 0.0))
    assert series["attempts_per_s"] == pytest.approx((4 / 5, 2 / 5))
    assert series["failed_per_s"] == pytest.approx((1 / 5, 0.0))


SAID = {
    "client": "openai", "source": "", "attempts": 1500, "attempts_per_request": 1.5, "failed_attempts": {}, "hedges": 0, "hedges_won": 0, "left": 0,
    "deadlines": 0, "rerouted": 0, "given_up": 0, "wasted": SimpleNamespace(share=0.0), "storm": None, "series": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attempts_per_request": 1.0}, []),
        ({"attempts_per_request": None}, []),
        ({}, ["clients (openai) sent 1,500 attempts, 1.50 per request"]),
        (
            {"attempts_per_request": 1.0, "given_up": 3},
            ["clients (openai) sent 1,500 attempts, 1.00 per request; 3 requests were given up"],
        ),
        (
            {"attempts": 9, "given_up": 3, "left": 2, "wasted": SimpleNamespace(share=0.005)},
            [
                "clients (openai) sent 9 attempts, 1.50 per request; 3 requests were given up, 2 of them by users who left; 0% of all tokens were computed for nobody"  # noqa: E501
            ],
        ),
        (
            {"wasted": SimpleNamespace(share=0.25)},
            ["clients (openai) sent 1,500 attempts, 1.50 per request; 25% of all tokens were computed for nobody"],
        ),
        (
            {"attempts_per_request": 1.0, "hedges": 4, "hedges_won": 1},
            ["4 second attempts were sent beside the first, 1 of them answered first"],
        ),
    ],
)
def test_what_is_said_of_clients(changes: dict[str, Any], said: list[str]) -> None:
    assert Clients(**(SAID | changes)).sentences() == said


# ---- faults


def faults(missed: slice, *incidents: Incident, n: int = 400) -> Any:
    """A request a second; those of ``missed`` wait too long. 95 % are to be met."""
    ttft = np.full(n, 0.1)
    ttft[missed] = 5.0
    record = record_of(ttft, np.arange(n, dtype=float), slo=Slo(ttft=1.0, attainment=0.95), stations={"faults": list(incidents)})
    return summarise(record, renderer=None).summary["faults"]


def test_from_the_fault_until_it_was_good_again() -> None:
    found = faults(slice(100, 150), Incident("crash", 100.0, 120.0, 1, "replica 1 died", hurt=7))

    (row,) = found["incidents"]
    assert (row["hurt"], row["missed"], row["start_s"], row["end_s"]) == (7, 50, 100.0, 120.0)
    # 87.5 % of all are good, 77 % (two σ less) of 40 need 31: the last window that has too few holds ten bad ones and 30 good ones
    assert row["recovery_s"] == 80.0
    assert (found["down_s"], found["count"], found["hurt"], found["missed"], found["unrecovered"]) == (20.0, 1, 7, 50, 0)
    assert found["recovery_worst_s"] == row["recovery_s"]


def test_a_fault_that_nobody_felt_and_one_that_did_not_pass() -> None:
    calm = faults(slice(0, 0), Incident("slow", 100.0, 120.0, 0, "replica 0 was slow"))
    ends = faults(slice(300, 400), Incident("rank", 300.0, 310.0, 0, "rank 1 died", hurt=1))

    assert (calm["incidents"][0]["recovery_s"], calm["missed"], calm["down_s"], calm["unrecovered"]) == (0.0, 0, 0.0, 0)
    assert (ends["incidents"][0]["recovery_s"], ends["missed"], ends["down_s"], ends["unrecovered"]) == (None, 100, 10.0, 1)
    assert ends["recovery_worst_s"] is None


def test_what_was_bad_long_before_or_after_a_fault_is_not_its_doing() -> None:
    for start in (20.0, 300.0):
        found = faults(slice(130, 180), Incident("crash", start, start + 5, 1, "replica 1 died"))
        assert (found["missed"], found["incidents"][0]["recovery_s"]) == (0, 0.0)


@pytest.mark.parametrize(("n", "missed"), [(40, 1), (41, 0)])
def test_of_few_requests_all_tell_and_of_more_windows_do(n: int, missed: int) -> None:
    found = faults(slice(20, 21), Incident("crash", 10.0, 11.0, 1, "replica 1 died"), n=n)
    assert found["missed"] == missed


def test_many_faults_are_told_together_and_those_that_cost_most_are_listed() -> None:
    many = [Incident("crash" if k % 2 else "slow", 3.0 * k, 3.0 * k + 1, 0, "broke") for k in range(120)]
    found = faults(slice(200, 260), *many)

    assert (found["count"], len(found["incidents"]), found["by_kind"]) == (120, 100, {"crash": 60, "slow": 60})
    assert found["down_s"] == 60.0
    starts = [row["start_s"] for row in found["incidents"]]
    assert starts == sorted(starts)
    assert {198.0, 201.0, 258.0} <= set(starts)  # of those without harm the first


GONE: dict[str, Any] = {
    "count": 4, "by_kind": {"crash": 3, "slow": 1}, "hurt": 1200, "missed": 5, "down_s": 0.0, "recovery_worst_s": None, "unrecovered": 0, "incidents": (),
}  # fmt: skip


def test_what_is_said_of_faults() -> None:
    assert Faults(**(GONE | {"count": 0})).sentences() == ["nothing broke"]
    said = "4 faults (3 × crash, 1 × slow) cut off 1,200 requests; 5 missed the SLO until it was good again"
    assert Faults(**GONE).sentences() == [said]
    assert Faults(**(GONE | {"recovery_worst_s": 61.4})).sentences() == [f"{said}, which took 61 s at most"]
    rows = summarise(
        record_of(
            np.full(5, 5.0),
            np.arange(5.0),
            slo=Slo(ttft=1.0, attainment=0.95),
            stations={"faults": [Incident("slow", 1.0, 1.0, 0, "a wink"), Incident("crash", 2.0, 9.0, 0, "died", hurt=3)]},
        ),
        renderer=None,
    )
    assert [note for note in rows.notes if note.startswith("at ")] == [
        "at 1 s a wink; it was not good again before the run ended (5 requests missed the SLO)",
        "at 2 s died, until 9 s: 3 requests were cut off; it was not good again before the run ended (5 requests missed the SLO)",
    ]


def test_three_faults_are_told_one_by_one() -> None:
    rows = summarise(
        record_of(
            np.full(5, 0.1),
            np.arange(5.0),
            slo=Slo(ttft=1.0),
            stations={"faults": [Incident("slow", k, k, 0, "a wink") for k in range(3)]},
        ),
        renderer=None,
    )
    assert [note for note in rows.notes if "a wink" in note] == [
        f"at {k} s a wink; the SLO was held all the time" for k in range(3)
    ]


def test_two_requests_have_a_window_too() -> None:
    record = record_of([5.0, 5.0], [0.0, 1.0], slo=Slo(ttft=1.0), stations={"faults": [Incident("slow", 3.0, 3.0, 0, "a wink")]})
    assert summarise(record, renderer=None).summary["faults"]["missed"] == 2
