"""`servesim capacity`, `compare`, `schema`, `scenarios`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sim
from tests.cli.conftest import Command

SMALL = ("--set", "traffic.synthetic.requests=1500")


def test_capacity_finds_the_border_between_held_and_broken(servesim: Command, tmp_path: Path) -> None:
    done = servesim("capacity", "quickstart", *SMALL, "--tolerance", "0.05", "--json", "--out", "cap")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    held = [p["value"] for p in answer["probes"] if p["summary"]["slo"]["met"]]
    broken = [p["value"] for p in answer["probes"] if not p["summary"]["slo"]["met"]]
    assert answer["answer"] == max(held)
    assert max(held) < min(broken) <= 1.06 * max(held)
    assert (tmp_path / "cap" / "report.html").stat().st_size > 1000


def test_capacity_finds_the_fewest_replicas(servesim: Command) -> None:
    more = ("--set", "traffic.synthetic.arrival.rate=60/s")
    done = servesim("capacity", "quickstart", *SMALL, *more, "--replicas", "--json", "--no-save")
    answer = json.loads(done.out)
    assert answer["question"] == "replicas"
    assert answer["answer"] > 1
    short = [p for p in answer["probes"] if p["value"] == answer["answer"] - 1]
    assert short
    assert not short[0]["summary"]["slo"]["met"]


def test_capacity_without_an_slo_is_an_error(servesim: Command) -> None:
    done = servesim("capacity", "quickstart", "--set", "slo={}")
    assert done.code == 2
    assert "slo" in done.err


def test_compare_runs_the_same_requests(servesim: Command, tmp_path: Path) -> None:
    done = servesim("compare", "quickstart", "quickstart-a100", *SMALL, "--json", "--out", "both")
    assert done.code == 0, done.err
    both = json.loads(done.out)
    first, second = both["quickstart"], both["quickstart-a100"]
    assert first["tokens"] == second["tokens"]
    assert first["latency"]["tpot_s"]["mean"] < second["latency"]["tpot_s"]["mean"]
    assert (tmp_path / "both" / "report.html").exists()


def test_compare_needs_two(servesim: Command) -> None:
    assert servesim("compare", "quickstart").code == 2
    assert servesim("compare", "quickstart", "quickstart").code == 2


def test_schema_names_every_engine_setting(servesim: Command) -> None:
    done = servesim("schema")
    text = done.out
    assert json.loads(text)["properties"]["deployment"]
    for setting in ("max_num_seqs", "process", "attainment", "round_robin"):
        assert setting in text


def test_scenarios_lists_the_built_in_ones(servesim: Command) -> None:
    done = servesim("scenarios")
    assert "quickstart" in done.out
    assert "H100" in done.out


@pytest.mark.parametrize("arguments", [("conformance", "vlm", "."), ("conformance", "vllm", "missing")])
def test_conformance_with_nothing_to_check_is_an_error(servesim: Command, arguments: tuple[str, ...]) -> None:
    assert servesim(*arguments).code == 2


def test_memory_prints_the_budget_line_by_line(servesim: Command) -> None:
    done = servesim("memory", "quickstart", "--set", "deployment.kv_blocks=1234", "--set", "deployment.engine.version='0.20'")
    assert done.code == 0, done.err
    for line in ("weights", "activations", "CUDA graphs", "KV blocks"):
        assert line in done.out
    assert "1,234 blocks of 16" in done.out


def test_an_interrupted_search_keeps_its_probes() -> None:
    seen = []

    def stop_after_three(probe: object) -> None:
        seen.append(probe)
        if len(seen) == 3:
            raise KeyboardInterrupt

    scenario = sim.load("quickstart", ["traffic.synthetic.requests=1500"])
    answer = sim.capacity(scenario, on_probe=stop_after_three)
    assert len(answer.probes) == 3
    assert answer.answer == max(p.value for p in answer.probes if p.held)
    assert "interrupted" in answer.warnings[0]
