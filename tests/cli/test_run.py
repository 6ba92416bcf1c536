"""`servesim run`: what a new user meets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Command

SMALL = ("--set", "traffic.synthetic.requests=300")


def test_a_run_prints_one_screen_and_saves_everything(servesim: Command, tmp_path: Path) -> None:
    done = servesim("run", "quickstart", *SMALL)
    assert done.code == 0, done.err
    assert "TTFT" in done.out
    assert len(done.out.splitlines()) <= 40
    folder = tmp_path / "servesim-results" / "quickstart"
    names = {p.name for p in folder.iterdir()}
    assert {"requests.parquet", "requests.csv", "timeseries.parquet", "summary.json", "scenario.yaml", "report.html"} <= names
    table = pd.read_parquet(folder / "requests.parquet")
    assert len(table) == 300
    assert (table["ttft_s"] > 0).all()


def test_the_resolved_scenario_runs_again_to_the_same_bytes(servesim: Command, tmp_path: Path) -> None:
    assert servesim("run", "quickstart", *SMALL, "--out", "a").code == 0
    assert servesim("run", "a/scenario.yaml", "--out", "b").code == 0
    for name in ("requests.parquet", "requests.csv", "timeseries.csv", "summary.json", "scenario.yaml", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_json_is_json_and_nothing_else(servesim: Command) -> None:
    done = servesim("run", "quickstart", *SMALL, "--json", "--no-save")
    assert json.loads(done.out)["requests"]["finished"] == 300


def test_another_seed_gives_other_requests_and_the_same_seed_the_same(servesim: Command) -> None:
    first, again, other = (
        json.loads(servesim("run", "quickstart", *SMALL, "--json", "--no-save", "--seed", s).out)["latency"] for s in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing.yaml",), "no such file"),
        (("quickstrt",), "did you mean 'quickstart'"),
        (("quickstart", "--set", "model=llama-3.1-9b"), "did you mean 'llama-3.1-8b'"),
        (("quickstart", "--set", "deployment.accelerator=h100-sxmm"), "did you mean 'h100-sxm'"),
        (("quickstart", "--set", "deployment.engine=vlm"), "did you mean 'vllm'"),
        (("quickstart", "--set", "deployment.engine.max_num_seq=3"), "did you mean 'max_num_seqs'"),
        (("quickstart", "--set", "deployment.tp=3"), "deployment.tp"),
        (("quickstart", "--set", "model=llama-3.1-405b"), "does not fit"),
        (("quickstart", "--set", "slo.ttft=soon"), "slo.ttft: must be a time"),
        (("quickstart", "--set", "traffic.synthetic.arrival.rate=-1"), "rate"),
        (("quickstart", "--set", "traffic.synthetic.arrival.rate=nan"), "rate"),
        (("quickstart", "--set", "traffic.synthetic.requests=0"), "requests"),
        (("quickstart", "--set", "router=round_robbin"), "did you mean 'round_robin'"),
        (("quickstart", "--set", "model=llama-2-7b"), "too_long"),
        (("quickstart", "--set", "deploymnt.tp=2"), "did you mean 'deployment'"),
        (("quickstart", "--sett", "x=1"), "--set"),
    ],
)
def test_bad_input_gets_one_error_and_writes_nothing(
    servesim: Command, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = servesim("run", *arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("", "empty"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46.6805900,374\n", "GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,-4,10\n", "ContextTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,0,10\n", "ContextTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,nan,10\n", "ContextTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,5,10\n", "TIMESTAMP"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:47.0000000,5,10\n2023-11-16 18:15:46.0000000,5,10\n",
            "line 3",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,200000,10\n", "200000"),
    ],
)
def test_a_bad_trace_is_named_with_its_line_or_column(servesim: Command, tmp_path: Path, rows: str, says: str) -> None:
    (tmp_path / "trace.csv").write_text(rows)
    trace = "{format: azure-2023, path: trace.csv}"
    done = servesim("run", "quickstart", "--set", "traffic.synthetic=null", "--set", f"traffic.trace={trace}")
    assert done.code == 2
    assert says in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["trace.csv"]


def test_a_folder_that_holds_something_else_is_left_alone(servesim: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    done = servesim("run", "quickstart", *SMALL, "--out", "mine")
    assert done.code == 2
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_help_is_light() -> None:
    code = "import sys; from sim.cli import main; sys.argv = ['servesim', '--help']\ntry: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'numba', 'pandas', 'plotly', 'scipy', 'pyarrow', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "capacity" in done.stdout


def test_a_run_loads_no_more_than_it_uses(tmp_path: Path) -> None:
    """Start-up is most of a short run: what it loads is counted, as seconds depend on the machine."""
    code = (
        "import sys; from sim.cli import main; "
        f"sys.argv = ['servesim', 'run', 'quickstart', *{list(SMALL)!r}, '--out', {str(tmp_path / 'r')!r}]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end\n"
        "unused = {'pandas', 'plotly.graph_objects', 'joblib', 'scipy.stats', 'scipy.optimize', 'numba.cuda', 'distributed', 'ray', 'optuna'}\n"
        "assert not unused & set(sys.modules), unused & set(sys.modules)\n"
        "rooms = [m for m in sys.modules if m.startswith('sim.')]\n"
        "engines = {m.split('.')[3] for m in rooms if m.startswith('sim.engine.schedulers.')}\n"
        "assert engines == {'vllm'}, engines\n"
        "foreign = [m for m in rooms if m.startswith(('sim.study.questions', 'sim.study.accuracy', 'sim.study.bench', 'sim.report.exports'))]\n"
        "assert not foreign, foreign\n"
        "assert len(rooms) < 340 and len(sys.modules) < 1300, (len(rooms), len(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_interrupting_saves_what_there_is_and_says_where(servesim: Command, tmp_path: Path) -> None:
    assert servesim("run", "quickstart", *SMALL, "--no-save").code == 0  # compiled
    alarm = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    many = ("--set", "traffic.synthetic.requests=8000000", "--set", "record.timeseries=false")
    done = servesim("run", "quickstart", *many)
    alarm.cancel()
    assert done.code == 130, done.err
    assert "partial result is in" in done.err
    folder = tmp_path / "servesim-results" / "quickstart"
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 < summary["requests"]["finished"] < 8_000_000
    assert [p.name for p in folder.parent.iterdir()] == ["quickstart"]
    assert "TTFT" in done.out
    assert any("interrupted" in w for w in summary["warnings"])


TINY = ("run", "quickstart", "--set", "traffic.synthetic.requests=20")


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_a_terminal_without_our_characters_gets_what_it_can_show(encoding: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sim.cli", *TINY, "-o", "r"],
        cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert ("TTFT < 1 s" if encoding == "ascii" else "TTFT ≤ 1 s") in " ".join(text.split())
    assert "?" not in text
    assert (tmp_path / "r" / "summary.json").exists()


@pytest.mark.parametrize("command", [["scenarios"], ["profiles", "list"], ["schema"]])
def test_whoever_reads_only_the_first_line_has_not_made_it_fail(command: list[str]) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "sim.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.read(1)
    child.stdout.close()
    assert (child.wait(60), child.stderr.read()) == (0, b"")
    child.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_run_that_cannot_be_printed_is_saved(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sim.cli", *TINY, "-o", "r"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2 and b"No space left" in done.stderr
    assert (tmp_path / "r" / "summary.json").exists()


def test_a_link_to_a_folder_stays_a_link(servesim: Command, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    (tmp_path / "dangling").symlink_to(tmp_path / "new" / "place")
    assert servesim(*TINY, "-q", "-o", "link").code == 0
    assert servesim(*TINY, "-q", "-o", "dangling").code == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far" / "summary.json").exists()
    assert (tmp_path / "dangling").is_symlink() and (tmp_path / "new" / "place" / "summary.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "far", "link", "new"]


def test_a_place_that_cannot_be_written_is_refused_before_the_run(
    servesim: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    done = servesim(*TINY, "-q", "-o", "a/b")
    assert done.code == 2
    assert f"{tmp_path} cannot be written" in done.err


def test_one_run_has_no_interval(servesim: Command) -> None:
    done = servesim("repeat", "quickstart", *SMALL, "-r", "1")
    assert done.code == 0
    assert "An interval needs at least two runs" in done.out
    assert "from" not in done.out
