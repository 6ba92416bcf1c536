"""Whose code may run: a scenario can name a file with a class of one's own, so opening a stranger's scenario could run a stranger's program.

The command line runs such a file only where the user named it himself (``-s router=mine.py:Mine``), allowed it (``--allow-code``), or trusts its
folder: one in the environment variable SERVESIM_TRUSTED (several as in PATH), or on a line of the file ``trusted`` in the user's folder of
settings. Python programs are asked nothing: who writes one runs code as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from platformdirs import user_config_path

from sim.errors import ConfigError
from sim.places import expanded

OPTION: Final = "--allow-code"
VARIABLE: Final = "SERVESIM_TRUSTED"
_FILE: Final = re.compile(r"""[^\s=,\[\]{}"']+\.py(?=:)""")
_named: ContextVar[frozenset[Path] | None] = ContextVar("_named", default=None)
"""Files that the user named; None: all may run."""


@contextmanager
def command_line(arguments: list[str]) -> Iterator[None]:
    """Run a command with these arguments; `OPTION` is taken out of them."""
    allowed = OPTION in arguments
    arguments[:] = [a for a in arguments if a != OPTION]
    token = _named.set(None if allowed else frozenset(_real(f) for a in arguments for f in _FILE.findall(a)))
    try:
        yield
    finally:
        _named.reset(token)


def check(file: Path, field: str) -> None:
    """Raise `ConfigError` for a file of code that nobody allowed."""
    named = _named.get()
    real = _real(file)
    if named is None or real in named or any(real.is_relative_to(folder) for folder in folders()):
        return
    raise ConfigError(
        field,
        str(file),
        "is a program that the scenario names, and is run only where that is wanted",
        hint=f"read it, then say {OPTION}, or name its folder in {VARIABLE} or in {_settings()}",
    )


def folders() -> Sequence[Path]:
    """Folders whose code the user trusts."""
    listed = os.environ.get(VARIABLE, "").split(os.pathsep)
    with suppress(OSError, ValueError):  # there is none
        listed += _settings().read_text(encoding="utf-8").splitlines()
    return [_real(Path(line.strip())) for line in listed if line.strip() and not line.startswith("#")]


def _settings() -> Path:
    return user_config_path("servesim") / "trusted"


def _real(file: str | Path) -> Path:
    try:
        return Path(os.path.realpath(expanded(file)))
    except (OSError, ValueError, RuntimeError):
        return Path(file)
