"""Where results are written: nothing lost, nothing half written, nothing left over, whatever happens."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sim import output
from sim.errors import ConfigError
from tests.cli.conftest import Command

TINY = ("run", "quickstart", "--set", "traffic.synthetic.requests=20", "-q")
NAMES = ("summary.json", "requests.csv", "report.html")
WRITER = """
import json, sys
from pathlib import Path
from sim import output

def fill(to, number):
    for name in ("requests.csv", "report.html", *(["odd.csv"] if number % 2 else [])):
        (to / name).write_text(str(number) * 20_000)
    (to / "summary.json").write_text(json.dumps({"format": "servesim-test/1", "number": number}))

folder, number = sys.argv[1], int(sys.argv[2])
while True:
    output.write_folder(folder, lambda to: fill(to, number))
    number += 1
    if len(sys.argv) > 3:
        break
"""
PATIENCE = 120
"""Seconds for what takes a fraction of one."""
RUNNING = """
import sim
from sim import cli

run = sim.run

def telling(scenario, progress):
    told = []

    def tell(*at):
        if not told:
            told.append(True)
            print("running", flush=True)
        return progress(*at)

    return run(scenario, progress=tell)

sim.run = telling
cli.main()
"""
"""The command, which says when its run goes on."""


def until(what: Callable[[], bool], *children: subprocess.Popen[bytes]) -> None:
    """Wait until ``what``; the children must live that long."""
    latest = time.monotonic() + PATIENCE
    while not what():
        assert [child.poll() for child in children] == [None] * len(children), "one has failed"
        assert time.monotonic() < latest, "nothing happens"
        time.sleep(0.001)


def end(*children: subprocess.Popen[bytes]) -> None:
    for child in children:
        child.kill()
        child.wait()


def listed(folder: Path) -> list[str]:
    """What a user sees, and what we hide."""
    return sorted(file.name for file in folder.iterdir() if file.name != ".servesim.json")


def whole(folder: Path) -> int:
    """The number of the one result that a folder holds."""
    number = json.loads((folder / "summary.json").read_text())["number"]
    for name in ("requests.csv", "report.html", *(["odd.csv"] if number % 2 else [])):
        assert (folder / name).read_text() == str(number) * 20_000, name
    return int(number)


@pytest.mark.parametrize("kills", [25, pytest.param(500, marks=pytest.mark.slow)])
def test_whatever_is_killed_a_folder_holds_one_whole_result_and_what_is_not_ours(tmp_path: Path, kills: int) -> None:
    folder, chance = tmp_path / "r", random.Random(1)
    subprocess.run([sys.executable, "-c", WRITER, folder, "0", "once"], check=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub" / "report.html").write_text("mine too")
    last = 0
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", WRITER, folder, str(last + 1)])
        try:
            before = (folder / "summary.json").stat().st_mtime_ns
            until(lambda: (folder / "summary.json").stat().st_mtime_ns != before, child)  # noqa: B023 - used at once
            time.sleep(chance.uniform(0, 0.02))
            child.send_signal(chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            child.wait(PATIENCE)
        finally:
            end(child)
        assert output.check(folder) == folder
        number = whole(folder)
        assert number > last
        last = number
        expected = {*NAMES, "notes.txt", "sub", *(["odd.csv"] if number % 2 else [])}
        assert listed(folder) == sorted(expected)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "sub" / "report.html").read_text() == "mine too"
    assert listed(tmp_path) == ["r"]


def test_several_writers_into_one_folder_leave_one_whole_result(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    seen: set[int] = set()

    def all_write() -> bool:
        with suppress(FileNotFoundError):
            seen.add(json.loads((folder / "summary.json").read_text())["number"])
        return {number // 100_000 for number in seen} == {1, 2, 3} and len(seen) >= 100

    children = [subprocess.Popen([sys.executable, "-c", WRITER, folder, str(100_000 * i)]) for i in range(1, 4)]
    try:
        until(all_write, *children)
        assert [child.poll() for child in children] == [None] * 3  # none has failed
    finally:
        end(*children)
    output.check(folder)
    assert set(listed(folder)) <= {*NAMES, "odd.csv"}
    whole(folder)


def fill(to: Path, *names: str) -> None:
    for name in ("summary.json", *names):
        (to / name).write_text(json.dumps({"format": "servesim-test/1", "name": name}))


def test_only_what_we_wrote_is_replaced(tmp_path: Path) -> None:
    folder, told = tmp_path / "r", []
    output.write_folder(folder, lambda to: fill(to, "a.csv", "b.csv", "c.csv"))
    (folder / "a.csv").write_text("edited")
    (folder / "b.csv").write_text("edited too")
    (folder / "export.json").write_text("mine")
    (folder / "link.csv").symlink_to(tmp_path / "elsewhere")
    token = output.on_kept.set(told.append)
    try:
        output.write_folder(folder, lambda to: fill(to, "a.csv", "export.json", "link.csv"))
    finally:
        output.on_kept.reset(token)
    assert listed(folder) == ["a.csv", "a.csv.yours", "b.csv", "export.json", "export.json.yours", "link.csv", "link.csv.yours", "summary.json"]  # fmt: skip
    assert (folder / "a.csv.yours").read_text() == "edited"
    assert (folder / "b.csv").read_text() == "edited too"
    assert (folder / "export.json.yours").read_text() == "mine"
    assert [sentence.rpartition("kept as ")[2] for sentence in told] == ["a.csv.yours", "export.json.yours", "link.csv.yours"]


def test_a_result_without_a_list_is_known_by_its_names(tmp_path: Path) -> None:
    fill(tmp_path, "report.html")
    (tmp_path / "notes.txt").write_text("mine")
    output.write_folder(tmp_path, lambda to: fill(to, "requests.csv"))
    assert listed(tmp_path) == ["notes.txt", "requests.csv", "summary.json"]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    def fails(to: Path) -> None:
        fill(to, "a.csv")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        output.write_folder(tmp_path / "new" / "r", fails)
    assert listed(tmp_path) == []
    output.write_folder(tmp_path / "r", lambda to: fill(to, "b.csv"))
    with pytest.raises(OSError, match="No space"):
        output.write_folder(tmp_path / "r", fails)
    assert listed(tmp_path / "r") == ["b.csv", "summary.json"]


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "link to nothing", "link to itself"])
@pytest.mark.parametrize("name", [".servesim.json", "report.html", "odd.csv"])
def test_what_is_no_file_in_the_place_of_one_of_ours_is_kept_aside(tmp_path: Path, name: str, what: str) -> None:
    folder = tmp_path / "r"
    output.write_folder(folder, lambda to: fill(to, *NAMES, "odd.csv"))
    file = folder / name
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to({"device": "/dev/zero", "link to nothing": tmp_path / "nothing", "link to itself": name}[what])
    kind = file.lstat().st_mode
    output.write_folder(folder, lambda to: fill(to, *NAMES, "odd.csv"))
    assert file.is_file() and not file.is_symlink()
    assert (folder / f"{name}.yours").lstat().st_mode == kind


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for data in ("[]", "{}", '{"format": 1}', "[" * 100_000, "\0"):
        (tmp_path / "summary.json").write_text(data)
        with pytest.raises(ConfigError, match="something else than a servesim result"):
            output.check(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        output.check(tmp_path / "letter.txt")
    with pytest.raises(ConfigError, match="cannot be made"):
        output.check(tmp_path / "letter.txt" / "r")
    with pytest.raises(ConfigError, match="cannot be made: File name too long"):
        output.check(tmp_path / ("x" * 300))


def test_a_file_keeps_its_link_and_its_mode_and_is_whole_or_not_there(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    output.write_file(link, lambda to: to.write_text("new") and None)
    assert link.is_symlink() and real.read_text() == "new" and real.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ZeroDivisionError):
        output.write_file(real, lambda to: to.write_text("half") // 0 and None)
    assert real.read_text() == "new" and listed(tmp_path) == ["link.csv", "real.csv"]
    with pytest.raises(ConfigError, match="--csv: there is no folder"):
        output.write_file(tmp_path / "no" / "x.csv", lambda to: None, "--csv")
    with pytest.raises(ConfigError, match="--csv: is a folder"):
        output.write_file(tmp_path, lambda to: None, "--csv")
    output.write_file("/dev/null", lambda to: to.write_text("seen by nobody") and None)
    assert Path("/dev/null").is_char_device()


def test_a_rerun_keeps_notes_and_edited_files(servesim: Command, tmp_path: Path) -> None:
    assert servesim(*TINY, "-o", "r").code == 0
    (tmp_path / "r" / "notes.txt").write_text("mine")
    with (tmp_path / "r" / "scenario.yaml").open("a") as scenario:
        scenario.write("# edited\n")
    again = servesim(*TINY, "-o", "r", "--export", "vllm-bench")
    assert again.code == 0
    assert "scenario.yaml.yours" in again.err
    assert {"notes.txt", "scenario.yaml.yours", "vllm_bench.json"} <= set(listed(tmp_path / "r"))
    assert servesim("repeat", "quickstart", *TINY[2:], "-r", "2", "-o", "r").code == 0
    assert listed(tmp_path / "r") == ["notes.txt", "report.html", "runs.jsonl", "runs.parquet", "scenario.yaml.yours", "summary.json"]  # fmt: skip


def command(*arguments: str, cwd: Path, **how: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "sim.cli", *arguments], cwd=cwd, **how)  # type: ignore[call-overload,no-any-return]


def test_a_reader_that_goes_away_and_closed_streams_lose_nothing(tmp_path: Path) -> None:
    away = command(*TINY[:-1], "-o", "a", cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert away.stdout is not None and away.stderr is not None
    away.stdout.close()
    assert (away.stderr.read(), away.wait()) == (b"", 0)
    away.stderr.close()
    closed = command(*TINY[:-1], "-o", "b", cwd=tmp_path, preexec_fn=lambda: os.closerange(0, 3))
    assert closed.wait() == 0
    assert listed(tmp_path / "a") == listed(tmp_path / "b")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_polite_end_saves_what_there_is(servesim: Command, tmp_path: Path, number: signal.Signals) -> None:
    assert servesim(*TINY, "--no-save").code == 0  # compiled
    many = ("-s", "traffic.synthetic.requests=8000000", "-s", "record.timeseries=false")
    words = [sys.executable, "-c", RUNNING, "run", "quickstart", *many, "-q", "-o", "r"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and select.select([child.stdout], [], [], PATIENCE)[0], "it never runs"
            assert child.stdout.readline() == b"running\n"
            child.send_signal(number)
            _, said = child.communicate(timeout=PATIENCE)
        finally:
            end(child)
    assert (child.returncode, b"the partial result is in r" in said) == (128 + number, True)
    assert "interrupted" in (tmp_path / "r" / "summary.json").read_text()
    assert listed(tmp_path) == ["r"]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount a small disk")
def test_a_full_disk_loses_nothing_that_was_there(servesim: Command, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk], capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        (disk / "notes.txt").write_text("mine")
        full = servesim(*TINY, "-o", disk / "r")
        assert full.code == 2 and "No space left" in full.err
        assert listed(disk) == ["notes.txt"]
    finally:
        subprocess.run(["umount", disk], check=True)
