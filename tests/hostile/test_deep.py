"""Brackets within brackets without end: refused before a parser that calls itself for each could overflow its stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.brackets import deeper
from sim.document import DEEPEST, loads
from tests.conftest import ROOT

EVERY_KIND = """
import sys, tempfile
from pathlib import Path
from sim.errors import ServesimError
from tests.hostile.kinds import KINDS
sys.setrecursionlimit(10**7)  # as where something lost count of calls: Python's own bound does not hold
n = 200_000
for kind in KINDS:
    for text in ('{"a": ' + "[" * n + "]" * n + "}", "[" * n + "]" * n, '{"a":' * n, '[{"a": 1}, {"a": ' + "[" * n):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / kind.name
            file.write_text(text)
            try:
                kind.read(file)
            except ServesimError as error:
                assert str(error)
print("alive")
"""


def test_no_reader_depends_on_the_bound_of_python_calls() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_KIND], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]


@pytest.mark.parametrize("text", ["[" * 101 + "]" * 101, b'{"a":' * 150, '{"a": "x"}, ' + "[" * 200, "[" * 200 + '"'])
def test_more_than_a_hundred_is_refused_by_number(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="^nested too deeply$"):
        loads(text)


def test_up_to_a_hundred_is_read_and_what_stands_in_strings_or_side_by_side_does_not_count() -> None:
    value: object = {"a": "[{" * 300, "b": ['\\"[', "\\"] * 80}
    for _ in range(DEEPEST - 2):
        value = [value, {}]
    import json

    assert loads(json.dumps(value)) == value
    assert loads(json.dumps(value).encode("utf-16")) == value
    assert loads("[" + "[]," * 5000 + "1]")[-1] == 1


def plainly(text: str, most: int) -> int | None:
    depth, quoted, escaped = 0, False, False
    for at, char in enumerate(text):
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
            if depth > most:
                return at
        elif char in "]}":
            depth -= 1
    return None


STRING = st.text(alphabet='a\\"[]{}é漢🙂', max_size=6).map(lambda t: '"' + t.replace("\\", "\\\\").replace('"', '\\"') + '"')
TEXT = st.lists(STRING | st.sampled_from(list("[[[{{]},: é")), max_size=60).map("".join)


@given(TEXT, st.integers(0, 6), st.integers(1, 12))
def test_depth_is_that_of_a_reader_that_goes_character_by_character(text: str, most: int, piece: int) -> None:
    assert deeper(text, most, piece) == plainly(text, most)


def test_json_is_read_in_one_place() -> None:
    """Whoever calls Python's or another parser by itself has no bound."""
    calls = ("json.loads(", "json.load(", "raw_decode", "read_json(", "orjson", "ujson", "from_json(", "validate_json(")
    found = {
        f"{file.relative_to(ROOT)}: {call}"
        for file in sorted(Path(ROOT, "sim").rglob("*.py"))
        for call in calls
        if call in file.read_text(encoding="utf-8")
    }
    assert found == {
        "sim/document.py: json.loads(",
        "sim/workload/traces/_objects.py: raw_decode",  # bounded by `deeper`
        "sim/workload/traces/_scan.py: read_json(",  # bounded by what its caller counted
    }
