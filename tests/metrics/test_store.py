"""A result on disk: whole or not there, the same bytes each time, equal when read back."""

from pathlib import Path

import numpy as np
import pytest

from sim.errors import ConfigError, DataError
from sim.metrics.result import Result, load_result, summarise
from sim.metrics.slo import Slo
from tests.metrics.records import four_requests, many_requests


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_round_trip(tmp_path: Path) -> None:
    result = summarise(four_requests(slo=Slo(ttft=1.0), scenario="name: four\n"))

    back = load_result(result.save(tmp_path / "out"))

    assert back.summary == result.summary
    assert back.scenario == "name: four\n"
    for key, column in result.columns.items():
        np.testing.assert_array_equal(back.columns[key], column, err_msg=key)
        assert back.columns[key].dtype == column.dtype
    for key, column in result.series.items():
        np.testing.assert_array_equal(back.series[key], column, err_msg=key)
    np.testing.assert_array_equal(back.itl_hist, result.itl_hist)


def test_files_and_csv(tmp_path: Path) -> None:
    result = summarise(four_requests(), renderer=lambda r: f"<title>{r.name}</title>")

    files = _files(result.save(tmp_path / "a" / "out"))

    assert list(files) == [
        ".servesim.json",  # which files are ours
        "itl_histogram.csv",
        "report.html",
        "requests.csv",
        "requests.parquet",
        "scenario.yaml",
        "summary.json",
        "timeseries.csv",
        "timeseries.parquet",
    ]
    lines = files["requests.csv"].decode().splitlines()
    assert lines[0].startswith("id,klass,replica,arrival_s,")
    assert lines[2].split(",")[lines[0].split(",").index("tpot_s")] == ""  # one token: no TPOT
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]


def test_large_tables_are_compressed_and_repeatable(tmp_path: Path) -> None:
    result = summarise(many_requests(120_000))

    one, two = _files(result.save(tmp_path / "one")), _files(result.save(tmp_path / "two"))

    assert "requests.csv.gz" in one
    assert one == two


def test_an_earlier_result_is_replaced_anything_else_refused(tmp_path: Path) -> None:
    result = summarise(four_requests())
    result.save(tmp_path / "out")
    result.save(tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")

    with pytest.raises(ConfigError, match="something else"):
        result.save(tmp_path / "mine")
    with pytest.raises(ConfigError, match="is a file"):
        result.save(tmp_path / "mine" / "thesis.txt")


def test_a_failed_save_leaves_the_earlier_result(tmp_path: Path) -> None:
    result = summarise(four_requests())
    before = _files(result.save(tmp_path / "out"))

    def broken(_: Result) -> str:
        raise KeyboardInterrupt

    result.renderer = broken
    with pytest.raises(KeyboardInterrupt):
        result.save(tmp_path / "out")

    assert _files(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_loading_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_result(tmp_path / "nothing")
    with pytest.raises(DataError, match="not a servesim result"):
        load_result(tmp_path)
