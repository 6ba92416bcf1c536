"""The commands of both READMEs: with few requests in the suite, as printed with ``-m slow``."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

import sim
from sim.report.exports.vllm_bench import write_vllm_bench
from tests.cli.conftest import Command, servesim  # noqa: F401
from tests.documents import ROOT, blocks, text_of

STUDIES = ("plan", "capacity", "select", "compare", "sweep", "stress")


def commands(page: str) -> list[str]:
    lines = "".join(blocks(text_of(page), "sh")).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.startswith("servesim ")]


COMMANDS = sorted({c for page in ("README.md", "README.zh.md") for c in commands(page)})


def test_both_have_the_three_uses() -> None:
    for page in ("README.md", "README.zh.md"):
        assert {"plan", "compare", "stress"} <= {c.split()[1] for c in commands(page)}
        assert len(text_of(page).splitlines()) <= 150


@pytest.fixture
def command(line: str, servesim: Command) -> Command:  # noqa: F811
    """``servesim`` where there is what ``line`` supposes a user to have."""
    printed = next(block for block in blocks(text_of("README.md"), "yaml") if block.startswith("model: "))
    Path("my.yaml").write_text(printed, encoding="utf-8")
    rows = [f"{0.1 * i:.1f},{100 + 7 * i % 900},{20 + 11 * i % 200}" for i in range(400)]
    Path("trace.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]), encoding="utf-8")
    Path("trace.jsonl").write_text(
        "\n".join(f'{{"timestamp": {100 * i}, "input_length": {500 + i}, "output_length": 30}}' for i in range(50)),
        encoding="utf-8",
    )
    if "bench-results" in line:
        Path("bench-results").mkdir()
        write_vllm_bench(sim.run(sim.load("my.yaml", ["traffic.trace.limit=60"])), Path("bench-results/a.json"), detailed=True)
    if "recordings" in line:
        Path("recordings").mkdir()
        _, what, engine, *_ = line.split()
        recordings = sorted((ROOT / "tests" / "golden" / engine).glob("*.gz"))[:2]
        assert what == "conformance" and len(recordings) == 2
        for file in recordings:
            shutil.copy(file, "recordings")
    return servesim


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works(line: str, command: Command) -> None:
    words = shlex.split(line)[1:]
    few = ["-s", "traffic.synthetic.requests=200", "--no-save"] if words[0] in STUDIES else []
    done = command(*words, *few)
    assert done.code == 0, done
    assert done.out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("line", [c for c in COMMANDS if c.split()[1] in STUDIES])
def test_a_study_works_as_printed(line: str, command: Command) -> None:
    done = command(*shlex.split(line)[1:])
    assert done.code == 0, done
    assert done.out.strip()
