"""Processes that compile the same function at the same time: one does, the others wait for it."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from sim import jit, kept_code
from sim.turns import Turn

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")


@needs_locks
def test_who_comes_second_waits(tmp_path):
    first, second, told = Turn(tmp_path / "lock"), Turn(tmp_path / "lock"), []
    first.take()
    waiting = threading.Thread(target=lambda: (second.take(), told.append("mine")))
    waiting.start()
    waiting.join(0.2)
    assert not told
    first.leave()
    waiting.join(10.0)
    assert told == ["mine"]
    second.leave()
    assert not (tmp_path / "lock").exists()


def test_a_folder_that_cannot_be_written_keeps_nobody_waiting(tmp_path):
    for _ in range(2):
        turn = Turn(tmp_path / "not there" / "lock")
        turn.take()
    turn.leave()


def test_a_full_disk_keeps_nothing_and_stops_nobody(monkeypatch):
    def full(self, key, data):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(kept_code._File, "save", full)

    @jit.kernel
    def twice(x):
        return 2 * x

    assert twice(21) == 42


def test_who_is_interrupted_before_it_compiles_gives_its_turn_up(monkeypatch):
    left = []

    class Interrupted(Turn):
        def take(self):
            super().take()
            raise KeyboardInterrupt

        def leave(self):
            super().leave()
            left.append(self)

    @jit.kernel
    def thrice(x):
        return 3 * x

    with monkeypatch.context() as patched:
        patched.setattr(kept_code, "Turn", Interrupted)
        patched.setattr(kept_code._File, "load", lambda self, key: None)
        with pytest.raises(KeyboardInterrupt):
            thrice(14)
    assert len(left) == 1
    assert thrice(14) == 42


COMMON = """
import sys
sys.path.insert(0, {folder!r})
from sim import kept_code
told = []
kept_code.listeners.append(lambda name, signature: told.append(name))
import mine
"""
MINE = """
from sim.jit import kernel

@kernel
def right(x):
    total = 0.0
    for i in range(x):
        total += i ** 0.5 + str(i).count("1")
    return total

@kernel
def wrong(x):
    return x + nobody_knows_it
"""


def start(tmp_path, code):
    file = tmp_path / "mine.py"
    if not file.exists():  # whoever edits it has it compiled again
        file.write_text(MINE)
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    code = COMMON.format(folder=str(tmp_path)) + code
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@needs_locks
@pytest.mark.skipif(not jit.JIT, reason="needs the compiler")
def test_two_processes_compile_a_function_once(tmp_path):
    both = [start(tmp_path, "print(mine.right(9), len(told))") for _ in range(2)]
    said = sorted(p.communicate(timeout=120)[0].split() for p in both)
    assert [n for _, n in said] == ["0", "1"]
    assert said[0][0] == said[1][0]
    assert not list((tmp_path / "cache").rglob("*.lock"))


@needs_locks
@pytest.mark.skipif(not jit.JIT, reason="needs the compiler")
def test_who_fails_to_compile_keeps_nobody_waiting(tmp_path):
    code = "try: mine.wrong(1)\nexcept Exception: pass\nprint(mine.wrong._cache._turn)"
    out, err = start(tmp_path, code).communicate(timeout=120)
    assert out.strip() == "None", err
    assert not list((tmp_path / "cache").rglob("*.lock"))
