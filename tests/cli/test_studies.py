"""`servesim capacity`, `compare`, `schema`, `scenarios`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sim
from tests.cli.conftest import Command

SMALL = ("--set", "traffic.synthetic.requests=1500")


def test_capacity_finds_the_border_between_held_and_broken(servesim: Command, tmp_path: Path) -> None:
    done = servesim("capacity", "quickstart", *SMALL, "--tolerance", "0.05", "-r", 3, "--json", "--out", "cap")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert len(answer["found"]) == 3
    for replication, found in enumerate(answer["found"]):
        probes = [p for p in answer["probes"] if p["replication"] == replication]
        held = [p["value"] for p in probes if p["summary"]["slo"]["met"]]
        broken = [p["value"] for p in probes if not p["summary"]["slo"]["met"]]
        assert found == max(held)
        assert max(held) < min(broken) <= 1.06 * max(held)
    assert answer["low"] < answer["answer"] < answer["high"]
    assert answer["safe"] == min(answer["found"])
    assert len({p["summary"]["seed"] for p in answer["probes"]}) == 3
    report = (tmp_path / "cap" / "report.html").read_text()
    assert "llama-3.1-8b" in report
    assert "NVIDIA H100" in report
    assert (tmp_path / "cap" / "probes.csv").exists()


def test_capacity_finds_the_fewest_replicas_and_says_cards(servesim: Command) -> None:
    more = ("--set", "traffic.synthetic.arrival.rate=60/s", "--set", "deployment.tp=2")
    done = servesim("capacity", "quickstart", *SMALL, *more, "--replicas", "-r", 2, "--json", "--no-save")
    answer = json.loads(done.out)
    assert answer["question"] == "replicas"
    assert answer["answer"] == max(answer["found"]) > 1
    for replication, found in enumerate(answer["found"]):
        short = [p for p in answer["probes"] if p["value"] == found - 1 and p["replication"] == replication]
        assert short
        assert not short[0]["summary"]["slo"]["met"]
    assert answer["accelerators"] == f"{2 * int(answer['answer'])} × NVIDIA H100 SXM5 80GB"
    assert answer["accelerators"] in answer["sentence"]


def test_one_repetition_says_that_it_is_one(servesim: Command) -> None:
    done = servesim("capacity", "quickstart", *SMALL, "--tolerance", "0.2", "-r", 1, "--no-save")
    assert "another seed may give another answer" in " ".join(done.out.split())


@pytest.mark.parametrize(("more", "code"), [((), 1), (("--gate",), 3)])
def test_capacity_that_nothing_holds_exits_with_1_and_for_ci_with_3(servesim: Command, more: tuple[str, ...], code: int) -> None:
    done = servesim(
        "capacity", "quickstart", "--set", "traffic.synthetic.requests=50", "--set", "slo.ttft=1us", "--no-save", "-r", 1, *more
    )
    assert done.code == code
    assert "does not hold" in done.out


def test_capacity_of_requests_that_are_too_few_is_not_known(servesim: Command) -> None:
    done = servesim("capacity", "quickstart", "--set", "traffic.synthetic.requests=20", "--no-save")
    assert done.code == 1
    said = " ".join(done.out.split())
    assert (
        "even where all 20 requests come at once: too few to find the rate that it holds" in said
        and "e+0" not in said.split("SLO:")[0]
    )


def test_capacity_of_a_short_run_says_so(servesim: Command) -> None:
    done = servesim(
        "capacity", "quickstart", "--set", "traffic.synthetic.requests=200", "-r", 1, "--tolerance", "0.3", "--json", "--no-save"
    )
    (said,) = [w for w in json.loads(done.out)["warnings"] if w.startswith("At ")]
    assert "too short to show what is held for long" in said


def test_capacity_without_an_slo_is_an_error(servesim: Command) -> None:
    done = servesim("capacity", "quickstart", "--set", "slo={}")
    assert done.code == 2
    assert "slo" in done.err


def test_compare_runs_the_same_requests(servesim: Command, tmp_path: Path) -> None:
    done = servesim("compare", "quickstart", "quickstart-a100", *SMALL, "-r", 3, "--json", "--out", "both")
    assert done.code == 0, done.err
    both = json.loads(done.out)
    first, second = both["results"]["quickstart"], both["results"]["quickstart-a100"]
    assert first["tokens"] == second["tokens"]
    assert first["latency"]["tpot_s"]["mean"] < second["latency"]["tpot_s"]["mean"]
    (against,) = both["comparisons"]
    tpot = against["differences"]["latency.tpot_s.p50"]
    assert tpot["change"]["low"] > 0
    assert "raises p99 TPOT" in against["verdict"]
    assert (tmp_path / "both" / "report.html").exists()
    names = {p.name for p in (tmp_path / "both").iterdir()}
    assert names == {".servesim.json", "compare.csv", "report.html", "summary.json", "runs.parquet", "runs.jsonl"}


def test_compare_over_a_setting(servesim: Command) -> None:
    done = servesim(
        "compare",
        "quickstart",
        *SMALL,
        "--over",
        "router=round_robin,random",
        "--over",
        "deployment.replicas=2",
        "-r",
        2,
        "--json",
        "--no-save",
    )
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["results"]) == ["router round_robin, replicas 2", "router random, replicas 2"]


def test_a_deployment_that_cannot_be_is_said_and_the_others_are_compared(servesim: Command) -> None:
    over = ("--over", "model=llama-3.1-8b,llama-3.1-405b,llama-2-70b,qwen3-8b")
    done = servesim(
        "compare", "quickstart", "--set", "traffic.synthetic.requests=200", *over, "-r", 2, "--json", "--no-save", "--gate"
    )
    assert done.code == 3
    answer = json.loads(done.out)
    assert set(answer["failed"]) == {"llama-3.1-405b", "llama-2-70b"}
    assert "does not fit" in answer["failed"]["llama-3.1-405b"]
    assert list(answer["results"]) == ["llama-3.1-8b", "qwen3-8b"]


def test_the_same_deployment_twice_is_unchanged(servesim: Command) -> None:
    over = ("--over", "record.max_points=100,200")
    done = servesim("compare", "quickstart", *SMALL, *over, "-r", 2, "--json", "--no-save", "--gate")
    assert done.code == 0
    assert "unchanged" in done.out
    assert "lowers" not in done.out


def test_recorded_traffic_is_compared_stretch_by_stretch(servesim: Command, tmp_path: Path) -> None:
    rows = "".join(f"{i * 0.05},{100 + 37 * i % 900},{10 + 13 * i % 90}\n" for i in range(600))
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows)
    trace = ("--set", "traffic.synthetic=null", "--set", "traffic.trace={format: csv, path: t.csv}")
    done = servesim(
        "compare", "quickstart", *trace, "--over", "deployment.accelerator=h100-sxm,a100-sxm-80g", "--json", "--no-save"
    )
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert answer["replications"] == 1
    assert answer["comparisons"][0]["differences"]["latency.tpot_s.p50"]["significant"]
    assert any("20 stretches" in n for n in answer["notes"])
    more = servesim("compare", "quickstart", *trace, "--over", "deployment.tp=1,2", "-r", 2, "--no-save")
    assert more.code == 2
    assert "same recorded requests" in more.err


def test_a_run_that_does_not_settle_is_said_on_the_first_line(servesim: Command) -> None:
    done = servesim("run", "quickstart", *SMALL, "--set", "traffic.synthetic.arrival.rate=40/s", "--no-save")
    assert done.out.startswith("Not stationary: more arrives than is served")
    calm = servesim("run", "quickstart", *SMALL, "--no-save")
    assert "Not stationary" not in calm.out
    assert "One run, 95% intervals: SLO met" in calm.out
    assert "Too few independent requests to bound from above: p99 of TTFT" in calm.out


def test_more_runs_and_a_wanted_precision(servesim: Command) -> None:
    three = json.loads(servesim("run", "quickstart", *SMALL, "-r", 3, "--json", "--no-save").out)
    assert three["replications"] == 3
    interval = three["intervals"]["latency.ttft_s.mean"]
    assert interval["low"] < three["first_run"]["latency"]["ttft_s"]["mean"] * 1.2
    sharp = json.loads(servesim("run", "quickstart", *SMALL, "--precision", "10%", "--json", "--no-save").out)
    assert sharp["reached"]
    assert all(i["high"] - i["value"] <= 0.1001 * i["value"] for k, i in sharp["intervals"].items() if "p99" in k)


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


def test_memory_says_where_layers_that_forget_are_counted_as_a_mean(servesim: Command) -> None:
    on = ("--set", "deployment.engine=vllm-ascend", "--set", "deployment.accelerator=ascend-910b3")
    done = servesim("memory", "quickstart", "--set", "model=gemma-3-12b", *on)
    assert "! gemma-3-12b has 40 sliding-window layers" in done.out
    assert "!" not in servesim("memory", "quickstart", "--set", "model=gemma-3-12b").out  # vLLM's groups are counted one by one
    assert "!" not in servesim("memory", "quickstart").out


def test_a_probe_keeps_its_rates_without_start_and_drain() -> None:
    answer = sim.capacity(sim.load("quickstart", ["traffic.synthetic.requests=500"]), tolerance=0.2, replications=1, jobs=1)
    held = [p for p in answer.probes if p.held]
    assert held
    for p in held:
        inner = p.summary["steady"]["goodput_requests_per_s"]
        assert inner == pytest.approx(p.summary["steady"]["requests_per_s"] * p.summary["slo"]["attainment"]["joint"], rel=0.05)
        assert inner == p.summary["slo"]["goodput_requests_per_s"]


def test_an_interrupted_search_keeps_its_probes(tmp_path: Path) -> None:
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=500"])

    def ask(**how: object) -> Any:
        return sim.capacity(scenario, tolerance=0.1, replications=2, jobs=1, out=tmp_path, **how)

    answer = ask(progress=lambda done, total, label: done >= 3)
    assert len(answer.probes) == 3
    assert answer.answer == max(p.value for p in answer.probes if p.held)
    assert "interrupted" in answer.warnings[0]
    before = (tmp_path / "runs.jsonl").read_text()
    whole = ask()
    assert (tmp_path / "runs.jsonl").read_text().startswith(before)
    assert whole == sim.capacity(scenario, tolerance=0.1, replications=2, jobs=1)


def test_help_shows_names_in_brackets(servesim: Command) -> None:
    """Help is markup; the name of an extra is not."""
    assert "servesim[search]" in servesim("plan", "--help").out
