"""Figures are fitted to what was measured, as far as it tells of them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

import sim
from sim.cost.profile import load_engine_profile
from sim.errors import ConfigError
from sim.metrics.model_error import OWN, section
from sim.study.accuracy import read_points
from sim.study.accuracy.deploy import planned, profile_of
from sim.study.accuracy.predict import predict
from sim.study.accuracy.report import kind_at
from sim.study.calibrate import Band, Calibration, Fit, bands_of, calibrate, fit_of
from sim.study.fitting import Problem
from tests.study.test_accuracy import point

BATCHES = [{"kind": "static_batch", "batch": b, "prompt_tokens": p, "output_tokens": 64} for b in (1, 8, 64) for p in (128, 2048)]
KEY = ("vllm", "0.12", "h100-sxm")


def measured(figures, **more):
    """Points whose measurements are what the model says with other figures."""
    points = [point(id=f"d{i}/0", traffic=t, version="0.12", **more) for i, t in enumerate(BATCHES)]
    return [replace(p, measured=predict(p, {KEY: figures})) for p in points]


def fitted(points, names):
    profile = profile_of(points[0])
    return Problem((profile.engine, profile.line, "h100-sxm"), points, names, profile).fit()


def test_what_was_hidden_in_the_measurements_is_found():
    found = fitted(measured({"gemm_scale": 1.3, "host_step": 4e-3}), ("gemm_scale", "host_step"))

    assert found.figures["gemm_scale"] == pytest.approx(1.3, rel=0.03)
    assert found.figures["host_step"] == pytest.approx(4e-3, rel=0.05)
    assert found.after["step_s.decode"] < 0.02 < found.before["step_s.decode"]


def test_a_figure_goes_as_far_as_the_data_say():
    found = fitted(measured({"host_step": 60e-3, "sampler_row": 1.5e-3}), ("gemm_scale", "host_step", "sampler_row"))

    assert found.figures["host_step"] == pytest.approx(60e-3, rel=0.1)
    assert found.figures["sampler_row"] == pytest.approx(1.5e-3, rel=0.15)


def test_a_figure_that_is_zero_can_be_found():
    assert profile_of(measured({})[0]).expert_token == 0.0
    moe = {"model": "mixtral-8x7b", "tp": 2}

    found = fitted(measured({"expert_token": 1e-6}, **moe), ("expert_token",))

    assert found.figures["expert_token"] == pytest.approx(1e-6, rel=0.1)


def test_a_figure_on_which_nothing_depends_is_not_called_fitted():
    found = fitted(measured({"host_step": 4e-3}), ("host_step", "comms_scale", "expert_token"))

    assert set(found.figures) == {"host_step"}
    assert found.unmoved == ("comms_scale", "expert_token")


def test_files_that_tell_nothing_of_the_figures_are_refused(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    raw = [
        {
            "id": p.id, "model": p.model, "engine": {"name": "vllm", "version": "0.12"}, "accelerator": "h100_sxm", "traffic": p.traffic,
            "measured": {"step_s": {"decode": p.measured["step_s.decode"]}},
        }
        for p in measured({"host_step": 4e-3})
    ]  # fmt: skip
    (folder / "points.jsonl").write_text("\n".join(map(json.dumps, raw)))

    with pytest.raises(ConfigError, match="nothing in these files depends on any figure"):
        calibrate([tmp_path], figures=("comms_scale", "expert_token"))


def table(tmp_path):
    (tmp_path / "r.csv").write_text("arrival_s,prompt_tokens,output_tokens,ttft_s,e2e_s\n0,100,10,0.5,1.4\n")
    return tmp_path / "r.csv"


def scenario(**changes):
    deployment = {"accelerator": "h100-sxm", "engine": {"name": "vllm", "version": "0.12"}} | changes
    traffic = {
        "synthetic": {
            "arrival": {"process": "poisson", "rate": "1/s"},
            "lengths": {"kind": "fixed", "prompt_tokens": 8, "output_tokens": 8},
        }
    }
    return sim.Scenario.model_validate({"model": "llama-3.1-8b", "traffic": traffic, "deployment": deployment})


def test_figures_reach_the_deployment_of_a_scenario(tmp_path):
    (own,) = read_points([table(tmp_path)], scenario())

    made = planned(own, {KEY: {"host_step": 0.5, "gemm_scale": 3.0}})

    assert (made.profile.host_step, made.profile.gemm_scale) == (0.5, 3.0)
    assert planned(own).profile.host_step != 0.5


def test_the_profile_of_a_scenario_is_where_a_fit_begins(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: vllm\nlines: [{from: '0.12', host_step: 0.25, accelerators: {h100: {host_step: 0.125}}}]\n")
    (own,) = read_points([table(tmp_path)], scenario(profile=str(mine)))

    assert profile_of(own).host_step == 0.125
    assert planned(own, {(str(mine), "0.12", "h100-sxm"): {"host_step": 0.5}}).profile.host_step == 0.5


def test_a_fit_of_an_own_profile_builds_on_it(tmp_path):
    mine, out = tmp_path / "mine.yaml", tmp_path / "out.yaml"
    mine.write_text("base: vllm\nlines: [{from: '0.12', host_step: 0.25, host_row: 0.5}]\n")
    fit = Fit(str(mine), "0.12", "two-cores", 3, {"host_step": 0.75}, {}, {}, {}, "point")
    bands = {"tpot_s.mean": Band((0.7, 1.4), (0.96, 1.04), 0.8, 9)}
    done = Calibration((replace(fit, bands=bands),), None, None)

    done.save(out)

    written = load_engine_profile(str(out), "0.12", "two-cores")
    assert (written.host_step, written.host_row) == (0.75, 0.5)
    assert written.figures["host_step"].evidence == "fitted"
    assert written.band == {"tpot_s.mean": (0.96, 1.04, 9)}
    assert load_engine_profile(str(out), "0.12", "l40s").band == {}
    assert fit_of(json.loads(json.dumps(asdict(done.fits[0])))) == done.fits[0]
    with pytest.raises(ConfigError, match="started from"):
        done.save(mine)


def test_what_a_fit_did_not_see_gives_the_band_of_further_measurements():
    left = {"tpot_s.mean": tuple(np.log([0.97, 1.0, 1.03, 0.99, 1.02])), "ttft_s.mean": (0.0, 0.1)}

    found = bands_of(point(version="0.12"), left)

    assert set(found) == {"tpot_s.mean"}  # two measurements say nothing of a spread
    b = found["tpot_s.mean"]
    assert b.points == 5
    assert b.before[0] < b.after[0] < 1.0 < b.after[1] < b.before[1]
    assert b.inside == pytest.approx(0.8)


def test_the_band_of_a_calibrated_profile_takes_the_place_of_the_record():
    latency = {name: {"mean": 1.0, "p50": 1.0, "p99": 1.0} for name in ("ttft_s", "tpot_s", "e2e_s")}
    found = section(kind_at(point(version="0.12")), latency, {"output_tokens_per_s": 1.0}, {"tpot_s.mean": (0.96, 1.04, 9)})

    assert (found["tpot_s.p50"].low, found["tpot_s.p50"].high, found["tpot_s.p50"].deployed) == (0.96, 1.04, OWN)
    assert found["ttft_s.p50"].deployed != OWN
