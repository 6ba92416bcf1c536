"""Laws of what a reader sees hold on sound results, and are noticed when broken; a run whose laws are broken ends with a reproducer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import LawViolation
from sim.fleet.client_side import ClientSide
from sim.metrics.result import summarise
from sim.metrics.summary_laws import check_result
from tests.cli.conftest import Command
from tests.cli.conftest import servesim as servesim
from tests.metrics.records import four_requests, many_requests


def test_sound_results_pass() -> None:
    for record in (four_requests(), many_requests(3000)):
        result = summarise(record)
        check_result(result.columns, result.summary.as_dict())


DAMAGES: list[tuple[str, Any]] = [
    ("latency.ttft_s.mean", float("nan")),
    ("latency.ttft_s.p50", -0.1),
    ("latency.tpot_s.p90", 1e9),
    ("latency.e2e_s.mean", 1e-3),
    ("throughput.requests_per_s", 7.0),
    ("throughput.output_tokens_per_s", float("inf")),
    ("utilisation.busy", 1.2),
    ("utilisation.kv_mean", -0.2),
    ("requests.finished", 5),
    ("requests.injected", 3),
    ("classes.0.requests", 9),
    ("evidence_shares.measured", 1.5),
]


@pytest.mark.parametrize(("where", "value"), DAMAGES)
def test_a_broken_summary_is_noticed(where: str, value: float) -> None:
    result = summarise(four_requests())
    summary = result.summary.as_dict()
    *path, last = where.split(".")
    inner: Any = summary
    for step in path:
        inner = inner[int(step) if step.isdigit() else step]
    inner[last] = value
    with pytest.raises(LawViolation):
        check_result(result.columns, summary)


@pytest.mark.parametrize("column", ["ttft_s", "tpot_s", "e2e_s", "ingress_s", "queue_s"])
def test_a_client_that_waits_less_than_no_time_is_noticed(column: str) -> None:
    result = summarise(four_requests())
    result.columns[column][0] = -0.01
    with pytest.raises(LawViolation, match=f"{column} is never negative"):
        check_result(result.columns, result.summary.as_dict())


def test_a_broken_law_ends_the_run_with_what_shows_it_again(
    servesim: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shift(_: Any, columns: dict[str, Any]) -> None:
        columns["first_token_s"][3] = columns["arrival_s"][3] - 1.0
        columns["first_scheduled_s"][3] = np.nan

    monkeypatch.setattr(ClientSide, "shift", shift)
    arguments = ("quickstart", "-s", "traffic.synthetic.requests=50")
    done = servesim("run", *arguments)
    assert done.code == 4
    assert "a fault of servesim" in done.err and "first {'id': 3" in done.err
    (file,) = tmp_path.iterdir()
    assert file.name in done.err
    text = file.read_text()
    assert text.startswith("# law: ")
    assert sim.load(file).traffic.synthetic.requests == 50
    file.unlink()
    again = servesim("capacity", *arguments, "--jobs", "1")
    assert again.code == 4
    assert any(f.name.startswith("servesim-broken-law") for f in tmp_path.iterdir())
