"""Choices computed by Llumnix v0 itself."""

import gzip
import json
from pathlib import Path

import pytest

from sim.errors import DataError
from sim.study.conformance.llumnix import check

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "llumnix" / "policies.json.gz"


def test_every_recorded_choice_is_ours():
    cases = list(check(GOLDEN))

    assert [c for c in cases if c.difference] == []
    assert sum(c.steps for c in cases) == sum(c.matched for c in cases) == 108


def test_a_difference_is_found(tmp_path):
    data = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    row = next(r for r in data["rows"] if r["kind"] == "dispatch")
    row["expected"]["queue"] = "nobody"
    (tmp_path / "p.json").write_text(json.dumps({"rows": [row]}))

    (case,) = check(tmp_path / "p.json")

    assert (case.steps, case.matched) == (1, 0)
    assert case.difference.recorded == {"queue": "nobody"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"rows": []}',
        '{"rows": [1]}',
        '{"rows": [{"kind": "x", "input": {}, "expected": {}}]}',
        '{"rows": [{"kind": "dispatch", "input": {}, "expected": {}}]}',
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)

    with pytest.raises(DataError):
        list(check(tmp_path / "p.json"))
