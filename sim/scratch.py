"""Temporary files for what has no room in memory. They have no name, so that nothing is left of them whatever ends the program."""

from __future__ import annotations

import os
import tempfile
from typing import IO, Final

_PLACES: Final = ("TMPDIR", "TEMP", "TMP")


def place() -> str:
    """Their folder: as the environment says, else one that outlives a restart, as ``/tmp`` may be memory itself."""
    if not any(os.environ.get(name) for name in _PLACES) and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    return tempfile.gettempdir()


def new_file() -> IO[bytes]:
    """An empty one, gone when it is closed. Raises OSError."""
    return tempfile.TemporaryFile(prefix="servesim-", dir=place())
