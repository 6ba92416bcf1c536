"""The commands of both READMEs: with few requests in the suite, as printed with ``-m slow``."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import sim
from sim import cli
from sim.report.exports.vllm_bench import write_vllm_bench

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ("plan", "capacity", "select", "compare", "sweep", "stress")


def commands(page: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.startswith("servesim ")]


COMMANDS = sorted({c for page in ("README.md", "README.zh.md") for c in commands(page)})


def test_both_have_the_three_uses() -> None:
    for page in ("README.md", "README.zh.md"):
        assert {"plan", "compare", "stress"} <= {c.split()[1] for c in commands(page)}
        assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= 150


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the READMEs suppose a user to have."""
    monkeypatch.chdir(tmp_path)
    printed = re.search(r"^```yaml\n(model: .*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    assert printed
    Path("my.yaml").write_text(printed[1], encoding="utf-8")
    rows = [f"{0.1 * i:.1f},{100 + 7 * i % 900},{20 + 11 * i % 200}" for i in range(400)]
    Path("trace.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]), encoding="utf-8")
    Path("trace.jsonl").write_text(
        "\n".join(f'{{"timestamp": {100 * i}, "input_length": {500 + i}, "output_length": 30}}' for i in range(50)),
        encoding="utf-8",
    )
    Path("bench-results").mkdir()
    write_vllm_bench(sim.run(sim.load("my.yaml", ["traffic.trace.limit=60"])), Path("bench-results/a.json"), detailed=True)
    for engine in ("vllm", "mindie"):
        source = ROOT / "tests" / "golden" / engine
        if f"conformance {engine}" in " ".join(COMMANDS):
            Path("recordings").mkdir(exist_ok=True)
            for file in sorted(source.glob("*.gz"))[:2]:
                shutil.copy(file, "recordings")
    return tmp_path


def execute(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    try:
        cli.main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    words = line.split()
    engine = words[2] if words[1] == "conformance" else ""
    for file in Path("recordings").glob("*"):
        if not (ROOT / "tests" / "golden" / engine / file.name).exists():
            file.unlink()
    few = " -s traffic.synthetic.requests=200 --no-save" if words[1] in STUDIES else ""
    assert execute(line + few, monkeypatch) == 0, capfd.readouterr()
    assert capfd.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("line", [c for c in COMMANDS if c.split()[1] in STUDIES])
def test_a_study_works_as_printed(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert execute(line, monkeypatch) == 0, capfd.readouterr()
    assert capfd.readouterr().out.strip()
