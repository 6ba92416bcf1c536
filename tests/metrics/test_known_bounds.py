"""Where figures begin and end: the longest spell, the last moment of a run, series of short runs, weights of likeness."""

from __future__ import annotations

from array import array
from math import nan

import numpy as np
import pytest

from sim.metrics.clients import ClientRecord
from sim.metrics.facts import facts_of
from sim.metrics.model_error import _UNLIKE, OWN, Interval, Kind, _likeness, known
from sim.metrics.result import summarise
from sim.metrics.sections.clients import _series
from sim.metrics.sections.kv_pools import KvUse, _pool
from sim.metrics.slo import Slo
from sim.metrics.spell import worst_spell
from sim.metrics.store import write_json
from tests.metrics.records import four_requests, record_of


@pytest.mark.parametrize(("until", "spell"), [(510.0, True), (515.0, False)])
def test_a_spell_lasts_no_longer_than_most_of_the_run(until, spell):
    """Windows are of 50 requests, 120 of them: 102 are 85 %."""
    arrival = np.arange(6001) / 10.0
    columns = {"arrival_s": arrival, "first_scheduled_s": arrival, "finish_s": arrival + 1.0}
    found = worst_spell(columns, arrival >= until, np.ones(6001, bool), 0.95)
    assert (found is not None) == spell


def test_a_run_ends_with_its_last_answer_or_with_its_clock_where_requests_are_left():
    record = four_requests()
    record.totals["last_s"] = 20.0
    columns = summarise(record).columns
    assert facts_of(record, columns, 0.0).last == 10.0
    left = columns | {"status": np.array([0, 0, 1, 3], np.int8)}
    assert facts_of(record, left, 0.0).last == 20.0
    assert facts_of(record, left, 0.0).horizon == 20.0


@pytest.mark.parametrize("failed", [[], [0.3]])
def test_the_series_of_clients_ends_with_the_run(failed):
    found = _series(np.array([0.0, 0.1, 0.4]), ClientRecord("openai", retries_s=np.array([0.2]), failed_s=np.array(failed)), 0.5)
    assert found.time_s == pytest.approx((0.125, 0.375))
    assert found.wanted_per_s == pytest.approx((8.0, 4.0))
    assert found.attempts_per_s == pytest.approx((12.0, 4.0))
    assert found.failed_per_s == pytest.approx((0.0, 4.0 * len(failed)))


def test_a_model_without_a_replica_is_idle():
    record = record_of([1.0, 1.0], stations={"models": {"a": ("pool",), "b": ("other",)}}, replica_names=["pool 0"])
    record.requests["model"] = np.array([0, 1])
    rows = summarise(record).summary.models.rows
    assert [(r.replicas, r.busy) for r in rows][1] == (0, 0.0)


def test_what_differs_weighs_less_by_each_property():
    kind = Kind("vllm", "h100_sxm", "0.14")
    others = [kind, kind._replace(engine="tgi"), kind._replace(engine="tgi", line="3.0")]
    assert _likeness([kind], others)[0].tolist() == pytest.approx([1.0, _UNLIKE["engine"], _UNLIKE["engine"] * _UNLIKE["line"]])
    assert _likeness(others, [kind])[:, 0].tolist() == _likeness([kind], others)[0].tolist()


def test_ones_own_measurements_count_before_the_record():
    kind = Kind("vllm", "h100_sxm", "0.14")
    assert known(kind, "tpot_s.mean", {"tpot_s.mean": (0.9, 1.2, 7.0)}) == Interval(0.9, 1.2, 7, OWN)
    others = known(kind, "ttft_s.mean", {"tpot_s.mean": (0.9, 1.2, 7.0)})
    assert others == known(kind, "ttft_s.mean")
    assert others is not None and others.words != OWN


@pytest.mark.parametrize(("bins", "points"), [(3, 3), (200, 200), (201, 101), (900, 180)])
def test_a_long_series_of_a_pool_is_folded_to_two_hundred_points_at_most(bins, points):
    level = np.linspace(0.0, 50.0, bins)
    figures = np.array([[[level.sum(), 50.0, 0.0]]])
    use = KvUse("main", [("kv", 100, "blocks")], figures, level[None, :, None], np.array([1.0]), False)
    found = _pool(use, 0, float(bins))
    assert len(found.used) == points
    assert found.bin_s == -(-bins // 200)
    fold = int(found.bin_s)
    assert found.used[0] == pytest.approx(level[:fold].mean() / 100)
    assert found.used[-1] == pytest.approx(level[(points - 1) * fold :].mean() / 100)


def test_clients_without_trouble_have_none_on_record():
    record = ClientRecord("openai")
    record.close(record.waste, {"b": 1, "a": 2}, array("d", [3.0, 1.0]), array("d"), array("d"), array("d"))
    assert record.retries_s.tolist() == [1.0, 3.0]
    assert record.hedges_s.size == record.failed_s.size == record.given_up_s.size == 0
    assert list(record.failures) == ["a", "b"]


@pytest.mark.parametrize(("complete", "left"), [(True, 3), (False, 3), (True, 0)])
def test_requests_in_flight_are_named_where_a_run_was_not_cut_short(complete, left):
    record = record_of([1.0, 1.0], complete=complete)
    record.requests["status"][1] = left
    said = summarise(record).warnings
    assert any("still in flight" in w for w in said) == (complete and left == 3)
    assert any("interrupted" in w for w in said) == (not complete)


def test_a_run_that_meets_its_slo_has_no_spell():
    """Nor is one looked for: what is missed rarely and all at once is allowed."""
    arrival = np.arange(6000) / 10.0
    late = (arrival >= 200) & (arrival < 215)
    told = [
        summarise(record_of(np.where(late, 9.0, 0.1), arrival, slo=Slo(ttft=1.0, attainment=a))).summary for a in (0.95, 0.99)
    ]
    assert [s.slo.met for s in told] == [True, False]
    assert told[0].spell is None
    assert told[1].spell is not None and told[1].spell.start_s == pytest.approx(200, abs=10)


def test_nan_is_never_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json({"x": nan}, tmp_path / "x.json")
