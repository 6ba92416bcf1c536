"""Studies of measurements are studies as all others: kept, resumed, in parallel, described in a file, asked by one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sim.errors import ConfigError
from sim.study.accuracy import accuracy
from sim.study.calibrate import calibrate
from sim.study.driver import run_study
from sim.study.questions.accuracy import Accuracy
from tests.cli.conftest import Command, servesim  # noqa: F401
from tests.study.test_studies_base import Counter, lines

FILES = ("runs.parquet", "summary.json", "report.html")


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """Six static batches, three times slower than the model says."""
    folder = tmp_path / "points"
    folder.mkdir()
    raw = [
        {
            "id": f"d/{i}",
            "model": "llama-3.1-8b",
            "engine": {"name": "vllm", "version": "0.12"},
            "accelerator": "h100_sxm",
            "traffic": {"kind": "static_batch", "batch": 2**i, "prompt_tokens": 512, "output_tokens": 64},
            "measured": {"step_s": {"decode": 0.02 + 0.001 * i, "prefill": 0.05 * 2**i}},
        }
        for i in range(6)
    ]
    (folder / "points.jsonl").write_text("\n".join(map(json.dumps, raw)))
    return folder


def files(folder: Path, *more: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*FILES, *more)}


def test_accuracy_goes_on_where_it_was_stopped(points: Path, tmp_path: Path) -> None:
    whole = accuracy([points], out=tmp_path / "whole")
    part = accuracy([points], out=tmp_path / "part", progress=Counter(3))
    assert len(part.outcomes) == 3
    assert part.warnings == ("Interrupted: 3 of 6 points are done.",)
    assert accuracy([points], out=tmp_path / "part") == whole
    assert files(tmp_path / "part", "accuracy.csv") == files(tmp_path / "whole", "accuracy.csv")
    keys = [line["key"] for line in lines(tmp_path / "part") if "key" in line]
    assert len(keys) == len(set(keys)) == 6
    rows = pq.read_table(tmp_path / "whole" / "runs.parquet").to_pylist()
    assert [row["id"] for row in rows] == [f"d/{i}" for i in range(6)]
    assert rows[0]["predicted.step_s.decode"] < rows[0]["measured.step_s.decode"]


def test_two_processes_give_the_bytes_of_one(points: Path, tmp_path: Path) -> None:
    for jobs in (1, 2):
        calibrate([points], figures=("host_step",), jobs=jobs, out=tmp_path / str(jobs))
    assert files(tmp_path / "1", "profile.yaml") == files(tmp_path / "2", "profile.yaml")


def test_points_of_an_accelerator_that_nobody_measured(points: Path) -> None:
    report = accuracy([points], leave_out=True)
    assert [o.point.id for o in report.unmeasured] == [o.point.id for o in report.simulated]
    assert all(a.predicted != b.predicted for a, b in zip(report.unmeasured, report.simulated, strict=True))


def test_a_calibration_that_was_stopped_goes_on_and_its_profile_is_in_the_folder(points: Path, tmp_path: Path) -> None:
    from sim.study.base import Interrupted

    with pytest.raises(Interrupted):
        calibrate([points], figures=("host_step",), out=tmp_path / "part", progress=Counter(4))
    done = calibrate([points], figures=("host_step",), out=tmp_path / "part")
    assert done.verdict is True
    assert "host_step" in (tmp_path / "part" / "profile.yaml").read_text()
    assert done.after.rows()[0].median < done.before.rows()[0].median
    assert len([line for line in lines(tmp_path / "part") if "key" in line]) == 6 + 1 + 6


def test_measurements_that_changed_are_simulated_again(points: Path, tmp_path: Path) -> None:
    accuracy([points], out=tmp_path / "out", progress=Counter(3))
    text = (points / "points.jsonl").read_text()
    (points / "points.jsonl").write_text(text.replace('"batch": 1,', '"batch": 3,'))
    accuracy([points], out=tmp_path / "out")
    assert len([line for line in lines(tmp_path / "out") if "key" in line]) == 7


def test_a_point_that_breaks_has_its_reason(points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sim.study.accuracy.report as there

    def broken(point: Any, *_: Any) -> Any:
        if point.id == "d/2":
            raise RuntimeError("out of luck")
        return {"step_s.decode": 0.02}

    monkeypatch.setattr(there, "predict", broken)
    report = accuracy([points])
    (refused,) = report.refused
    assert refused.point.id == "d/2"
    assert "RuntimeError: out of luck" in refused.reason


def test_one_command_line(points: Path, servesim: Command, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "mine.yaml").write_text("study: accuracy\npaths: [points]\nby: [quality]\n")
    done = servesim("accuracy", "mine.yaml", "--gate", "--out", "o", "--csv", "all.csv", "--record", "r.yaml")
    assert done.code == 0, done.err  # nothing measured here has an aim
    assert "6 of 6 operating points simulated" in done.out
    assert "by quality" in done.out
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "o" / "accuracy.csv").read_bytes()
    assert (tmp_path / "r.yaml").is_file()

    fitted = servesim("calibrate", "points", "--figures", "host_step", "--profile", "mine-too.yaml", "--json")
    assert fitted.code == 0, fitted.err
    assert json.loads(fitted.out)["fits"][0]["figures"].keys() == {"host_step"}
    assert (tmp_path / "mine-too.yaml").read_bytes() == (
        tmp_path / "servesim-results" / "points-calibrate" / "profile.yaml"
    ).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("accuracy", "points", "--set", "deployment.tp=2"), "name what was deployed: --scenario"),
        (("accuracy", "points", "--by", "colour"), "is no grouping"),
        (("accuracy", "points", "--quality", "superb"), "is no quality"),
        (("accuracy", "points", "--on", "d"), "is not of the form TEXT=NAME"),
        (("accuracy", "points", "--csv", "no/where.csv"), "there is no folder"),
        (("accuracy", "nowhere"), "nowhere"),
        (("calibrate", "points", "--profile", "mine.json"), "must be a YAML file"),
        (("calibrate", "points", "--figures", "warp"), "cannot be calibrated"),
    ],
)
def test_what_cannot_be_asked(points: Path, servesim: Command, arguments: tuple[str, ...], says: str) -> None:  # noqa: F811
    done = servesim(*arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_study_of_measurements_takes_one_scenario_at_most() -> None:
    import sim

    two = [sim.load("quickstart")] * 2
    with pytest.raises(ConfigError, match="0 or 1"):
        run_study(Accuracy(two, Accuracy.Params(paths=("x",))))
