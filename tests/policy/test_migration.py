"""Running requests move between replicas, and nothing is lost, doubled or leaked."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.fleet.routers import make_router
from sim.fleet.wiring import wire
from sim.study.single import Prepared

ROOT = Path(__file__).resolve().parents[2]
RESCUE = "pai-migration-rescue"
SMALL = ("traffic.synthetic.requests=250",)
EAGER = ("router.migrate_out_threshold=40", "router.max_migration_concurrency=3", *SMALL)


def study(*overrides, name=RESCUE):
    return Prepared(sim.load(name, overrides=overrides))


def world_of(s, until=np.inf):
    (plan,) = s.plans
    group = plan.build(0, 1.0, (64, 1e-4, 8.0))
    router = make_router(s.scenario.router, plan.replicas, 1)
    return wire([group], [router], s.traffic, until=until, facts=[plan.facts] * plan.replicas)


def test_all_requests_finish_once_and_all_blocks_come_back():
    world = world_of(study(*EAGER))
    world.run()
    rows, look = world.requests(), world.view.look()

    assert world.totals()["fleet_migrations"] > 20
    assert world.totals()["fleet_requests_moved_again"] > 0
    assert rows["id"].tolist() == list(range(world.sent))
    assert set(rows["status"].tolist()) == {0}
    assert look["used_blocks"].tolist() == [0.0] * 4
    assert world.view.outstanding.tolist() == [0] * 4
    assert (rows["finish_s"] > rows["first_token_s"]).all()


@pytest.mark.parametrize("until", [10.0, 30.0, 50.5])
def test_whatever_the_end_every_request_is_accounted_for(until):
    world = world_of(study(*EAGER), until)
    world.run()
    rows = world.requests()

    assert rows["id"].tolist() == list(range(world.sent))
    assert set(rows["status"].tolist()) == {0, 3}


def test_steps_in_one_stroke_change_nothing():
    s = study(*EAGER)
    strokes, steps = s.run(multi_step=True), s.run(multi_step=False)

    assert strokes.summary["fleet"] == steps.summary["fleet"]
    pd.testing.assert_frame_equal(strokes.requests, steps.requests, check_exact=True)


@pytest.mark.parametrize("seed", range(6))
def test_steps_in_one_stroke_change_nothing_whatever_the_settings(seed):
    rng = np.random.default_rng(seed)
    settings = (
        f"seed={seed}",
        f"router.migrate_out_threshold={rng.choice([-3, 5, 30, 80])}",
        f"router.request_migration_policy={rng.choice(['LCR', 'SR', 'LR'])}",
        f"router.migration_bandwidth={rng.choice(['100MB', '2GB', '50GB'])}",
        f"router.migration_last_stage_max_blocks={rng.choice([1, 4, 16, 200])}",
        f"router.max_migration_concurrency={rng.integers(1, 5)}",
        f"deployment.kv_blocks={rng.choice([2010, 2400, 5000])}",
        f"deployment.engine.disable_prompt_cache={rng.choice(['true', 'false'])}",
        f"traffic.synthetic.arrival.rate={rng.integers(2, 8)}/s",
        "traffic.synthetic.requests=120",
    )
    s = study(*settings)
    strokes, steps = s.run(multi_step=True), s.run(multi_step=False)

    assert strokes.summary["fleet"] == steps.summary["fleet"]
    assert strokes.summary["requests"]["finished"] == 120
    pd.testing.assert_frame_equal(strokes.requests, steps.requests, check_exact=True)


def test_compiled_and_plain_are_the_same():
    code = (
        "import sim, json; from sim.study.single import Prepared; "
        f"r = Prepared(sim.load({RESCUE!r}, overrides={(*EAGER[:2], 'traffic.synthetic.requests=200')!r})).run(); "
        "print(json.dumps([r.summary['fleet'], r.requests['finish_s'].sum().hex()]))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | extra,
        ).stdout
        for extra in ({}, {"NUMBA_DISABLE_JIT": "1"})
    ]

    assert outputs[0] == outputs[1] != ""


def test_clients_that_wait_for_answers_get_them_wherever_their_request_went():
    result = study(*EAGER, "traffic.closed_loop={concurrency: 60, think_time: 1s}").run()

    assert result.summary["fleet"]["migrations"] > 5
    assert result.summary["requests"]["finished"] == 250


def test_migration_rescues_scattered_memory():
    on, off = study().run().summary, study("router.enable_migration=false").run().summary

    assert on["latency"]["ttft_s"]["p99"] < 0.6 * off["latency"]["ttft_s"]["p99"]
    assert on["latency"]["itl_s"]["max"] < 0.5 * off["latency"]["itl_s"]["max"]
    assert any("migration moved" in w for w in on["warnings"])
    assert any("scattered over replicas was brought together" in w for w in on["warnings"])


def test_migration_without_need_does_harm_and_the_report_says_why():
    on, off = (study(*o, name="pai-migration-harm").run().summary for o in ((), ("router.enable_migration=false",)))

    assert on["latency"]["tpot_s"]["p99"] > 1.05 * off["latency"]["tpot_s"]["p99"]
    assert on["latency"]["itl_s"]["max"] > 1.5 * off["latency"]["itl_s"]["max"]
    assert any("without gain" in w for w in on["warnings"])


def test_a_destination_without_memory_refuses():
    result = study(*EAGER, "deployment.kv_blocks=2010", "traffic.synthetic.arrival.rate=12/s").run()

    assert result.summary["fleet"]["migrations_aborted"] > 0
    assert result.summary["requests"]["finished"] == 250


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("deployment.engine={name: vllm, async_scheduling: true, max_model_len: 32000}",), "scheduled ahead"),
        (("deployment.engine={name: static}", "deployment.kv_blocks=null"), "not modelled for this engine"),
        (("router.enable_scaling=true",), "cannot run"),
        (("router.request_migration_policy=FCW",), "waiting requests"),
        (("router.pair_migration_policy=balanced",), "TypeError"),
    ],
)
def test_what_is_not_modelled_is_refused(overrides, says):
    with pytest.raises(NotModelledError, match=says):
        study(*SMALL, *overrides).run()


@pytest.mark.parametrize(
    ("router", "says"),
    [
        ("{name: llumnix, scheduling_policy: slo}", "slo_profile"),
        ("{name: llumnix, enable_predictor_enhanced: true}", "not modelled"),
        (
            "{name: llumnix, slo_profile: {prefill_tokens: [1], prefill_ms: [1, 2], batch: [1], tokens: [1], decode_ms: [[1]]}}",
            "fit",
        ),
    ],
)
def test_settings_of_v1_are_checked(router, says):
    with pytest.raises(ConfigError, match=says):
        study(*SMALL, f"router={router}").run()
