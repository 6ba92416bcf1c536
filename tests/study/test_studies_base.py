"""What every study gets: parallel running, a store that survives anything, failures as rows, interruption, one command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import sim
from sim import registry
from sim.errors import ConfigError, DataError
from sim.study.base import Interrupted, Params, Study, Trial
from sim.study.driver import api, run_study
from sim.study.questions.sweep import Sweep, SweepParams
from tests.cli.conftest import Command, servesim  # noqa: F401

OVER = {"deployment.engine.max_num_seqs": [2, 8, 64], "traffic.synthetic.arrival.rate": ["4/s", "12/s"]}


@pytest.fixture(scope="module")
def scenario() -> Any:
    return sim.load("quickstart", ["traffic.synthetic.requests=60", "record.timeseries=false"])


@dataclass
class Sum:
    """Answer of the study below."""

    values: list[float]

    def sentence(self) -> str:
        return f"{len(self.values)} values"

    def as_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    @property
    def verdict(self) -> bool | None:
        return sum(self.values) > 0


class Halving(Study):
    """Asks one run after the other, each by the answer of the last one."""

    name = "halving"
    Params = Params

    def run(self) -> Iterator[Any]:
        rate, seen = 8.0, []
        try:
            for _ in range(4):
                (done,) = yield [Trial(self.scenarios[0], {"step": len(seen)}, {"rate": rate})]
                seen.append(done.value()["latency"]["ttft_s"]["mean"])
                rate *= 0.5 if seen[-1] > 0.04 else 1.5
        except Interrupted:
            pass
        return Sum(seen)


class Counter:
    """Progress that counts calls and stops the study after ``limit`` finished trials."""

    def __init__(self, limit: float = float("inf")) -> None:
        self.limit, self.last = limit, 0.0

    def __call__(self, done: float, total: int | None, label: str) -> bool:
        self.last = done
        return done >= self.limit


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("runs.parquet", "summary.json", "report.html")}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def test_one_and_two_processes_give_the_same_bytes(scenario: Any, tmp_path: Path) -> None:
    for jobs in (1, 2):
        sim.sweep(scenario, over=OVER, jobs=jobs, out=tmp_path / str(jobs))
    assert files(tmp_path / "1") == files(tmp_path / "2")
    table = pq.read_table(tmp_path / "1" / "runs.parquet").to_pylist()
    assert [row["deployment.engine.max_num_seqs"] for row in table] == [2, 2, 8, 8, 64, 64]
    assert table[0]["latency.ttft_s.p99"] >= table[4]["latency.ttft_s.p99"]


def test_an_interrupted_study_goes_on_and_runs_nothing_twice(scenario: Any, tmp_path: Path) -> None:
    whole = sim.sweep(scenario, over=OVER, out=tmp_path / "whole", jobs=1)
    part = sim.sweep(scenario, over=OVER, out=tmp_path / "part", jobs=1, progress=Counter(2))
    assert len(part.rows) == 2
    assert "4 still to run" in part.sentence()
    again = sim.sweep(scenario, over=OVER, out=tmp_path / "part", jobs=1)
    assert again == whole
    assert files(tmp_path / "part") == files(tmp_path / "whole")
    keys = [line["key"] for line in lines(tmp_path / "part") if "key" in line]
    assert len(keys) == len(set(keys)) == 6


def test_a_study_that_decides_by_its_runs_is_continued_by_asking_it_again(scenario: Any, tmp_path: Path) -> None:
    def ask(**how: Any) -> Any:
        return run_study(Halving([scenario], Params()), jobs=1, **how)

    whole = ask(out=tmp_path / "whole")
    assert len(ask(out=tmp_path / "part", progress=Counter(2)).values) == 2
    assert ask(out=tmp_path / "part") == whole
    assert files(tmp_path / "part") == files(tmp_path / "whole")
    assert "4 values" in (tmp_path / "part" / "report.html").read_text()


def test_what_a_sudden_end_tore_off_is_run_again(scenario: Any, tmp_path: Path) -> None:
    whole = sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1)
    before = files(tmp_path)
    raw = (tmp_path / "runs.jsonl").read_bytes()
    for cut in (len(raw) // 2, 30, 0):
        (tmp_path / "runs.jsonl").write_bytes(raw[:cut])
        assert sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1) == whole
        assert files(tmp_path) == before


def test_a_damaged_line_is_named(scenario: Any, tmp_path: Path) -> None:
    sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1)
    text = (tmp_path / "runs.jsonl").read_text().splitlines()
    text[2] = text[2][:50]
    (tmp_path / "runs.jsonl").write_text("\n".join(text) + "\n")
    with pytest.raises(DataError, match=r"runs\.jsonl:3.*--fresh"):
        sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1)
    sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1, fresh=True)


def test_a_changed_study_is_refused_while_unfinished_and_loses_nothing(scenario: Any, tmp_path: Path) -> None:
    sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1, progress=Counter(2))
    before = (tmp_path / "runs.jsonl").read_bytes()
    other = OVER | {"deployment.engine.max_num_seqs": [2, 8, 32]}
    with pytest.raises(ConfigError, match=r"64 and is 32.*--fresh"):
        sim.sweep(scenario, over=other, out=tmp_path, jobs=1)
    assert (tmp_path / "runs.jsonl").read_bytes() == before
    sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1)
    counted = Counter()
    more = OVER | {"deployment.engine.max_num_seqs": [2, 8, 32, 64]}
    answer = sim.sweep(scenario, over=more, out=tmp_path, jobs=1, progress=counted)  # a finished one may be extended
    assert len(answer.rows) == 8
    assert len([line for line in lines(tmp_path) if "key" in line]) == 8


def test_other_code_runs_again(scenario: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1)
    first = {line["key"] for line in lines(tmp_path) if "key" in line}
    for module in ("keys", "driver"):
        monkeypatch.setattr(f"sim.study.{module}.code_version", lambda: "another")
    assert sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1) == whole
    second = {line["key"] for line in lines(tmp_path) if "key" in line}
    assert len(second) == 6
    assert not first & second


def test_a_trace_that_changed_is_run_again(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    spec = ["traffic.synthetic=null", f"traffic.trace={{format: csv, path: '{trace}'}}", "record.timeseries=false"]
    answers, held = [], []
    for output in (10, 200):
        rows = "".join(f"{i},100,{output}\n" for i in range(20))
        trace.write_text("arrival_s,prompt_tokens,output_tokens\n" + rows)
        one = sim.load("quickstart", spec)
        answers.append(sim.sweep(one, over={"deployment.replicas": [1, 2]}, out=tmp_path / "out", jobs=1))
        held.append(sim.capacity(one, tolerance=0.5, jobs=1).probes[0].summary["tokens"]["output"])
    assert held[0] * 20 == held[1]
    assert answers[0].rows[0]["tokens.output"] * 20 == answers[1].rows[0]["tokens.output"]


def test_a_trial_that_fails_is_a_row(scenario: Any, tmp_path: Path) -> None:
    answer = sim.sweep(
        scenario, over={"model": ["llama-3.1-8b", "llama-3.1-405b"], "deployment.tp": [1, 3]}, out=tmp_path, jobs=1
    )
    errors = [row["error"] for row in answer.rows]
    assert [e is None for e in errors] == [True, False, False, False]
    assert "does not fit" in errors[2]
    assert answer.failed == 3
    assert pq.read_table(tmp_path / "runs.parquet").column("error").to_pylist() == errors


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "settings to vary"),
        ({"over": ["deployment.tp"]}, "PATH=VALUES"),
        ({"over": ["deployment.tp=1,2", "deployment.tp=4"]}, "given twice"),
        ({"over": ["deploymnt.tp=1,2"]}, "did you mean 'deployment'"),
        ({"over": ["deployment.tp=1,zwei"]}, "deployment.tp"),
        ({"over": ["deployment.tp=0,1"]}, "deployment.tp"),
        ({"over": ["deployment.engine=vllm,vlm"]}, "did you mean 'vllm'"),
        ({"over": ["deployment.engine.max_num_seq=1,2"]}, "did you mean 'max_num_seqs'"),
        ({"over": ["deployment.tp=4..2:2"]}, "rise"),
        ({"over": ["traffic.synthetic.arrival.rate=4/s..9ms:2"]}, "two units"),
        ({"over": ["traffic.synthetic.arrival.rate=4/s..9/s"]}, "number of values"),
        ({"over": ["traffic.synthetic.arrival.rate=4/foo..9/foo:3"]}, "unit"),
        ({"over": {"deployment.tp": {"from": 1, "to": 4, "step": 2}}}, "no part of a range"),
        ({"over": {"deployment.tp": [1]}, "sample": "soboll"}, "sobol"),
        ({"over": {"deployment.tp": [1]}, "replications": 0}, "replications"),
        ({"over": {"deployment.tp": [1]}, "ovr": 1}, "did you mean 'over'"),
        ({"points": [{"deployment.tp": 1}, {"deployment.pp": 1}]}, "first point"),
    ],
)
def test_a_sweep_that_cannot_be_says_why_before_anything_runs(scenario: Any, tmp_path: Path, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        sim.sweep(scenario, **options, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["latin-hypercube", "sobol", "random"])
def test_samples_fill_their_ranges(scenario: Any, method: str) -> None:
    over = {
        "traffic.synthetic.arrival.rate": {"from": "1/s", "to": "100/s", "scale": "log"},
        "deployment.engine.max_num_seqs": {"from": 1, "to": 256},
    }
    study = Sweep([scenario], SweepParams(over=over, sample=method, n=64))
    trials = study.trials()
    rates = [float(t.settings["traffic.synthetic.arrival.rate"].removesuffix("/s")) for t in trials]
    seqs = [t.settings["deployment.engine.max_num_seqs"] for t in trials]
    assert all(1 <= r <= 100 for r in rates)
    assert all(isinstance(s, int) and 1 <= s <= 256 for s in seqs)
    assert 20 <= sum(r < 10 for r in rates) <= 44  # half of a logarithmic range
    assert [t.settings for t in trials] == [t.settings for t in Sweep([scenario], study.params).trials()]


def test_replications_are_other_draws_and_the_first_is_the_scenario_itself(scenario: Any) -> None:
    answer = sim.sweep(scenario, over={"deployment.replicas": [1, 2]}, replications=3, jobs=1)
    means = [row["latency.ttft_s.mean"] for row in answer.rows]
    assert len(set(means)) == 6
    assert [row["seed"] for row in answer.rows[:3]] == [row["seed"] for row in answer.rows[3:]]  # common random numbers
    assert means[0] == sim.run(scenario).summary["latency"]["ttft_s"]["mean"]


def test_recorded_traffic_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,10,10\n1,10,10\n")
    one = sim.load("quickstart", ["traffic.synthetic=null", f"traffic.trace={{format: csv, path: '{tmp_path / 't.csv'}'}}"])
    with pytest.raises(ConfigError, match="same recorded requests"):
        sim.sweep(one, over={"deployment.tp": [1, 2]}, replications=2)


def test_two_processes_cannot_write_one_folder(scenario: Any, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    def meddle(done: float, total: int | None, label: str) -> None:
        if done == 3:
            with pytest.raises(ConfigError, match="another servesim"):
                sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1)

    sim.sweep(scenario, over=OVER, out=tmp_path, jobs=1, progress=meddle)


def test_a_folder_of_something_else_is_left_alone(scenario: Any, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="something else"):
        sim.sweep(scenario, over=OVER, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


LOAD = 'import sim; s = sim.load("quickstart", ["traffic.synthetic.requests=3000", "record.timeseries=false"]); '
SWEEP = (
    LOAD
    + 'sim.sweep(s, over={"deployment.engine.max_num_seqs": [4, 8, 16, 32, 64, 128], "deployment.replicas": [1, 2, 3]}, out="OUT", jobs=2)'
)
COMPARE = (
    LOAD + 'sim.compare(s, over={"deployment.accelerator": ["h100-sxm", "a100-sxm-80g"]}, replications=9, out="OUT", jobs=2)'
)


PLAN = (
    LOAD
    + 's = s.model_copy(update={"economics": sim.loads(sim.config.to_yaml(s), ["economics={accelerator_hour: {h100-sxm: 2, a100-sxm-80g: 1}}"]).economics}); '
    'sim.plan(s, candidates={"deployment.accelerator": ["h100-sxm", "a100-sxm-80g"], "deployment.tp": [1, 2]}, screen=100, replications=3, '
    'out="OUT", jobs=2)'
)


def killed_and_restarted(tmp_path: Path, kills: int, seed: int, study: str = SWEEP) -> None:
    """SIGKILL at random moments, then a whole run: the same files as one that was never disturbed, nothing run twice."""
    import random

    chance = random.Random(seed)
    script = study.replace("OUT", str(tmp_path / "killed"))
    for _ in range(kills):
        running = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
        file = tmp_path / "killed" / "runs.jsonl"
        before = file.stat().st_size if file.exists() else 0
        end = time.monotonic() + 60
        while time.monotonic() < end and running.poll() is None:  # until it has got somewhere
            if file.exists() and file.stat().st_size > before + chance.choice([0, 0, 3000]):
                break
            time.sleep(0.005)
        time.sleep(chance.random() * 0.2)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    for name in ("killed", "whole"):
        subprocess.run([sys.executable, "-c", study.replace("OUT", str(tmp_path / name))], check=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    keys, undisturbed = (sorted(line["key"] for line in lines(tmp_path / name) if "key" in line) for name in ("killed", "whole"))
    assert len(keys) == len(set(keys))
    assert keys == undisturbed
    assert len(keys) == 18 or (study == PLAN and len(keys) > 12)


@pytest.mark.parametrize("study", [SWEEP, COMPARE, PLAN], ids=["sweep", "compare", "plan"])
def test_kill_and_go_on(tmp_path: Path, study: str) -> None:
    killed_and_restarted(tmp_path, 2, 1, study)


@pytest.mark.slow
@pytest.mark.parametrize("study", [SWEEP, COMPARE, PLAN], ids=["sweep", "compare", "plan"])
def test_kill_and_go_on_twenty_times(tmp_path: Path, study: str) -> None:
    for i in range(4):
        killed_and_restarted(tmp_path / str(i), 5, i, study)


def test_a_worker_that_dies_does_not_end_the_study(scenario: Any, tmp_path: Path) -> None:
    class Deadly(Halving):
        name = "deadly"

        def run(self) -> Iterator[Any]:
            outcomes = yield [Trial(self.scenarios[0], {"i": i}, {"rate": 5.0 + i}) for i in range(6)]
            return Sum([o.data["pid"] if o.data else -1.0 for o in outcomes])

        @staticmethod
        def observe(result: Any, trial: Trial) -> dict[str, Any]:
            if trial.settings["i"] == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"pid": float(os.getpid() != parent)}

    parent = os.getpid()
    answer = run_study(Deadly([scenario], Params()), jobs=2)
    assert answer.values[3] == -1.0  # type: ignore[attr-defined]
    assert answer.values.count(-1.0) == 1  # type: ignore[attr-defined]
    assert sum(answer.values) >= 3  # type: ignore[attr-defined]


def test_a_strangers_study_is_a_command_and_a_function(monkeypatch: pytest.MonkeyPatch, scenario: Any, servesim: Command) -> None:  # noqa: F811
    from sim.cli.studies import add

    monkeypatch.setitem(registry._registered["study"], "halving", Halving)
    add(Halving)
    done = servesim("halving", "quickstart", "--set", "traffic.synthetic.requests=60", "--json", "--no-save")
    assert done.code == 0, done.err
    assert json.loads(done.out)["values"] == api(Halving)(sim.load("quickstart", ["traffic.synthetic.requests=60"])).values
    assert sim.halving(scenario).sentence() == "4 values"
    assert servesim("halving", "--help").out.count("Asks one run after the other")


def test_the_command_runs_a_study_file(servesim: Command, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.yaml").write_text(
        "study: sweep\nscenario: quickstart\nset: {traffic.synthetic.requests: 60}\nover:\n  deployment.replicas: [1, 2]\nreplications: 2\n"
    )
    done = servesim("sweep", "sub/mine.yaml", "--json", "--out", "o")
    assert done.code == 0, done.err
    assert json.loads(done.out)["runs"] == 4
    assert json.loads(servesim("sweep", "sub/mine.yaml", "-r", "1", "--json", "--no-save").out)["runs"] == 2
    assert servesim("sweep", "quickstart").code == 2
    wrong = servesim("sweep", "quickstart", "--over", "deployment.tp=1", "--cluster", "rai://x")
    assert wrong.code == 2
    assert "ray://" in wrong.err


def test_gate_exits_with_3_when_nothing_holds(servesim: Command) -> None:  # noqa: F811
    over = (
        "--over",
        "deployment.replicas=1,2",
        "--set",
        "traffic.synthetic.requests=60",
        "--set",
        "slo.ttft=1us",
        "--no-save",
        "-q",
    )
    assert servesim("sweep", "quickstart", *over, "--gate").code == 3
    assert servesim("sweep", "quickstart", *over).code == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_pool_whose_manager_died_is_made_anew(capfd: pytest.CaptureFixture[str]) -> None:
    """A warning that is an error ends loky's thread that hands out work: nothing would ever be done again."""
    from joblib.externals.loky import reusable_executor

    def asked() -> str:
        return str(sim.repeat(sim.load("quickstart", ["traffic.synthetic.requests=200"]), replications=6, jobs=2).sentence())

    first = asked()
    manager = reusable_executor._executor._executor_manager_thread

    def dies(_: object) -> None:
        raise UserWarning("a worker stopped while some jobs were given to the executor")

    manager.process_result_item = dies

    assert asked() == first
    assert not manager.is_alive()
    capfd.readouterr()


def test_every_study_says_in_its_own_words_when_its_gate_closes() -> None:
    words = [registry.lookup("study", name).gate for name in registry.names("study")]
    assert Study.gate not in words and all(w.startswith("when ") for w in words)
