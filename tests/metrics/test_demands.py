"""What is asked of classes and of percentiles, and who is said to miss it."""

import json

import numpy as np
import pytest

import sim
from sim.config.slo import ClassSlo
from sim.config.slo import Slo as Section
from sim.errors import ConfigError
from sim.metrics.result import summarise
from sim.metrics.slo import Slo, asked, loosest
from sim.report import words
from tests.metrics.records import record_of


def test_percentiles_are_shares_of_all_requests():
    slo = Slo.of({"ttft": {"p50": 1.0, "p90": 3.0}, "attainment": 0.99})
    assert slo.targets() == {"ttft_s": 3.0}
    assert slo.strict() == {}
    assert slo.required == 0.9
    ttft = np.arange(1, 11) * 0.4  # 0.4 … 4.0: two of ten within 1 s, seven within 3 s
    s = summarise(record_of(ttft=ttft, slo=slo)).summary.slo
    assert [(d.percentile, d.attainment, d.met) for d in s.demands] == [("p50", 0.2, False), ("p90", 0.7, False)]
    assert s.met is False
    assert s.required == 0.9
    assert s.effective == pytest.approx(1 - 0.1 * max(0.8 / 0.5, 0.3 / 0.1))
    held = summarise(record_of(ttft=ttft, slo=Slo.of({"ttft": {"p50": 2.0, "p90": 3.6}}))).summary.slo
    assert held.met is True
    assert held.effective == pytest.approx(0.9)


def test_each_and_percentiles_are_both_asked():
    slo = Slo.of({"ttft": {"each": 5.0, "p50": 1.0}, "e2e": 9.0, "attainment": 0.8})
    assert slo.targets() == {"ttft_s": 5.0, "e2e_s": 9.0} == slo.strict()
    s = summarise(record_of(ttft=np.full(10, 2.0), slo=slo)).summary.slo
    assert [(d.target, d.met) for d in s.demands] == [("joint", True), ("ttft_s", False)]
    assert s.attainment["joint"] == 1.0
    assert s.effective < 0.8


def test_one_demand_is_the_joint_attainment():
    s = summarise(record_of(ttft=np.linspace(0.1, 2, 20), slo=Slo(ttft=1.05))).summary.slo
    assert s.effective == s.attainment["joint"] == s.demands[0].attainment == 0.5


def test_a_class_with_targets_of_its_own_fails_by_itself():
    klass = np.repeat([0, 1], [990, 10])
    ttft = np.where(klass == 1, 3.0, 0.5)
    own = {1: Slo.of(ClassSlo(ttft="2s").model_dump(), Slo(ttft=1.0))}
    record = record_of(ttft=ttft, klass=klass, slo=Slo(ttft=1.0), class_slo=own, class_names=("chat", "code"))
    s = summarise(record).summary
    assert s.slo.attainment["joint"] == 0.99  # of all: what an average hides
    assert s.slo.met is False
    assert [(d.klass, d.met) for d in s.slo.demands] == [(None, True), ("code", False)]
    assert s.slo.effective < 0.99
    assert s.classes[1].met is False
    assert "met" not in s.classes[0]
    state, sentence = words.verdict(s)
    assert state == "misses"
    assert "class code, none of requests meet their targets" in sentence
    assert "class code" in str(summarise(record))
    looser = {1: Slo.of(ClassSlo(ttft="4s").model_dump(), Slo(ttft=1.0))}
    kept = summarise(record_of(ttft=ttft, klass=klass, slo=Slo(ttft=1.0), class_slo=looser, class_names=("chat", "code")))
    assert kept.summary.slo.met is True
    assert words.verdict(kept.summary)[0] == "holds"


def test_a_class_that_is_asked_for_other_metrics_misses_no_others():
    klass = np.repeat([0, 1], 5)
    record = record_of(ttft=np.full(10, 2.0), klass=klass, slo=Slo(ttft=1.0), class_slo={1: Slo(e2e=100.0)})
    s = summarise(record).summary.slo
    assert s.attainment == {"ttft_s": 0.5, "e2e_s": 1.0, "joint": 0.5}
    assert [d.attainment for d in s.demands] == [0.0, 1.0]


def test_tenants_and_sessions():
    session = np.array([7, 7, 7, 9, 9, -1])
    record = record_of(
        ttft=np.array([0.5, 0.5, 0.5, 0.5, 3.0, 0.1]),
        arrival=np.array([0.0, 10.0, 11.0, 5.0, 20.0, 1.0]),
        e2e=np.array([2.0, 2.0, 3.0, 1.0, 4.0, 1.0]),
        session=session,
        tenant=np.array([1, 1, 1, 2, 2, 2]),
        tenant_names=("acme", "globex"),
        slo=Slo(ttft=1.0),
    )
    result = summarise(record)
    s = result.summary
    assert [(r["name"], r["requests"]) for r in s.tenants["rows"]] == [("acme", 3), ("globex", 3)]
    assert s.tenants["rows"][1]["attainment"] == pytest.approx(2 / 3)
    assert (s.sessions["count"], s.sessions["whole"], s.sessions["met"], s.sessions["requests_mean"]) == (2, 2, 0.5, 2.5)
    table = result.sessions
    assert table["session"].tolist() == [7, 9]
    assert (table["end_s"] - table["start_s"]).tolist() == [14.0, 19.0]
    assert table["served_s"].tolist() == [2.0 + 4.0, 1.0 + 4.0]  # 10–12 and 11–14 overlap
    assert result.tenants["name"].tolist() == ["acme", "globex"]
    assert set(result.requests) >= {"tenant", "session"}


@pytest.mark.parametrize(
    ("slo", "wrong"),
    [
        ({"ttft": "3s", "e2e": "2s"}, "before the end"),
        ({"ttft": {"p95": "3s"}, "e2e": {"p95": "2s"}}, r"ttft\.p95"),
        ({"ttft": {"p50": "3s", "p95": "2s"}}, r"ttft\.p50 .* above ttft\.p95"),
        ({"ttft": {"p95": "3s", "each": "2s"}}, r"ttft\.p95 .* above ttft\.each"),
        ({"ttft": {"p0": "3s"}}, "no percentile"),
        ({"ttft": {"median": "3s"}}, "no percentile"),
        ({"ttft": {}}, "needs a time"),
        ({"ttft": {"p95": 0}}, "greater than 0"),
    ],
)
def test_targets_that_make_no_sense(slo, wrong):
    with pytest.raises(ConfigError, match=wrong):
        sim.load("quickstart", [f"slo={json.dumps(slo)}"])


def test_targets_of_all_classes_together():
    classes = {"a": {"slo": {"ttft": "1s"}}, "b": {"slo": {"ttft": {"p50": "3s"}, "attainment": 0.9}}, "c": {}}
    source = {"synthetic": {"arrival": {"process": "poisson", "rate": 1}, "lengths": "azure-2023-conv"}}
    text = json.dumps({"classes": {k: v | source for k, v in classes.items()}})
    scenario = sim.load("quickstart", [f"traffic={text}", "slo={ttft: 2s, tpot: 50ms, attainment: 0.95}"])
    slo, share = loosest(scenario)
    assert (slo.ttft, slo.tpot, share) == (3.0, None, 0.5)
    assert asked(scenario)
    assert Section(ttft={"p95": "2s"}).ttft == {"p95": 2.0}
    assert Section(ttft={"each": "2s"}).ttft == 2.0


def test_goodput_is_without_start_and_drain():
    n = 1000
    record = record_of(ttft=np.full(n, 0.1), arrival=np.arange(n) * 0.1, e2e=np.full(n, 20.0), slo=Slo(ttft=1.0))
    s = summarise(record).summary
    assert s.slo.goodput_requests_per_s == s.steady.goodput_requests_per_s == pytest.approx(10.0, rel=1e-2)
    assert s.throughput.requests_per_s == pytest.approx(n / 119.9, rel=1e-3)
