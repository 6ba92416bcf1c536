"""Does our engine decide as the real one did? Replays recordings of real schedulers; one module per engine.

A module ``sim/study/conformance/<engine>.py`` has ``check(path) -> Iterator[Case]`` for one recording and, where not every JSON file of a
folder is a recording of its own, ``recordings(folder) -> list[Path]``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sim.errors import DataError, UnknownNameError
from sim.places import files_below, is_file, is_folder
from sim.study.conformance.base import Case, Difference
from sim.workload.textfile import check_size

__all__ = ["Case", "Difference", "check", "engines"]

_LARGEST = 1 << 29  # bytes, unpacked
_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def engines() -> list[str]:
    """Engines whose recordings can be replayed."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


def check(engine: str, paths: Sequence[Path]) -> Iterator[Case]:
    """Replay every recording that the paths name, in order.

    *Raises*: `UnknownNameError` for an engine without a replay, `DataError` for a path that is missing or holds no recording.
    """
    name = engine.lower().replace(".", "").replace("-", "_")
    if name not in engines():
        raise UnknownNameError("engine", engine, engines())
    module = importlib.import_module(f"{__name__}.{name}")
    files = [file for path in paths for file in _files(module, Path(path))]
    for file in files:
        check_size(file, _LARGEST)
        steps = 0
        try:
            for case in module.check(file):
                steps += case.steps
                yield case
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, EOFError, OSError) as error:
            raise DataError(str(file), f"not a recording of {name}: {type(error).__name__} {error}") from error
        if not steps:
            raise DataError(str(file), "holds no step, so that nothing was compared")


def _files(module: object, path: Path) -> list[Path]:
    if is_file(path):
        return [path]
    if not is_folder(path):
        raise DataError(str(path), "no such file or folder")
    choose = getattr(module, "recordings", _all)
    files: list[Path] = choose(path)
    if not files:
        raise DataError(str(path), "holds no recording", f"expected files that end in {', '.join(_SUFFIXES)}")
    return files


def _all(folder: Path) -> list[Path]:
    return [p for p in files_below(folder) if p.name.endswith(_SUFFIXES)]
