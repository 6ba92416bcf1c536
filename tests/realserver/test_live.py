"""The same against a server of today: opt-in, with SERVESIM_REAL_VLLM=1 (see `live`)."""

import json
import os

import numpy as np
import pytest

from sim.fleet.build import plan
from sim.study.accuracy import accuracy, read_points
from sim.study.accuracy.step_log import read_step_log
from sim.study.calibrate import calibrate
from tests.realserver import live
from tests.realserver.files import HERE, server
from tests.realserver.replay import late_as_logged

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("SERVESIM_REAL_VLLM") != "1", reason="installs and serves vLLM for 12 minutes: SERVESIM_REAL_VLLM=1"
    ),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    work = tmp_path_factory.mktemp("live")
    live.campaign(live.install(work / "venv"), live.model(work / "model", HERE / "model.json"), work / "results")
    return work / "results"


@pytest.mark.parametrize("name", list(live.RUNS))
def test_definitions(results, name):
    told = json.loads((results / f"{name}.json").read_text())
    (read,) = read_points([results / f"{name}.json"], server())

    for ours, theirs in (("ttft_s", "ttft"), ("tpot_s", "tpot"), ("itl_s", "itl"), ("e2e_s", "e2el")):
        for statistic in ("mean", "p99"):
            assert read.measured[f"{ours}.{statistic}"] == pytest.approx(told[f"{statistic}_{theirs}_ms"] / 1e3, rel=1e-9)


@pytest.mark.parametrize(("name", "clients"), [("c1A", 1), ("c4A", 4), ("preempt", 16)])
def test_steps(results, name, clients):
    told = json.loads((results / f"{name}.json").read_text())
    (log,) = read_step_log(results / f"{name}.log")
    real = [tuple(row) for row in log.steps.tolist()]

    ours, late = late_as_logged(plan(server())[0], told["input_lens"], told["output_lens"], clients, real, len(real) // 10)

    same = next((i for i, (a, b) in enumerate(zip(ours.steps, real, strict=False)) if a != b), len(real))
    assert same >= 0.9 * len(real), (late, ours.steps[same], real[same])


def test_the_other_half_is_predicted(results):
    names = ("c1", "c4", "c16")
    first, second = ([results / f"{n}{half}.json" for n in names] for half in "AB")
    done = calibrate([*first, *(results / f"{n}A.log" for n in names)], scenario=server())
    judged = accuracy(second, scenario=server(), overrides=done.overrides).outcomes
    fitted = [p.measured for p in read_points(first, server())]

    for metric in ("tpot_s.mean", "e2e_s.mean"):
        off = np.median([abs(o.errors()[metric]) for o in judged])
        repeated = np.median([abs(a[metric] / o.point.measured[metric] - 1) for a, o in zip(fitted, judged, strict=True)])
        assert off <= max(1.5 * repeated, 0.1)
