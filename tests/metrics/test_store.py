"""A result on disk: whole or not there, the same bytes each time, equal when read back."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.mark.parametrize("name", ["requests", "timeseries"])
@pytest.mark.parametrize("spoil", ["without", "words", "renamed"])
def test_a_table_without_a_column_or_with_words_in_it_is_damaged(name: str, spoil: str, tmp_path: Path) -> None:
    file = summarise(four_requests()).save(tmp_path / "out") / f"{name}.parquet"
    table = pq.read_table(file)
    column = {"requests": "output_tokens", "timeseries": "busy"}[name]
    at = table.column_names.index(column)
    if spoil == "without":
        table = table.drop_columns([column])
    elif spoil == "words":
        table = table.set_column(at, column, pa.array(["x"] * table.num_rows))
    else:
        table = table.rename_columns([f"{c}_" if c == column else c for c in table.column_names])
    pq.write_table(table, file)
    with pytest.raises(DataError, match=f"damaged servesim result.*'{column}'"):
        load_result(tmp_path / "out")


@pytest.mark.parametrize("value", [[1.0], {}, "0.5", True])
def test_a_summary_with_something_else_in_the_place_of_a_figure_is_damaged(value: object, tmp_path: Path) -> None:
    file = summarise(four_requests()).save(tmp_path / "out") / "summary.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    found["classes"][0]["ttft_p50_s"] = value
    file.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(DataError, match="of another type than was saved"):
        load_result(tmp_path / "out")
