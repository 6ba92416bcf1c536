"""Places where results are written: nothing half written, nothing that is not ours replaced, whatever ends the program.

A folder is filled beside itself (`_STAGE`), then that is renamed to `_COMMIT`: from there on the new files go to their places, by whoever
comes next should this process not live to do it. `_LIST` says which files are ours, and what they were when we wrote them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from sim.document import loads
from sim.errors import ConfigError

_STAGE: Final = ".servesim-new-"
_COMMIT: Final = ".servesim-commit"
_LIST: Final = ".servesim.json"
_LAST: Final = "summary.json"
_WITHOUT_LIST: Final = (
    *("requests.parquet", "requests.csv", "requests.csv.gz", "timeseries.parquet", "timeseries.csv", "timeseries.csv.gz"),
    *("itl_histogram.csv", "summary.json", "scenario.yaml", "report.html", "runs.jsonl", "runs.parquet"),
)
"""What results have that were written before there was a list."""
_LARGEST: Final = 1 << 28
"""Bytes of a summary."""
_DIGESTED: Final = 1 << 22
"""Bytes up to which a file is known by its content, beyond by its size."""

_PATIENCE: Final = 3_000
"""Hundredths of a second to wait for another program that writes to the same place; a lock is held for no longer than renaming takes."""

on_kept: ContextVar[Callable[[str], object] | None] = ContextVar("on_kept", default=None)
"""Told, in a sentence, of a user's file that had to make room and is kept under another name."""


def check(folder: str | Path, field: str = "output") -> Path:
    """The real place of a folder for results. Cheap, for before a long run.

    *Raises* `ConfigError` for a place that cannot be written, or that holds anything but an earlier result or nothing.
    """
    at = _real(folder, field)
    shown = str(folder)
    if at.is_dir():
        if not os.access(at, os.W_OK | os.X_OK):
            raise ConfigError(field, shown, f"{at} cannot be written", hint="name another folder")
        settle(at)
        if not _ours_at_all(at):
            raise ConfigError(
                field, shown, "is a folder that holds something else than a servesim result", hint="name a new or an empty folder"
            )
        return at
    if os.path.lexists(at):
        raise ConfigError(field, shown, "is a file, not a folder", hint="name a new folder")
    _check_parent(at, field, shown, "folder")
    return at


def check_file(path: str | Path, field: str) -> Path:
    """The real place of a single file to be written. Raises `ConfigError` where it cannot be."""
    at = _real(path, field)
    if at.is_dir():
        raise ConfigError(field, str(path), "is a folder, not a file", hint="name a file")
    if os.path.lexists(at) and not os.access(at, os.W_OK):
        raise ConfigError(field, str(path), "cannot be written", hint="name another file")
    if not at.parent.is_dir():
        raise ConfigError(field, str(path), f"there is no folder {at.parent}", hint="make it first, or name another file")
    if not _special(at):
        _check_parent(at, field, str(path), "file")
    return at


def _real(path: str | Path, field: str) -> Path:
    try:
        at = Path(os.path.realpath(Path(path).expanduser()))  # a link stays one
        with suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISLNK(at.lstat().st_mode):  # all links are followed, but for one that leads back to itself
                raise OSError(errno.ELOOP, "is a link that leads back to itself")
        return at
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(field, str(path)[:200], f"cannot be made: {getattr(error, 'strerror', None) or error}") from None


def _check_parent(at: Path, field: str, shown: str, what: str) -> None:
    parent = next(p for p in at.parents if os.path.lexists(p))
    try:
        tried = Path(tempfile.mkdtemp(prefix=_STAGE, dir=parent))  # permissions alone do not tell
        with suppress(FileNotFoundError):  # another program has swept it away
            tried.rmdir()
    except OSError as error:
        why = f"cannot be made: {parent} cannot be written ({error.strerror})"
        raise ConfigError(field, shown, why, hint=f"name another {what}") from None


def write_folder(folder: str | Path, fill: Callable[[Path], None], *, also: Iterable[str] = (), ours: bool = False) -> Path:
    """Let ``fill`` write files into an empty folder and put them into ``folder``, all or nothing; the real place of it.

    Of an earlier result its files are replaced, those that the new one does not have are removed. Files that are not ours, or that were
    edited since, stay; one that bears a name that is needed is kept as ``NAME.yours`` (`on_kept`). ``also``: names of files there that are
    ours and written by other means. ``ours``: the folder is known to be. *Raises*: `ConfigError` as `check`, OSError.
    """
    at = _real(folder, "output") if ours else check(folder)
    made = _make(at)
    stage = at / _COMMIT  # until there is one
    try:
        with ExitStack() as held:
            with _locked(at):  # nobody sweeps it before it is held
                stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=at))
                held.enter_context(_locked(stage))
            with _naming(at):
                fill(stage)
            marks = {file.name: _mark(file) for file in sorted(stage.iterdir())} | dict.fromkeys(also, "")
            (stage / _LIST).write_text(json.dumps({"files": marks}, indent=0), encoding="utf-8")
            with _locked(at):
                _finish(at)
                stage.rename(at / _COMMIT)
                try:
                    _finish(at)
                except BaseException:  # Ctrl-C: there is little left to do
                    _finish(at)
                    raise
    except BaseException:
        if stage.name != _COMMIT:
            shutil.rmtree(stage, ignore_errors=True)
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise
    return at


def settle(folder: Path) -> None:
    """Bring to an end what a process that was killed had begun in a folder: finish what is complete, remove what is not."""
    try:
        begun = [name for name in _names(folder) if name == _COMMIT or name.startswith(_STAGE)]
        if begun:
            with _locked(folder):
                _finish(folder)
                for name in begun:
                    _sweep(folder / name)
    except OSError:
        return  # not ours to write; whoever writes there gets the error


def write_file(path: str | Path, fill: Callable[[Path], None], field: str = "output") -> Path:
    """Let ``fill`` write a file, which then takes the place of ``path`` whole or not at all. A device or a pipe is written as it is.

    *Raises*: `ConfigError` as `check_file`, OSError.
    """
    at = check_file(path, field)
    if _special(at):
        fill(at)
        return at
    stage = at.parent / f"{_STAGE}{os.getpid()}-{hashlib.sha256(os.fsencode(at.name)).hexdigest()[:8]}{at.suffix}"
    try:
        with ExitStack() as held:
            with _locked(at.parent):
                for name in _names(at.parent):
                    if name.startswith(_STAGE):
                        _sweep(at.parent / name)
                stage.touch()
                held.enter_context(_locked(stage))
            with _naming(at):
                fill(stage)
            if at.exists():
                shutil.copymode(at, stage)
            stage.replace(at)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise
    return at


@contextmanager
def _naming(at: Path) -> Iterator[None]:
    """A disk that is full does not say which: the place is told with the error."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(at)
        raise


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def _special(at: Path) -> bool:
    try:
        return not stat.S_ISREG(at.stat().st_mode)
    except OSError:
        return False


def _make(at: Path) -> list[Path]:
    """Make a folder and those above it; what had to be made, innermost first."""
    missing = [p for p in (at, *at.parents) if not p.exists()]
    at.mkdir(parents=True, exist_ok=True)
    return missing


def _finish(at: Path) -> None:
    """Move the files of a complete result to their places; what is moved already is not there any more."""
    commit = at / _COMMIT
    if not commit.is_dir():
        return
    names = sorted(_names(commit), key=lambda n: (n == _LIST, n == _LAST, n))
    before, now = _marks(at), _marks(commit)
    if names:  # the list goes last: without it all is done
        for name in [n for n in before if n not in now and n != _LIST]:
            if _untouched(at / name, before[name]):
                (at / name).unlink(missing_ok=True)
    for name in names:
        if not _untouched(at / name, "" if name == _LIST else before.get(name)):
            _set_aside(at / name)
        (commit / name).replace(at / name)
    commit.rmdir()


def _marks(folder: Path) -> Mapping[str, str]:
    """File → its mark when it was written, of the result that a folder holds."""
    try:
        files = loads(_text(folder / _LIST))["files"]
        return {str(k): str(v) for k, v in files.items() if k == Path(k).name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return dict.fromkeys(_WITHOUT_LIST, "") if summary_format(folder) else {}


def _text(file: Path) -> str:
    """What a JSON file of ours holds. Raises `OSError` for what is none: a pipe would be waited for, a device has no end."""
    if not file.is_file() or file.stat().st_size > _LARGEST:
        raise OSError(f"{file} is no file of ours")
    return file.read_text(encoding="utf-8")


def _mark(file: Path) -> str:
    size = file.stat().st_size
    return f"{size}" if size > _DIGESTED else hashlib.sha256(file.read_bytes()).hexdigest()


def _untouched(file: Path, mark: str | None) -> bool:
    """Whether nothing is lost when a file goes: it is as we wrote it, or is not there."""
    if not os.path.lexists(file):
        return True
    return mark is not None and file.is_file() and not file.is_symlink() and mark in ("", _mark(file))


def _set_aside(file: Path) -> None:
    names = (f"{file.name}.yours{f'-{i}' * (i > 1)}" for i in range(1, 1 << 20))
    name = next(n for n in names if not os.path.lexists(file.with_name(n)))
    file.rename(file.with_name(name))
    tell = on_kept.get()
    if tell is not None:
        tell(f"{file} is not as servesim wrote it: kept as {name}")


def _ours_at_all(at: Path) -> bool:
    return all(name.startswith(_STAGE) for name in _names(at)) or (at / _LIST).is_file() or summary_format(at) is not None


def summary_format(folder: Path) -> str | None:
    """The ``format`` of the result that a folder holds; None when it holds none."""
    try:
        found = str(loads(_text(folder / _LAST))["format"])
        return found if found.startswith("servesim-") else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- locks: who holds one lives


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold a lock on a file or folder; where the system has none, nothing."""
    opened = os.open(place, os.O_RDONLY) if os.name == "posix" else None
    try:
        if opened is not None:
            _wait_for(opened)
        yield
    finally:
        if opened is not None:
            os.close(opened)


def _wait_for(opened: int) -> None:
    import fcntl

    for _ in range(_PATIENCE):
        try:
            return fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            return  # a file system without locks


def _sweep(left: Path) -> None:
    """Remove what a process left that does not live any more."""
    if os.name != "posix":
        return
    import fcntl

    try:
        opened = os.open(left, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    except OSError:
        return  # it lives, or there are no locks here
    finally:
        os.close(opened)
