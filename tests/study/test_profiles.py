"""Profiles: listed, shown, checked; engine lines by version and accelerator."""

import pytest

from sim.cost.profile import load_engine_profile
from sim.errors import DataError, UnknownNameError
from sim.study.calibrate import Calibration, calibrate, fit
from sim.study.profiles import KINDS, check, profiles, show
from tests.study.test_accuracy import point


def test_every_profile_is_well():
    assert list(check()) == []


def test_every_kind_is_listed():
    entries = profiles()

    assert {e.kind for e in entries} == set(KINDS)
    assert {"h100-sxm", "llama-3.1-8b", "vllm 0.14"} <= {e.name for e in entries}


@pytest.mark.parametrize(("name", "kind"), [("h100", "hardware"), ("qwen3-8b", "model"), ("vllm 0.15", "engine")])
def test_one_profile_has_facts(name, kind):
    entry, facts = show(name)

    assert entry.kind == kind
    assert facts
    assert all(f.source for f in facts)


def test_a_name_nobody_has():
    with pytest.raises(UnknownNameError, match="h100-sxm"):
        show("h100-sxn")


def test_figures_of_a_line_may_depend_on_the_accelerator():
    assert load_engine_profile("vllm", "0.12", "h100-sxm").sampler_row > load_engine_profile("vllm", "0.12").sampler_row


def test_a_fit_finds_the_factor_that_made_the_measurements(tmp_path):
    """Measurements made with a factor of 1.3: the fit finds it, and the profile it writes gives it back."""
    from sim.study.accuracy.predict import predict

    traffics = [{"kind": "static_batch", "batch": b, "prompt_tokens": 1024, "output_tokens": 64} for b in (1, 8, 32)]
    key = ("vllm", profiles_line(), "h100-sxm")
    points = []
    for i, traffic in enumerate(traffics):
        bare = point(id=f"d/{i}", traffic=traffic)
        points.append(point(id=f"d/{i}", traffic=traffic, measured=predict(bare, {key: {"gemm_scale": 1.3}})))
    found = fit(key, points, ("gemm_scale",))

    assert found.figures["gemm_scale"] == pytest.approx(1.3, rel=0.02)
    assert max(found.after.values()) < 0.01 < max(found.before.values())
    file = Calibration((found,), None, None).save(tmp_path / "own.yaml")
    assert load_engine_profile(str(file), "0.15", "h100-sxm").gemm_scale == pytest.approx(1.3, rel=0.02)
    assert load_engine_profile(str(file), "0.15", "a100-sxm-80g").gemm_scale == 1.0


def profiles_line():
    return load_engine_profile("vllm", "0.15", "h100-sxm").line


def test_what_cannot_be_calibrated(tmp_path):
    from sim.errors import ConfigError

    with pytest.raises(ConfigError, match="gemm_scale"):
        calibrate([tmp_path], figures=("gemm_scal",))


def test_a_profile_file_that_is_none(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("title: nothing")

    with pytest.raises(DataError, match="'lines' is missing"):
        load_engine_profile(str(file))


def test_figures_of_an_accelerator_have_units_and_no_exponents():
    _, facts = show("l40s")
    values = {f.name: f.value for f in facts}

    assert values["peak_flops.bf16"] == "362.05 TFLOP/s"
    assert values["memory_bandwidth"] == "864 GB/s"
    assert values["memory_bytes"] == "44.40 GiB"
    assert not any("e+" in v for v in values.values())
