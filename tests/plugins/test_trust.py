"""A scenario's code runs on the command line only where the user named it, allowed it, or trusts its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim
from sim import config, trust
from tests.cli.conftest import Command
from tests.cli.conftest import servesim as servesim

ROUTER = """
from pathlib import Path
from sim.policy.router import Router

Path({mark!r}).touch()

class Mine(Router):
    name = "mine"

    def choose(self, request, replicas, now):
        return 0
"""
FEW = ("-s", "traffic.synthetic.requests=20", "--no-save", "-q")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the code of a stranger leaves behind when it ran; its scenario is ``theirs/scenario.yaml``."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "mine.py").write_text(ROUTER.format(mark=str(tmp_path / "ran")))
    text = config.to_yaml(sim.load("quickstart", ("deployment.replicas=2",))).replace(
        "name: round_robin", "name: mine.py:Mine", 1
    )
    (folder / "scenario.yaml").write_text(text)
    return tmp_path / "ran"


def test_the_code_of_a_scenario_does_not_run_by_itself(servesim: Command, mark: Path) -> None:
    done = servesim("run", "theirs/scenario.yaml", *FEW)
    assert done.code == 2 and not mark.exists()
    assert "is a program that the scenario names" in done.err and "--allow-code" in done.err
    assert servesim("compare", "theirs/scenario.yaml", "quickstart", *FEW).code == 2 and not mark.exists()


def test_it_runs_where_it_is_allowed(servesim: Command, mark: Path) -> None:
    done = servesim("run", "theirs/scenario.yaml", *FEW, "--allow-code")
    assert done.code == 0, done.err
    assert mark.exists()


def test_it_runs_from_a_trusted_folder(servesim: Command, mark: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(trust.VARIABLE, str(tmp_path / "theirs"))
    assert servesim("run", "theirs/scenario.yaml", *FEW).code == 0 and mark.exists()
    monkeypatch.delenv(trust.VARIABLE)
    mine = trust._settings()
    mine.parent.mkdir(parents=True)
    mine.write_text(f"# mine\n{tmp_path / 'theirs'}\n")
    assert servesim("run", "theirs/scenario.yaml", *FEW).code == 0


def test_what_the_user_names_himself_runs(servesim: Command, mark: Path) -> None:
    assert servesim("run", "fleet", *FEW, "-s", "router=theirs/mine.py:Mine").code == 0
    assert mark.exists()


def test_a_python_program_is_asked_nothing(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mark.parent)
    sim.run(sim.load("theirs/scenario.yaml", ("traffic.synthetic.requests=20",)))
    assert mark.exists()
