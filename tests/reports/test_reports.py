"""What predictions of public reports have come to (README.md of this folder)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.study.accuracy import accuracy, read_points

FOLDER = Path(__file__).parent


def test_every_report_can_be_read_and_names_its_thread() -> None:
    lines = [json.loads(line) for line in (FOLDER / "points.jsonl").read_text().splitlines()]
    assert len(list(read_points([FOLDER]))) == len(lines) == len({line["id"] for line in lines})
    assert all(line["source"].startswith("https://") and line["measured"] for line in lines)


@pytest.mark.slow
def test_they_are_predicted_as_well_as_they_were() -> None:
    """Medians of absolute errors; bounds a little above what was measured when they were written."""
    found = {row.metric: row for row in accuracy([FOLDER]).rows()}
    for metric, most in (("tpot_s.mean", 0.12), ("output_tokens_per_s", 0.15), ("ttft_s.mean", 0.30)):
        assert found[metric].median < most, metric
