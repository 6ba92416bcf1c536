"""Places that cannot be written, that belong to others, and names that are no paths."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sim
from sim import kept_code, output
from sim.errors import ServesimError
from sim.places import files_below
from tests.cli.conftest import Command

RUN = ("run", "quickstart", "-s", "traffic.synthetic.requests=20", "-q", "--no-save")
COMMANDS = [
    ("run", "@"), ("memory", "@"), ("select", "@"), ("compare", "@", "quickstart", "--no-save"), ("warm", "@"),
    ("accuracy", "@", "--scenario", "quickstart"), ("calibrate", "@", "--scenario", "quickstart"), ("conformance", "vllm", "@"), ("conformance", "router", "@"),
    ("traffic", "describe", "@"), ("traffic", "convert", "@", "-o", "out.csv"), (*RUN[:-1], "-o", "@"),
    *((*RUN, "-s", f"{name}=@") for name in ("model", "model.config", "deployment.accelerator", "deployment.network", "deployment.profile", "router",
                                             "deployment.engine", "traffic.trace.path", "economics.prices")),
]  # fmt: skip
NO_PATHS = {
    "too long": "x" * 300,
    "too deep": "x/" * 3000 + "y",
    "nobody's home": "~nobodyhere/x.yaml",
    "NUL": "a\0b",
    "a loop": "loop",
    "inside a file": "file/x",
}


@pytest.mark.parametrize("name", NO_PATHS.values(), ids=NO_PATHS.keys())
def test_what_is_no_path_is_refused_in_a_sentence(servesim: Command, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for words in COMMANDS:
        told = servesim(*(word.replace("@", name) for word in words))
        assert told.code == 2, (words, told)
        assert told.err and len(told.err) < 4000 and "[Errno" not in told.err, (words, told.err[:500])
    with pytest.raises(ServesimError):
        sim.run(sim.load("quickstart", (f"model={name}",)))


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nobody may write; where root may, a disk that cannot be written."""
    folder = tmp_path / "closed"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if shutil.which("mount") is None or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_place_that_cannot_be_written_is_refused_before_the_run(
    servesim: Command, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "run", lambda *_, **__: pytest.fail("it ran"))
    for words in (RUN[:-1], ("repeat", *RUN[1:-1], "-r", "2"), ("compare", "quickstart", "fleet")):
        told = servesim(*words, "-o", closed / "r")
        assert told.code == 2 and "cannot be written" in told.err and "name another folder" in told.err, told
    assert list(closed.iterdir()) == []


def test_a_place_that_is_a_loop_of_links_is_called_one(servesim: Command, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    told = servesim(*RUN[:-1], "-o", "loop")
    assert told.code == 2 and "is a link that leads back to itself (got 'loop')" in told.err, told


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    def fill(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for write, name in ((output.write_folder, "results"), (output.write_file, "out.csv")):
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / name}'"):
            write(tmp_path / name, fill)
        assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_moves_compiled_code_to_a_folder_of_ones_own(closed: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    lost = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "NUMBA_DISABLE_JIT")
    told = subprocess.run(
        [sys.executable, "-c", "import sim.kept_code as k; print(k._config.CACHE_DIR)"],
        env={k: v for k, v in os.environ.items() if k not in lost} | {"HOME": str(closed), "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = Path(told.stdout.strip())
    assert folder.is_dir() and folder.parent == tmp_path / "tmp" / f"servesim-numba-{os.getuid()}"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("whose", ["own", "another's", "open to all", "a link", "a link to nothing", "a file"])
def test_compiled_code_that_another_may_have_written_is_not_used(
    whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usual = tmp_path / f"servesim-numba-{os.getuid()}"
    if whose == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        usual.symlink_to(tmp_path / "elsewhere")
    elif whose == "a link to nothing":
        usual.symlink_to(tmp_path / "nothing")
    elif whose == "a file":
        usual.touch(mode=0o600)
    else:
        usual.mkdir(mode=0o700)
    if whose == "another's":
        if os.geteuid() != 0:
            pytest.skip("needs to give a folder away")
        os.chown(usual, 12345, 12345)
    elif whose == "open to all":
        usual.chmod(0o777)
    folder = kept_code._temporary_folder("0123456789abcdef")
    assert (folder.parent == usual) == (whose == "own")
    status = folder.parent.lstat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.getuid(), 0o700) and not folder.parent.is_symlink()
    assert (
        whose in ("own", "a link to nothing", "a file")
        or list((tmp_path / "elsewhere" if whose == "a link" else usual).iterdir()) == []
    )


def test_folders_that_are_links_are_looked_into_once(tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    (elsewhere / "deep").mkdir(parents=True)
    here.mkdir()
    (elsewhere / "deep" / "points.jsonl").write_text("")
    (here / "b.json").write_text("")
    (here / "twice").symlink_to(elsewhere)
    (here / "link").symlink_to(elsewhere)
    (here / "round").symlink_to(here)
    (here / "gone").symlink_to(tmp_path / "nowhere")

    assert [str(p.relative_to(here)) for p in files_below(here)] == ["b.json", "link/deep/points.jsonl"]
    assert files_below(here / "b.json") == []
