"""Finished trials in the output folder of a study: appended as they finish, whole or not at all, found again by their key.

``runs.jsonl``: a header line (which study), then a line per trial; a line that a sudden end tore off is dropped when the file is opened
again. One process at a time writes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypedDict, cast

from sim import output
from sim.document import loads
from sim.errors import ConfigError, DataError, brief
from sim.places import expanded
from sim.study.table import FILE as TABLE

if TYPE_CHECKING:
    from sim.document import Json

FORMAT: Final = "servesim-study/1"
_FILE: Final = "runs.jsonl"


class Line(TypedDict):
    """A finished trial."""

    key: str
    data: dict[str, Json] | None
    error: str


class Store:
    """Trials that are finished, by key. Without a folder they live as long as the process.

    ``definition``: the whole study as plain data, ``code``: the version of the code. *Raises*: `ConfigError` when the folder holds the
    unfinished runs of another study, or something that is no study at all; `DataError` when its file is damaged.
    """

    def __init__(self, folder: Path | None, definition: Mapping[str, Json], code: str, *, fresh: bool = False) -> None:
        self.folder = Path(os.path.realpath(expanded(folder))) if folder else None  # a link stays one
        self.known: dict[str, Line] = {}
        self.stale = 0
        self._head = loads(json.dumps({"format": FORMAT, "definition": definition, "code": code}, default=str))
        self._to: IO[bytes] | None = None
        self._ended = False
        if self.folder is not None:
            try:
                self._open(self.folder, fresh)
            except BaseException:
                self.close()
                raise

    def _open(self, folder: Path, fresh: bool) -> None:
        file = folder / _FILE
        if os.path.lexists(file) and not file.is_file():
            raise DataError(str(file), "is no file of a study", "name another folder")
        if not file.exists():
            output.check(folder)  # an earlier result of another command is replaced when there is an answer
        folder.mkdir(parents=True, exist_ok=True)
        self._to = file.open("a+b")
        _lock(self._to, folder)
        lines = [] if fresh else _lines(file)
        if lines:
            before, done = lines[0], any("end" in line for line in lines)
            if before.get("format") != FORMAT or not {"definition", "code"} <= before.keys():
                raise DataError(str(file), "is no file of a study", "name another folder")
            wrong = next((i for i, line in enumerate(lines[1:], 2) if not _is_trial(line)), None)
            if wrong is not None:
                raise DataError(f"{file}:{wrong}", "is damaged: no trial", "begin anew with --fresh, or name another folder")
            changed = differences(before["definition"], self._head["definition"])
            if changed and not done:
                raise ConfigError(
                    "output",
                    str(folder),
                    f"holds the unfinished runs of another study; {changed[0]}"
                    + (f" (and {len(changed) - 1} more)" * (len(changed) > 1)),
                    hint="undo the change to go on, name another folder with --out, or begin anew with --fresh",
                )
            trials = [cast("Line", line) for line in lines if "key" in line]
            self.known = {line["key"]: line for line in trials}
            self.stale = len(trials) if before["code"] != self._head["code"] else 0
            if not changed and not self.stale:
                self._ended = done
                return
        self._begin(folder)

    def _begin(self, folder: Path) -> None:
        """The file anew, under this study's header, with what is known."""
        fresh = folder / f".{_FILE}.new"
        lines = [self._head, *(self.known.values() if not self.stale else ())]
        if self.stale:
            self.known = {}
        fresh.write_bytes(b"".join(map(_line, lines)))
        fresh.replace(folder / _FILE)
        self.close()
        self._to = (folder / _FILE).open("a+b")
        _lock(self._to, folder)

    def add(self, key: str, data: Mapping[str, Json] | None, error: str, *, keep: bool = True) -> Line:
        """A finished trial; returned as it will be read back. ``keep``: False for an error that another try may not meet."""
        line: Line = loads(_line({"key": key, "data": data, "error": error}))
        self.known[key] = line
        if self._to is not None and keep:
            self._to.write(_line(line))
            self._to.flush()
        return line

    def finish(self, fill: Callable[[Path], None], *, complete: bool) -> None:
        """Let ``fill`` write the files of the answer into the folder, all or nothing."""
        if self.folder is None:
            return
        output.write_folder(self.folder, fill, also=(_FILE, TABLE), ours=True)
        if complete and not self._ended and self._to is not None:
            self._ended = True
            self._to.write(_line({"end": True}))
            self._to.flush()
            os.fsync(self._to.fileno())

    def close(self) -> None:
        """Let go of the folder."""
        if self._to is not None:
            self._to.close()


def _is_trial(line: Mapping[str, Json]) -> bool:
    """Whether a line is a finished trial, or the end."""
    if "key" not in line:
        return "end" in line
    return isinstance(line["key"], str) and isinstance(line.get("data"), dict | None) and isinstance(line.get("error"), str)


def _line(data: Mapping[str, object]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _lines(file: Path) -> list[dict[str, Json]]:
    """The whole lines of the file; what a sudden end tore off is cut away. Raises `DataError`."""
    raw = file.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        os.truncate(file, len(whole))
    found = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = loads(text)
            if not isinstance(line, dict):
                raise ValueError("is no mapping")
        except ValueError as error:
            raise DataError(
                f"{file}:{number}", f"is damaged: {error}", "begin anew with --fresh, or name another folder"
            ) from None
        found.append(line)
    return found


def _lock(opened: IO[bytes], folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on this system
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        opened.close()
        raise ConfigError(
            "output", str(folder), "is being written by another servesim", hint="wait for it, or name another folder"
        ) from None


def differences(before: Json, now: Json, where: str = "") -> list[str]:
    """What changed between two plain structures, a sentence each."""
    if isinstance(before, dict) and isinstance(now, dict):
        out = []
        for key in dict.fromkeys([*before, *now]):
            at = f"{where}.{key}" if where else str(key)
            if key not in before:
                out.append(f"{at} is new: {_short(now[key])}")
            elif key not in now:
                out.append(f"{at} is gone: {_short(before[key])}")
            else:
                out += differences(before[key], now[key], at)
        return out
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [d for i, (b, n) in enumerate(zip(before, now, strict=True)) for d in differences(b, n, f"{where}[{i}]")]
    return [] if before == now else [f"{where} was {_short(before)} and is {_short(now)}"]


def _short(value: object) -> str:
    return brief(json.dumps(value, ensure_ascii=False))
