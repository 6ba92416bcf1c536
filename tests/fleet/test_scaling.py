"""Autoscaling in the fleet: nothing is lost, nothing is served by who is not ready, and only what exists counts."""

from itertools import pairwise
from math import ceil, isnan

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sim
from sim.errors import ConfigError, NotModelledError
from sim.metrics.laws import check_laws
from sim.metrics.scaling import Life, Scaling, counts, existed
from sim.metrics.series import fleet
from sim.report import html, terminal
from sim.report.figures import time_figures
from sim.study import single

BASE = """
model: llama-3.1-8b
traffic:
  synthetic:
    arrival: {process: constant, rate: 8/s}
    lengths: {kind: fixed, prompt_tokens: 300, output_tokens: 60}
    requests: 1500
deployment:
  accelerator: h100-sxm
  engine: {name: vllm, max_model_len: 4096}
router: least_outstanding
scaling:
  name: eas
  max: 6
  targets: {qps: 3/s}
  scale_in_stabilization: 30s
  scale_to_zero_grace: 40s
  startup: {provision: 4s, image: 3s, load_bandwidth: 8GB, warmup: 1s}
"""
COLD = 4 + 3 + 16.06 / 8 + 1  # weights of 8.03 B parameters in 2 bytes
SCRIPT = '''
from sim.policy.scaler import Scaler, ScalerParams


class Params(ScalerParams):
    script: tuple[tuple[float, int], ...]
    own: int | None = None


class Scripted(Scaler):
    """What a script says."""

    name = "scripted"
    Params = Params

    def __init__(self, params):
        super().__init__(params)
        self.dedicated = params.own

    def decide(self, now, current, metrics):
        return [n for t, n in self.params.script if t <= now][-1]
'''


def load(*overrides):
    return sim.loads(BASE, overrides)


def run(scenario, **how):
    """Result and record of a run whose laws were checked."""
    seen = []

    def keep(*facts, make=single._record):
        seen.append(make(*facts))
        return seen[-1]

    study = single.Prepared(scenario)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "_record", keep)
        result = study.run(**how)
    if not result.summary["requests"]["in_flight"]:  # times of a client go beyond the end of the engines
        check_laws(seen[0])
    check_lives(result, seen[0])
    return result, seen[0]


def check_lives(result, record):
    lives, r, s = record.scaling.lives, result.columns, result.summary
    late = 0.5  # of a client who sees the last token after the replica has gone
    served = ~np.isnan(r["first_scheduled_s"])
    for replica, first, last in zip(r["replica"][served], r["first_scheduled_s"][served], r["finish_s"][served], strict=True):
        mine = [x for x in lives if x.replica == replica and x.ready <= first and not first > x.gone + late]
        assert mine
        assert isnan(last) or isnan(mine[-1].gone) or last <= mine[-1].gone + late
    for x in lives:
        times = [t for t in (x.asked, x.born, x.ready, x.drain, x.gone) if not isnan(t)]
        assert times == sorted(times)
        assert not isnan(x.drain) or isnan(x.ready) or isnan(x.gone)  # who served was drained
    for replica in {x.replica for x in lives}:
        mine = [x for x in lives if x.replica == replica]
        assert all(a.gone <= b.asked for a, b in pairwise(mine))
    steps = s["scaling"]["steps"]
    assert max(steps["exist"]) <= record.scaling.most
    assert all(b <= a for a, b in zip(steps["exist"], steps["serving"], strict=True))
    horizon = s["simulated_s"]
    assert s["scaling"]["replicas_mean"] * horizon == pytest.approx(record.alive_s.sum(), abs=1e-6)
    assert result.series["width_s"].sum() == pytest.approx(record.alive_s.sum(), rel=1e-6, abs=1e-6)
    count = s["requests"]
    assert count["injected"] == count["finished"] + count["rejected"] + count["failed"] + count["in_flight"]


@pytest.fixture
def scripted(tmp_path):
    """Overrides that scale by a script."""
    file = tmp_path / "own.py"
    file.write_text(SCRIPT)

    def make(*script, **more):
        given = ", ".join(f"{k}: {v}" for k, v in ({"max": 6, "interval": "1s", "targets": "{qps: 1}"} | more).items())
        startup = "{provision: 4s, image: 3s, load_bandwidth: 8GB, warmup: 1s}"
        return f"scaling={{name: '{file}:Scripted', script: {[list(x) for x in script]}, startup: {startup}, {given}}}"

    return make


@pytest.mark.parametrize(
    ("rate", "start", "settles"), [(8, 1, 3), (8, 6, 3), (5, 1, 2), (9.3, 1, 4), (9.3, 3, 3), (1, 2, 1), (60, 1, 6)]
)
def test_under_constant_load_there_are_as_many_as_the_target_asks_for(rate, start, settles):
    requests = int(200 * rate)
    result, _ = run(
        load(f"traffic.synthetic.arrival.rate={rate}", f"traffic.synthetic.requests={requests}", f"deployment.replicas={start}")
    )
    steps = result.summary["scaling"]["steps"]

    assert settles in (min(ceil(rate / 3), 6), start)  # start: within a tenth of the target
    assert steps["wanted"][-1] == steps["serving"][-1] == steps["exist"][-1] == settles
    assert steps["time_s"][-1] < 150


def test_the_first_request_after_scaling_to_zero_waits_for_a_cold_start():
    stages = "[{rate: 2, duration: 60}, {rate: 0, duration: 400}, {rate: 2, duration: 1000}]"
    result, record = run(
        load(
            f"traffic.synthetic.arrival={{process: stages, stages: {stages}}}", "scaling.min=0", "traffic.synthetic.requests=300"
        )
    )
    r, s = result.columns, result.summary["scaling"]
    first = int(np.flatnonzero(r["arrival_s"] > 460)[0])
    again = [x for x in record.scaling.lives if x.asked > 460]

    assert 0.0 in s["steps"]["exist"]
    assert again[0].replica == 0
    assert again[0].ready == pytest.approx(again[0].asked + COLD, abs=0.02)
    assert 0 <= again[0].asked - r["arrival_s"][first] <= 15
    assert 0 < r["first_scheduled_s"][first] - again[0].ready < 0.3  # the front end of the engine
    waited = (r["arrival_s"] > 460) & (r["arrival_s"] < again[0].ready)
    assert result.summary["fleet"]["gateway_waited"] == waited.sum() > 0
    assert (np.diff(r["first_scheduled_s"][waited]) >= 0).all()
    assert s["while_starting"]["ttft_p99_s"] > 5 > 1 > s["otherwise"]["ttft_p99_s"]
    assert s["accelerator_hours"] * 3600 == pytest.approx(record.alive_s.sum())
    assert "cold start takes 10 s" in " ".join(result.notes)


def test_only_what_exists_counts(scripted):
    plan = scripted((0, 1), (20, 3), (60, 1), (100, 2), (101, 1))
    result, record = run(load(plan, "traffic.synthetic.requests=1200"))
    s, lives = result.summary, record.scaling.lives
    end = s["simulated_s"]

    assert [(x.replica, x.asked, x.drain) for x in lives[1:3]] == [(1, 20, 60), (2, 20, 60)]
    assert [x.born for x in lives[1:3]] == [24, 24]
    assert all(60 <= x.gone < 63 for x in lives[1:3])
    assert (lives[3].asked, lives[3].gone) == (100, 101)  # called off before its machine was there
    assert isnan(lives[3].born)
    held = [end, lives[1].gone - 24, lives[2].gone - 24]
    assert record.alive_s == pytest.approx(held)
    assert s["scaling"]["accelerator_hours"] * 3600 == pytest.approx(sum(held))
    assert s["scaling"]["accelerator_hours_at_max"] * 3600 == pytest.approx(6 * end)
    assert s["context"]["accelerators"] == pytest.approx(sum(held) / end)
    rates = s["throughput"]
    assert rates["output_tokens_per_s_per_accelerator"] * s["context"]["accelerators"] == pytest.approx(
        rates["output_tokens_per_s"]
    )
    assert s["utilisation"]["busy"] == pytest.approx(record.parts.sum() / sum(held), rel=1e-3)
    assert s["bottleneck"]["shares"]["idle"] == pytest.approx(1 - s["utilisation"]["busy"])
    assert [row["busy"] for row in s["replicas"]] == pytest.approx((record.parts.sum(axis=1) / held).tolist(), rel=1e-3)
    assert len(s["replicas"]) == s["context"]["replicas"] == 3
    assert [what for _, what, k in s["scaling"]["events"] if k == 2] == ["scale out", "loading", "ready", "draining", "gone"]


def test_the_report_and_the_series_show_the_replicas(scripted):
    result, _ = run(load(scripted((0, 1), (20, 3), (60, 1)), "traffic.synthetic.requests=800"))
    figure = time_figures(result)[0]
    exist, serving, wanted = figure.spec["data"]
    level = fleet(result.series, 200)

    assert figure.name == "scaling"
    assert [exist["name"], serving["name"], wanted["name"]] == ["exist", "serve", "wanted"]
    assert exist["x"][-1] == pytest.approx(result.summary["simulated_s"], rel=1e-4)
    assert (max(exist["y"]), serving["y"][-1], wanted["y"][:2]) == (3, 1, [1, 3])
    middle = (level["time_s"] > 25) & (level["time_s"] < 55)
    assert level["replicas"][middle] == pytest.approx(3, abs=1e-6)
    assert level["replicas"][(level["time_s"] < 18) | (level["time_s"] > 65)] == pytest.approx(1, abs=1e-6)
    page = html.render(result)
    assert "Replicas through the run" in page
    assert "accelerator hours" in page
    cold = [row for row in result.evidence if row["what"].startswith("cold start")]
    assert [row["grade"] for row in cold] == ["given"] * 4
    assert "3 at most" in terminal.text(result)


def test_public_machines_come_last_and_go_first(scripted):
    plan = scripted((0, 2), (10, 4), (50, 2), (80, 3), own=2)
    result, record = run(load(plan, "deployment.replicas=1", "traffic.synthetic.requests=1200"))
    lives = record.scaling.lives

    assert [(x.replica, x.asked) for x in lives] == [(0, 0), (1, 1), (2, 10), (3, 10), (2, 80)]
    assert [x.born - x.asked for x in lives[1:]] == [0, 4, 4, 4]  # the dedicated group has its machine
    assert {x.replica for x in lives if x.drain == 50} == {2, 3}
    public = sum(record.alive_s[2:])
    assert result.summary["scaling"]["accelerator_hours_public"] * 3600 == pytest.approx(public)


def test_a_draining_replica_finishes_what_it_has_and_takes_no_more(scripted):
    result, record = run(
        load(
            scripted((0, 4), (40, 1)),
            "deployment.replicas=4",
            "traffic.synthetic.lengths.output_tokens=900",
            "traffic.synthetic.requests=600",
        )
    )
    r, leaving = result.columns, record.scaling.lives[1:]

    assert result.summary["requests"]["finished"] == 600
    for life in leaving:
        mine = r["replica"] == life.replica
        assert r["arrival_s"][mine].max() <= 40
        assert life.gone - 0.2 <= r["finish_s"][mine].max() <= life.gone + 0.5
        assert life.gone > 42


def test_a_replica_that_comes_back_has_an_empty_cache(scripted):
    prefixes = "traffic.synthetic.prefixes={groups: 1, shared_tokens: 320}"
    rate = ("traffic.synthetic.arrival.rate=1", "traffic.synthetic.requests=100", "router=round_robin")
    kept, _ = run(load(scripted((0, 2), max=2), "deployment.replicas=2", prefixes, *rate))
    gone, _ = run(load(scripted((0, 2), (50, 1), (55, 2), max=2), "deployment.replicas=2", prefixes, *rate))

    def missed(result):
        return int((result.columns["cached_tokens"] == 0).sum())

    assert missed(kept) == 2
    assert missed(gone) == 3


ROUTERS = [
    "round_robin",
    "least_outstanding",
    "power_of_two",
    "eas_tokenworks",
    "{name: llumnix, enable_cache_aware_scheduling: true, cache_aware_min_tokens: 100}",
    "{name: llumnix_v0, dispatch_policy: cacheaware}",
    "{name: llumnix_v0, dispatch_policy: balanced, dispatch_load_metric: kv_blocks_ratio}",
    "{name: eas, load_threshold: 2000, gateway: {wait_scheduling_timeout: 3s}}",
]


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("clients", [False, True])
def test_a_fleet_that_never_changes_is_a_fleet_without_scaling(router, clients, scripted):
    given = [f"router={router}", "deployment.replicas=3", "traffic.synthetic.arrival={process: gamma, rate: 40, cv: 3}"]
    given += ["traffic.synthetic.prefixes={groups: 7, shared_tokens: 500}", "traffic.synthetic.requests=700"]
    given += ["traffic.closed_loop={concurrency: 40, think_time: 1s}"] if clients else []
    plain = sim.run(load(*given, "scaling=null"))
    elastic, _ = run(load(*given, scripted((0, 3), max=3)))

    for name, column in plain.columns.items():
        np.testing.assert_array_equal(column, elastic.columns[name], err_msg=name)


@pytest.mark.parametrize("router", [*ROUTERS, "random"])
def test_routers_choose_among_those_who_serve(router, scripted):
    plan = scripted((0, 1), (10, 5), (40, 2), (50, 6), (70, 1), (74, 3))
    traffic = "traffic.synthetic.arrival={process: poisson, rate: 15}"
    result, record = run(load(plan, f"router={router}", traffic, "traffic.synthetic.sessions={turns: [1, 4], think_time: 5s}"))

    assert len(record.scaling.lives) > 8
    assert set(result.columns["replica"]) == set(range(6))
    assert result.summary["requests"]["finished"] + result.summary["requests"]["rejected"] == 1500


def test_the_same_seed_gives_the_same_and_steps_in_one_stroke_change_nothing():
    scenario = load(
        "traffic.synthetic.arrival={process: gamma, rate: 20, cv: 2}", "scaling.targets={gpu: 0.5, queue: 2, kv: 0.5}"
    )
    a, b, c = (run(scenario, **how)[0] for how in ({}, {}, {"multi_step": False}))

    assert a.summary == b.summary
    assert a.requests.equals(b.requests)
    assert a.requests.equals(c.requests)
    assert a.summary["scaling"] == c.summary["scaling"]
    assert a.summary["scaling"]["started"] > 0
    again = sim.run(sim.loads(a.scenario))
    assert {k: v for k, v in again.summary.items() if k != "model_error"} == a.summary  # of `sim.run` alone


@st.composite
def worlds(draw):
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    least, most = draw(st.integers(0, 2)), draw(st.integers(1, 5))
    least = min(least, most)
    stages = "[{rate: 20, duration: 20}, {rate: 0, duration: 60}, {rate: 2, to: 40, duration: 30}]"
    given = [
        f"seed={draw(st.integers(0, 99))}",
        f"router={pick('random', *ROUTERS)}",
        "traffic.synthetic.arrival="
        + pick(
            "{process: gamma, rate: 20, cv: 4}", "burst", "{process: poisson, rate: 3}", f"{{process: stages, stages: {stages}}}"
        ),
        f"traffic.synthetic.lengths.output_tokens={pick(1, 60, 800)}",
        f"traffic.synthetic.requests={pick(1, 40, 400)}",
        f"deployment.replicas={draw(st.integers(max(least, 1), most))}",
        f"deployment.kv_blocks={pick('null', 260)}",
        f"scaling.min={least}",
        f"scaling.max={most}",
        f"scaling.targets={pick('{qps: 2}', '{gpu: 0.3}', '{queue: 1}', '{kv: 0.2}', '{qps: 9, gpu: 0.5, queue: 3, kv: 0.9}')}",
        f"scaling.interval={pick('1s', '7s', '15s')}",
        f"scaling.window={pick('1s', '20s')}",
        f"scaling.scale_in_stabilization={pick('0s', '10s')}",
        f"scaling.scale_to_zero_grace={pick('0s', '25s')}",
        f"scaling.scale_out_delay={pick('0s', '5s')}",
        f"scaling.startup.warmup={pick('0s', '1s', '40s')}",
    ]
    given += pick([], ["traffic.closed_loop={concurrency: 30, think_time: 2s}"])
    given += pick([], ["until=35s"], ["until=0.5s"])
    return given


@settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_whatever_comes_and_goes_every_request_is_accounted_for(given_):
    result, _ = run(load(*given_))

    if not any(o.startswith("until") for o in given_):
        assert result.summary["requests"]["in_flight"] == 0
        if given_[1] not in ROUTERS[4:5] + ROUTERS[-1:]:  # llumnix and eas have gateways, which give up
            assert result.summary["requests"]["rejected"] == 0


def test_levels_and_times_of_lives():
    lives = [Life(0, 0.0, 0.0, 0.0), Life(1, 2.0, 4.0, 6.0, 8.0, 9.0), Life(1, 12.0, gone=13.0), Life(2, 14.0, 18.0)]
    scaling = Scaling("x", 1, 3, 2, [], None, lives, [(0.0, 1), (2.0, 2)])

    assert existed(scaling, 3, 20.0).tolist() == [20.0, 5.0, 2.0]
    assert existed(scaling, 3, 5.0).tolist() == [5.0, 1.0, 0.0]
    assert counts(scaling, 20.0) == {
        "time_s": [0.0, 2.0, 4.0, 6.0, 8.0, 9.0, 18.0],
        "exist": [1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 2.0],
        "serving": [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0],
        "wanted": [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0],
    }


@pytest.mark.parametrize(
    ("override", "error", "says"),
    [
        ("deployment.replicas=9", ConfigError, r"deployment\.replicas.*1 to 6"),
        ("scaling.name=eass", ConfigError, "did you mean 'eas'"),
        ("scaling.targets.cpu=0.5", ConfigError, r"scaling\.targets\.cpu"),
        ("scaling={name: hpa, min: 0, max: 3, targets: {qps: 1}}", ConfigError, "does not scale to zero"),
        ("scaling.resource_burstable=true", ConfigError, "dedicated"),
        ("router=vllm_dp", NotModelledError, "fixed set of replicas"),
        ("router={name: llumnix, enable_rescheduling: true}", NotModelledError, "scheduled ahead"),
        ("scaling.pools={main: {max: 2}}", ConfigError, r"scaling\.pools.*no pool"),
        ("scaling.pools=0", ConfigError, r"scaling\.pools: must be a mapping"),
        ("scaling.pools={main: 3}", ConfigError, r"scaling\.pools: must be a mapping"),
    ],
)
def test_what_cannot_be_scaled_is_refused(override, error, says):
    with pytest.raises(error, match=says):
        single.Prepared(load(override)).run()


def test_a_number_of_replicas_is_refused():
    with pytest.raises(ConfigError, match="decides the replicas itself"):
        sim.capacity(load("slo={ttft: 1s}"), replicas=True)
