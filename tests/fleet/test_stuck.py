"""Compiled code of a plug-in that loops for ever: one error that names it, and the program ends."""

import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sim import guard
from sim.engine.schedulers import static
from sim.fleet.stuck import look_on

ROOT = Path(__file__).resolve().parents[2]


def told(monkeypatch: pytest.MonkeyPatch, progress: Callable[[], object], *rooms: tuple[str, ...]) -> int:
    """How often ``tell`` is called while this thread waits."""
    monkeypatch.setattr(guard, "LIMIT", 0.2)
    calls: list[int] = []
    done = threading.Event()
    given = (threading.get_ident(), progress, lambda: calls.append(1), done, *rooms)
    looking = threading.Thread(target=look_on, args=given, daemon=True)
    looking.start()
    time.sleep(1.0)  # as a call of compiled code: the thread stands at one instruction
    done.set()
    looking.join(30.0)
    assert not looking.is_alive()
    return len(calls)


def test_a_call_that_does_not_come_back_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, lambda: 0, (__name__,)) == 1


def test_steps_that_begin_and_end_are_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(1_000_000))
    assert told(monkeypatch, lambda: next(steps), (__name__,)) == 0


def test_other_code_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, lambda: 0) == 0


@pytest.mark.slow
def test_a_scheduler_that_loops_for_ever_ends_the_command(tmp_path: Path) -> None:
    source = inspect.getsource(static).replace('@register("engine")', "")
    endless = source.replace("def _plan(s):", "def _plan(s):\n    while s.n_slots >= 0:\n        s.n_free += 0\n", 1)
    assert endless != source
    file = tmp_path / "endless.py"
    file.write_text(endless.replace("class Static(", "class Endless("))
    command = [sys.executable, "-m", "sim.cli", "run", "quickstart", "--no-save", "-q", "-s", f"deployment.engine={file}:Endless"]
    command += ["-s", "deployment.profile=static", "-s", "traffic.synthetic.requests=10"]
    environment = os.environ | {"SERVESIM_PLUGIN_SECONDS": "60", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.count("error: ") == 1 and str(file) in done.stderr and "has not come back after 60 s" in done.stderr
