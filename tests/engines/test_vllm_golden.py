"""Every recorded decision of the real scheduler, also as plain Python."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.errors import DataError
from sim.study.conformance import check as check_all
from sim.study.conformance import engines
from sim.study.conformance.vllm import check

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDINGS = sorted((GOLDEN / "vllm").glob("*.jsonl.gz"))
HYBRID = sorted((GOLDEN / "vllm_hybrid").glob("*.jsonl.gz"))
"""Of models with several KV groups: every field of every step, blocks per group, size of the prefix map and junctions included."""


@pytest.mark.parametrize("path", RECORDINGS + HYBRID, ids=lambda p: p.name.split(".")[0])
def test_recording_matches(path):
    (case,) = check(path)

    assert case.difference is None
    assert case.matched == case.steps > 0


@pytest.mark.parametrize("paths", [RECORDINGS, HYBRID], ids=["vllm", "vllm_hybrid"])
def test_recordings_match_without_compilation(paths):
    assert paths
    code = (
        "from pathlib import Path\nfrom sim.study.conformance.vllm import check\nimport sys\n"
        "for p in sys.argv[1:]:\n    (case,) = check(Path(p))\n    assert case.difference is None, case\n    assert case.matched == case.steps > 0, case"
    )
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", code, *(str(p) for p in paths)], env=env, check=True, timeout=600)


def test_first_difference_is_shown(tmp_path):
    lines = gzip.decompress(RECORDINGS[0].read_bytes()).decode().splitlines()
    row = json.loads(lines[7])
    row["free_blocks"] += 1
    lines[7] = json.dumps(row)
    path = tmp_path / "wrong.jsonl"
    path.write_text("\n".join(lines))

    (case,) = check(path)

    assert case.matched == 6
    assert case.difference is not None and case.difference.recorded["free_blocks"] == row["free_blocks"]


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"engine": {}}', '{"engine": {}, "duration_us": {}, "requests": []}\n{}'])
def test_what_is_not_a_recording(tmp_path, text):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)

    with pytest.raises(DataError, match="recording"):
        list(check(path))


@pytest.mark.parametrize("engine", engines())
def test_a_file_without_depth_limit_is_no_recording(engine, tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="deep"):
        list(check_all(engine, [path]))
