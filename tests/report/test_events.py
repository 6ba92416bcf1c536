"""Faults, storms and earlier attempts are seen: in the report, on its time axes, in the trace."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

import sim
from sim.metrics.sections.kv_tiers import KvTiers, TierSeries, TiersOverTime
from sim.report.events import tier_figures
from sim.report.exports.perfetto import events
from sim.report.figures import run_figures

TEXT = """
name: seen
model: llama-3.1-8b
traffic: {synthetic: {arrival: {process: poisson, rate: 30/s}, lengths: {kind: azure-2023-conv}, requests: 900}}
deployment: {accelerator: h100-sxm, replicas: 2, engine: {name: vllm}}
router: least_outstanding
clients: {name: openai, timeout: 20s}
faults: [{name: crash, replica: 1, at: 10s, for: 6s}, {name: slow, replica: 0, at: 20s, for: 3s}]
slo: {ttft: 1s}
"""


@pytest.fixture(scope="module")
def result() -> Any:
    return sim.run(sim.loads(TEXT))


def test_every_time_axis_has_the_faults(result: Any) -> None:
    timed = {f.name: f for f in run_figures(result)["time"]}
    assert {"requests", "kv", "batch", "ttft-time", "attempts"} <= set(timed)
    for figure in timed.values():
        starts = {s["x0"] for s in figure.spec["layout"]["shapes"] if s.get("yref") == "paper"}
        assert {10.0, 20.0} <= starts, figure.name
        assert any("replica 1 died" in n["text"] for n in figure.spec["layout"]["annotations"])
    assert not any("died" in json.dumps(f.spec) for f in run_figures(result)["latency"])


def test_the_summary_and_the_screen_say_when(result: Any) -> None:
    found = [e for e in result.summary["events"]["events"] if e["kind"] == "fault"]
    assert [(e["start_s"], e["end_s"]) for e in found] == [(10.0, 16.0), (20.0, 23.0)]
    assert any("at 10 s replica 1 died, until 16 s" in note for note in result.notes)
    series = result.summary["clients"]["series"]
    width = series["time_s"][1] - series["time_s"][0]
    assert sum(series["attempts_per_s"]) * width == pytest.approx(result.summary["clients"]["attempts"], rel=1e-6)


def test_the_trace_follows_a_request_through_its_attempts(result: Any) -> None:
    c = result.columns
    again = [k for k in range(len(c["id"])) if c["attempts"][k] > 1 and c["status"][k] == 0]
    assert again
    stages: dict[int, list[tuple[str, float]]] = {}
    named = []
    for e in events(result):
        if e["ph"] == "b" and e["pid"] == 1:
            stages.setdefault(e["id"], []).append((e["name"], e["ts"]))
        elif e["ph"] == "b" and e["pid"] == 2:
            named.append(e["name"])
    for k in again[:20]:
        names = [name for name, _ in stages[int(c["id"][k])]]
        assert names[1:5] == ["earlier attempts", "gateway", "queue", "prefill"]
        start = dict(stages[int(c["id"][k])])["gateway"]
        assert start == pytest.approx(c["sent_s"][k] * 1e6, abs=1.0)
        assert c["sent_s"][k] > c["arrival_s"][k]
    assert "replica 1 died" in named


def test_it_survives_the_disk(result: Any, tmp_path: Any) -> None:
    result.save(tmp_path / "r")
    back = sim.load_result(tmp_path / "r")
    assert back.summary["faults"]["incidents"][0]["hurt"] == result.summary["faults"]["incidents"][0]["hurt"]
    assert (back.columns["attempts"] == result.columns["attempts"]).all()


def test_a_last_bin_of_a_few_moments_does_not_tower_above_all_others() -> None:
    nothing = (0.0, 0.0, 0.0)
    section = object.__new__(KvTiers)
    for end, shown in ((20.5, 2), (24.0, 3)):  # of 10 s each, the last of 1 s, or of 8
        series = TiersOverTime(10.0, (5.0, 15.0, end), (TierSeries("cpu", (1.0, 1.0, 99.0), nothing, nothing, nothing),))
        object.__setattr__(section, "series", series)
        result = SimpleNamespace(summary=SimpleNamespace(extras={KvTiers.name: section}))
        for figure in tier_figures(cast("Any", result)):
            assert all(len(cast("Any", trace)["x"]) == len(cast("Any", trace)["y"]) == shown for trace in figure.spec["data"])
