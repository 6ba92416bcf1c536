"""What JSON and YAML can say that no document should: a key twice, truth for a number, parts without end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.document import loads, number, number_at
from sim.errors import DataError, ServesimError
from sim.hardware.prices import read_prices
from sim.model import load_model
from sim.study.bench import read as read_bench
from sim.workload import build_traffic
from sim.yaml_text import DEEPEST, MOST, read


def test_a_key_given_twice_is_refused_by_name_in_files_of_every_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the key 'a' is given twice$"):
        loads('[{"b": {"a": 1, "c": 2, "a": 1}}]')
    assert loads('[{"a": 1}, {"a": 2}, {"b": {"a": 3}, "a": 4}]')[2]["a"] == 4
    rows = {
        "m.jsonl": '{"timestamp": 0, "input_length": 5, "output_length": 1, "input_length": 50, "hash_ids": [1]}\n',
        "array.json": '[{"timestamp": 0, "input_length": 5, "output_length": 1, "input_length": 50, "hash_ids": [1]},\n {}]',
    }
    for name, text in rows.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ServesimError, match=f"{name}.*the key 'input_length' is given twice"):
            list(build_traffic({"trace": {"path": str(tmp_path / name)}}).blocks(9))
    (tmp_path / "config.json").write_text('{"hidden_size": 1, "hidden_size": 2}')
    with pytest.raises(DataError, match="'hidden_size' is given twice"):
        load_model(str(tmp_path / "config.json"))
    (tmp_path / "bench.json").write_text('{"completed": 3, "num_prompts": 4, "completed": 4}')
    with pytest.raises(DataError, match="'completed' is given twice"):
        read_bench(tmp_path / "bench.json")


def test_truth_is_no_number() -> None:
    for value in (True, False, "1", None):
        with pytest.raises(TypeError, match="is no number"):
            number(value)
        assert number_at({"a": {"b": value}}, "a.b") is None
    assert (number(0), number_at({"a": {"b": 0.5}}, "a.b")) == (0, 0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: {c: 2, c: 3}", "line 2, column 11: 'c' is given twice"),
        ("a: 1\na : 2", "line 2, column 1: 'a' is given twice"),
        ("x: &x [1]\ny: *x", "line 1, column 4: aliases are not allowed"),
        ("a: &a [*a]", "aliases are not allowed"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested too deeply"),
        ("[" + "1," * MOST + "1]", f"more than {MOST:,} values"),
        ("? [a]\n: 1", "a key must be a name"),
        ("a: !!bool x", "does not fit its tag"),
        ("a: \x01", "control characters"),
    ],
)
def test_yaml_is_bounded_and_says_where(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        read(text)


def test_aliases_that_expand_without_end_are_counted_where_they_stand() -> None:
    assert read("a: &a [1, 2]\nb: [*a, *a]", aliases=True) == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    bomb = "a0: &a0 [1, 2]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))
    with pytest.raises(ValueError, match="more than"):
        read(bomb, aliases=True)
    with pytest.raises(ValueError, match="nested too deeply"):
        read("a: &a [*a]", aliases=True)


def test_long_text_in_yaml_is_read_at_once() -> None:
    """A parser in Python takes a minute for a million blanks or line ends."""
    assert read("a: |\n" + "\n" * 900_000 + " x") == {"a": "\n" * 900_000 + "x"}


def test_an_error_is_no_longer_than_a_screen(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("accelerator,count,price_hour,currency\nh100-sxm," + "{a: " * 30_000 + ",1,USD\n")
    with pytest.raises(ServesimError, match="row 2, column count: must be a number") as error:
        read_prices(tmp_path / "prices.csv")
    assert len(str(error.value)) < 4000
