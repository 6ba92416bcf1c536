"""Paths as users give them: text that need not be one (too long, with a NUL, a loop of links, the home of nobody)."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(given: str | Path) -> Path:
    """The path, with ``~`` spelled out where there is such a user."""
    return Path(os.path.expanduser(given))  # noqa: PTH111 - that of a path raises where there is not


def is_file(path: Path) -> bool:
    """Whether there is a regular file; not, where there can be none."""
    return os.path.isfile(path)  # noqa: PTH113 - that of a path raises where the system does


def is_folder(path: Path) -> bool:
    """Whether there is a folder; not, where there can be none."""
    return os.path.isdir(path)  # noqa: PTH112


def is_there(path: Path) -> bool:
    """Whether there is anything."""
    return os.path.exists(path)  # noqa: PTH110


def files_below(folder: Path) -> list[Path]:
    """Every regular file below a folder, in order; links to folders are followed, each folder that they lead to is looked into once."""
    found: list[Path] = []
    seen: set[str] = set()
    for here, inner, names in os.walk(folder, followlinks=True):
        inner.sort()
        if (real := os.path.realpath(here)) in seen:
            inner.clear()
            continue
        seen.add(real)
        found += [path for name in names if is_file(path := Path(here, name))]
    return sorted(found)
