"""Half of the runs calibrate the model, the other half judges it: how far would the first half itself have been off as a prediction?"""

import gzip

import numpy as np
import pytest

from sim.study.accuracy import accuracy, read_points
from sim.study.calibrate import calibrate
from tests.realserver.files import HERE, RUNS, server

METRICS = ("ttft_s.mean", "tpot_s.mean", "itl_s.mean", "e2e_s.mean", "requests_per_s", "output_tokens_per_s")
TAILS = ("ttft_s.p99", "tpot_s.p99", "e2e_s.p99")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The recorded files as a user has them."""
    to = tmp_path_factory.mktemp("results")
    for file in (HERE / "recorded").glob("*.json.gz"):
        (to / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    for file in (HERE / "recorded").glob("*.csv.gz"):
        (to / file.name).write_bytes(file.read_bytes())
    return to


def half(folder, which, kinds):
    names = [f"{run}{which}" for run in RUNS]
    return [folder / f"{n}.json" for n in names if "results" in kinds] + [
        folder / f"{n}.iterations.csv.gz" for n in names if "steps" in kinds
    ]


@pytest.mark.parametrize("kinds", [("results", "steps"), ("results",), ("steps",)], ids=["both", "results", "steps"])
def test_the_held_out_half_is_predicted_as_well_as_the_machine_repeats_itself(folder, kinds):
    scenario = server()
    done = calibrate(half(folder, "A", kinds), scenario=scenario)
    judged = accuracy(half(folder, "B", ("results",)), scenario=scenario, overrides=done.overrides)
    fitted = [p.measured for p in read_points(half(folder, "A", ("results",)), scenario)]

    for metric in (*METRICS, *TAILS):
        off = np.median([abs(o.errors()[metric]) for o in judged.outcomes])
        repeated = np.median(
            [abs(a[metric] / o.point.measured[metric] - 1) for a, o in zip(fitted, judged.outcomes, strict=True)]
        )
        assert off <= 1.5 * repeated, metric


def test_a_processor_is_thirty_times_from_the_shipped_figures(folder):
    (fit,) = calibrate(half(folder, "A", ("results", "steps")), scenario=server()).fits

    assert 0.02 < fit.figures["host_step"] < 0.06  # the server logged 42 to 50 ms for one row; shipped: 1.5 ms
    assert "overlap_gap" in fit.unmoved  # it schedules synchronously
