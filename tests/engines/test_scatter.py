"""Steps that scatter: rates stay, bytes do not depend on strokes, replicas differ, and nothing scatters that was not measured."""

from __future__ import annotations

from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.config import settings
from sim.config.scenario import Scenario
from sim.cost.profile import load_engine_profile
from sim.engine.scatter import LENGTH, factors
from sim.fleet.build import plan
from sim.fleet.run import Raw, execute
from sim.metrics.histogram import ITL_BINS, ITL_LO, ITL_SCALE
from sim.workload import build_traffic

TRAFFIC = {
    "synthetic": {
        "arrival": {"process": "poisson", "rate": 6.0},
        "lengths": {"kind": "uniform", "prompt_tokens": [50, 400], "output_tokens": [5, 120]},
        "requests": 60,
    }
}
MIXTURE = {"model": "deepseek-v2-lite", "deployment": {"dp": 2, "ep": 2}}


@pytest.fixture
def scattering(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text("base: vllm\nlines: [{from: '0.14', step_scatter: 0.1}]\n")
    return str(file)


def run(profile: str | None, strokes: bool = True, seed: int = 3, changes: dict[str, Any] | None = None) -> Raw:
    more = dict((changes or {}).get("deployment", {}))
    deployment = {
        "accelerator": "h100-sxm",
        "replicas": 2,
        "engine": {"name": "vllm", "max_model_len": 4096},
        "profile": profile,
    } | more
    model = (changes or {}).get("model", "llama-3.1-8b")
    made = settings(Scenario, {"model": model, "traffic": TRAFFIC, "deployment": deployment, "seed": seed})
    router = SimpleNamespace(name="round_robin", settings={})
    shape = (ITL_BINS, ITL_LO, ITL_SCALE)
    traffic = build_traffic(made.traffic, seed)
    return execute(plan(made), traffic, router, seed, bins=0, histogram=shape, until=inf, multi_step=strokes)


@pytest.mark.parametrize("changes", [{}, MIXTURE], ids=["dense", "ranks that step together"])
def test_strokes_and_single_steps_have_the_same_factors(scattering: str, changes: dict[str, Any]) -> None:
    one, other = run(scattering, changes=changes), run(scattering, strokes=False, changes=changes)
    for name in ("first_token_s", "finish_s"):
        assert one.requests[name].tobytes() == other.requests[name].tobytes()
    assert one.totals["steps"] == other.totals["steps"]


def test_rates_stay_and_gaps_scatter(scattering: str) -> None:
    even, scattered = run(None), run(scattering)
    length = [np.nanmean(r.requests["finish_s"] - r.requests["first_token_s"]) for r in (even, scattered)]
    assert length[1] == pytest.approx(length[0], rel=0.02)
    width = [np.count_nonzero(r.itl_hist) for r in (even, scattered)]
    assert width[1] > 2 * width[0]
    assert run(scattering, seed=4).requests["finish_s"].tobytes() != scattered.requests["finish_s"].tobytes()
    assert run(scattering).requests["finish_s"].tobytes() == scattered.requests["finish_s"].tobytes()


def test_factors_have_the_mean_1_and_the_measured_spread() -> None:
    drawn = factors(0.05, 7, "pool")
    assert drawn.size == LENGTH
    assert drawn.mean() == pytest.approx(1.0, abs=1e-12)
    assert np.log(drawn).std() == pytest.approx(0.05, rel=0.02)
    assert factors(0.05, 7, "other").tolist() != drawn.tolist()


def test_only_what_was_measured_scatters() -> None:
    assert load_engine_profile("vllm", "0.20", "b300").step_scatter > 0.0
    assert load_engine_profile("vllm", "0.20", "b300").figures["step_scatter"].evidence == "measured"
    assert load_engine_profile("vllm", "0.20", "h100-sxm").step_scatter == 0.0
    assert load_engine_profile("sglang", None, "b300").step_scatter == 0.0
    made = settings(
        Scenario, {"model": "llama-3.1-8b", "traffic": TRAFFIC, "deployment": {"accelerator": "b300", "engine": {"name": "vllm"}}}
    )
    assert any("scatter" in note for note in plan(made)[0].evidence.notes)
