"""Autoscalers that rest on their own figures, measured cold starts, machines that go: each against what is known of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim import registry
from sim.config import settings as made_of
from sim.errors import ConfigError
from sim.policy.scaler import Fleet
from sim.policy.startup import Startup, cold_starts
from sim.study.single import Prepared

BASE = """
model: llama-3.1-8b
traffic:
  synthetic:
    arrival: {process: stages, stages: [{rate: 2/s, duration: 120s}, {rate: 30/s, duration: 300s}, {rate: 1/s, duration: 600s}]}
    lengths: {kind: fixed, prompt_tokens: 500, output_tokens: 60}
    requests: 9840
deployment: {accelerator: h100-sxm, engine: {name: vllm, max_model_len: 4096, max_num_seqs: 8}}
router: least_outstanding
slo: {ttft: 2s}
"""
QUICK = "startup: {provision: 5s, image: 2s, load_bandwidth: 10GB, warmup: 8s}"
SCALERS = {
    "kpa": "container_concurrency_target_default: 8",
    "ray_serve": "target_ongoing_requests: 6, downscale_delay_s: 60, interval: 1s",
    "keda": "threshold: 3, scale_down_stabilization: 60s",
    "wva": "interval: 15s",
    "predictive": "qps: 6/s, horizon: 20s, scale_in_stabilization: 60s",
}


def pool(running: list[float], waiting: list[float] | None = None, kv: list[float] | None = None, **more: Any) -> Fleet:
    n = len(running)
    given = {"current": n, "outside": 0, "arrived": 0} | more
    return Fleet(
        given["current"], np.array(running, float), np.array(waiting or [0.0] * n), np.array(kv or [0.0] * n), given["outside"],
        given["arrived"],
    )  # fmt: skip


def scaler(name: str, **given: Any) -> Any:
    cls = registry.lookup("scaler", name)
    return cls(made_of(cls.Params, {"max": 50} | given, "scaling"))


@pytest.mark.parametrize("name", SCALERS)
def test_each_follows_load_up_and_down(name: str) -> None:
    given = f"scaling={{name: {name}, min: 1, max: 8, {QUICK}, {SCALERS[name]}}}"
    made = Prepared(sim.loads(BASE, [given]))
    result = made.run()
    s = result.summary
    assert s["requests"]["finished"] == s["requests"]["injected"]
    steps = s["scaling"]["steps"]
    wanted = np.array(steps["wanted"])
    times = np.array(steps["time_s"])
    peak = wanted[(times > 120) & (times <= 425)].max()
    assert peak >= 3
    assert wanted[-1] <= 2
    again = made.run()
    for column in result.requests:
        assert result.requests[column].to_numpy().tobytes() == again.requests[column].to_numpy().tobytes()


def test_knative_from_zero_and_back() -> None:
    text = BASE.replace("stages: [{rate: 2/s, duration: 120s}, {rate: 30/s, duration: 300s}, {rate: 1/s, duration: 600s}]",
                        "stages: [{rate: 2/s, duration: 20s}, {rate: 0.001/s, duration: 3000s}, {rate: 2/s, duration: 20s}]")  # fmt: skip
    given = [f"scaling={{name: kpa, min: 0, max: 4, {QUICK}}}", "deployment.replicas=1", "traffic.synthetic.requests=83"]
    s = sim.run(sim.loads(text, given)).summary
    events = [(what, t) for t, what, _ in s["scaling"]["events"]]
    gone = next(t for what, t in events if what == "gone")
    assert 10 + 60 + 30 <= gone < 20 + 60 + 30 + 15  # the window, the grace period, and what was still running
    assert s["requests"]["finished"] == s["requests"]["injected"]


def test_keda_sees_what_was_scraped_and_polled() -> None:
    made = scaler("keda", scrape_interval="15s", polling_interval="30s", min=1)
    assert made.size(0.0, pool([8.0], [0.0]), {}) == 1
    assert made.size(15.0, pool([8.0], [40.0]), {}) == 1  # scraped, not yet polled
    assert made.size(30.0, pool([8.0], [22.0]), {}) == 5
    assert made.size(45.0, pool([8.0] * 5, [0.0] * 5), {}) == 5


def test_the_variant_autoscaler_goes_by_what_is_spare() -> None:
    make = lambda: scaler("wva", min=1)  # noqa: E731
    assert make().size(0.0, pool([9.0], kv=[0.75]), {}) == 2
    assert make().size(0.0, pool([9.0, 9.0], [6.0, 7.0]), {}) == 3  # all saturated
    assert make().size(0.0, pool([9.0, 9.0], kv=[0.5, 0.6]), {}) == 2  # one alone would have 1.1
    assert make().size(0.0, pool([1.0, 1.0], kv=[0.2, 0.3]), {}) == 1
    assert make().size(0.0, pool([9.0], kv=[0.9], current=2), {}) == 2  # one is on its way


def test_a_forecast_follows_a_ramp_exactly() -> None:
    """Of arrivals that grow evenly Holt's forecast is in the end the line itself."""
    made = scaler("predictive", qps="1/s", horizon="60s")
    found = 0.0
    for i in range(200):
        t = 15.0 * i
        found = made.forecast(t, int(0.5 * 0.1 * t * t)) or 0.0
    assert found == pytest.approx(0.1 * (t - 7.5 + 60), rel=0.02)


def test_cold_starts_as_measured() -> None:
    known = cold_starts()
    totals = {name: sum(p.seconds for p in c.phases_s.values()) for name, c in known.items()}
    assert totals["vllm-l40s-first"] == 294
    assert totals["vllm-l40s-cached"] == 82
    assert totals["vllm-h100-tp4-cached"] == pytest.approx(115)
    assert totals["vllm-a100-cached"] == pytest.approx(45)
    assert totals["vllm-a100-first"] == pytest.approx(104)
    assert totals["vllm-h100-nvl-memory"] == pytest.approx(24.5)
    assert totals["vllm-h100-nvl-disk"] == pytest.approx(47.6)
    twice = {p.name: p for p in Startup(measured="vllm-l40s-cached", image=0.0).phases(2 * 16.06e9)}
    assert twice["weights"].seconds == pytest.approx(36)
    assert twice["graph capture"] == ("graph capture", 7, "measured", twice["weights"].source)
    assert twice["image"].grade == "given"
    assert Startup(measured="vllm-l40s-cached").phases(16.06e9, "sglang")[-1].grade == "estimated"
    with pytest.raises(ConfigError, match="vllm-l40s-first"):
        Prepared(sim.loads(BASE, ["scaling={name: kpa, max: 2, startup: {measured: vllm-l40}}"]))
    with pytest.raises(ConfigError, match="leave these out"):
        Prepared(sim.loads(BASE, ["scaling={name: kpa, max: 2, startup: {measured: vllm-l40s-first, warmup: 3s}}"]))
    result = sim.run(
        sim.loads(
            BASE,
            [
                "scaling={name: kpa, max: 4, startup: {measured: vllm-l40s-cached, image: 0s}, container_concurrency_target_default: 8}"
            ],
        )
    )
    assert any("L40S" in str(row["source"]) and row["grade"] == "measured" for row in result.summary["evidence"])
    assert result.summary["scaling"]["cold_start_s"] == pytest.approx(30 + 82, rel=0.01)


STEADY = ["traffic.synthetic.arrival={process: poisson, rate: 12/s}", "traffic.synthetic.requests=4000", "deployment.replicas=3"]


def test_spot_machines_go_with_notice() -> None:
    spot = f"scaling={{name: kpa, min: 3, max: 4, {QUICK}, spot: {{at: [60s, 100s], notice: 30s}}}}"
    result = sim.run(sim.loads(BASE, [*STEADY, spot]))
    s = result.summary
    assert s["fleet"]["spot_reclaimed"] == 2
    assert s["fleet"]["spot_cut_off"] == 0  # 30 s are enough for answers of a second
    assert s["requests"]["finished"] == 4000
    drained = [t for t, what, _ in s["scaling"]["events"] if what == "draining"]
    assert drained[:2] == [60.0, 100.0]
    assert [e["start_s"] for e in s["events"]["events"] if e["words"].endswith("taken back")] == [60.0, 100.0]
    ready = [t for t, what, _ in s["scaling"]["events"] if what == "ready"]
    assert 60 + 16 < ready[0] < 60 + 16 + 3


def test_without_notice_requests_are_lost() -> None:
    spot = f"scaling={{name: kpa, min: 3, max: 4, {QUICK}, spot: {{at: [60s], notice: 0s}}}}"
    result = sim.run(sim.loads(BASE, [*STEADY, spot, "traffic.synthetic.lengths.output_tokens=400"]))
    s = result.summary
    assert s["fleet"]["spot_cut_off"] == s["requests"]["failed"] > 0
    failed = result.requests[result.requests["status"] == 2]
    assert failed["finish_s"].nunique() == 1  # all at once; their clients learn it a little later
    assert failed["finish_s"].between(60.0, 60.01).all()


def test_spot_machines_by_chance_leave_those_on_demand_alone() -> None:
    spot = f"scaling={{name: kpa, min: 3, max: 6, {QUICK}, spot: {{mtbf: 60s, notice: 5s, on_demand: 1}}}}"
    made = Prepared(sim.loads(BASE, [*STEADY, spot]))
    one, two = made.run(), made.run()
    events = one.summary["scaling"]["events"]
    assert one.summary["fleet"]["spot_reclaimed"] > 5
    assert 0 not in {k for _, what, k in events if what == "draining"}
    assert events == two.summary["scaling"]["events"]


def test_maintenance_takes_machines_out_and_gives_them_back() -> None:
    maintenance = "maintenance: [{start: 50s, duration: 100s, replicas: 2}]"
    window = f"scaling={{name: kpa, min: 1, max: 3, {QUICK}, {maintenance}, container_concurrency_target_default: 4}}"
    s = sim.run(sim.loads(BASE, [*STEADY, window])).summary
    steps = s["scaling"]["steps"]
    times, serving, wanted = (np.array(steps[k]) for k in ("time_s", "serving", "wanted"))
    at = lambda t: np.searchsorted(times, t, "right") - 1  # noqa: E731
    assert [serving[at(t)] for t in (49, 55, 100, 149, 190)] == [3, 1, 1, 1, 3]
    assert [wanted[at(t)] for t in (55, 149)] == [1, 1]
    assert s["fleet"]["maintenance_drained"] == 2
    assert [e["start_s"] for e in s["events"]["events"] if "for maintenance" in e["words"]] == [50.0, 50.0]
    assert s["requests"]["finished"] == 4000


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs at or mtbf"):
        Prepared(sim.loads(BASE, ["scaling={name: kpa, max: 2, spot: {notice: 3s}}"]))
    with pytest.raises(ConfigError, match="maintenance takes more"):
        Prepared(sim.loads(BASE, ["scaling={name: kpa, max: 2, maintenance: [{start: 1s, duration: 1s, replicas: 3}]}"]))
    with pytest.raises(ConfigError, match="targets"):
        Prepared(sim.loads(BASE, ["scaling={name: kpa, max: 2, targets: {qps: 3/s}}"]))
    pools = "pools=[{name: p, role: prefill, accelerator: h100-sxm, engine: vllm}, {name: d, role: decode, accelerator: h100-sxm, engine: vllm}]"
    apart = Prepared(sim.loads(BASE, ["deployment=null", pools, "scaling={name: kpa, max: 2, spot: {mtbf: 10s}}"]))
    assert apart.scaling is not None and len(apart.plans) == 2
