"""Recorded decisions of the real SGLang 0.5.23 scheduler, replayed."""

import gzip
import json
from pathlib import Path

import pytest

from sim.errors import DataError
from sim.study.conformance.sglang import check

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOLDERS = ("sglang", "sglang_hybrid")
RECORDINGS = [path for name in FOLDERS for path in sorted((GOLDEN / name).glob("*.json.gz"))]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.split(".")[0])
def test_recording_is_matched_in_every_field(path):
    (case,) = check(path)

    assert case.difference is None
    assert case.steps == case.matched > 0


@pytest.mark.parametrize("name", FOLDERS)
def test_recordings_that_do_not_travel_with_the_project(name, shared):
    for path in sorted((shared / "golden" / name).glob("*.json.gz")):
        if not (GOLDEN / name / path.name).exists():
            (case,) = check(path)

            assert (path.name, None) == (path.name, case.difference)


def test_a_changed_decision_is_found(tmp_path):
    recording = json.loads(gzip.decompress((GOLDEN / "sglang" / "22_skip_finishing_8x4.json.gz").read_bytes()))
    recording["trace"][2]["ndec"] = 7
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(recording))

    (case,) = check(path)

    assert 2 == case.matched == case.difference.step
    assert (case.difference.recorded["ndec"], case.difference.ours["ndec"]) == (7, 8)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"meta": {}, "requests": [], "trace": []}', "not json"])
def test_a_file_that_is_no_recording_is_a_data_error(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)

    with pytest.raises(DataError, match="bad.json"):
        list(check(path))
