"""Processes that want the same thing made take turns: one makes it, the others wait and find it made."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

try:
    import fcntl
except ImportError:  # not on this system: each makes it
    fcntl = None  # type: ignore[assignment]

_PAUSE: Final = 0.05
_LONGEST: Final = 600.0
"""Seconds after which who waits makes it himself."""


class Turn:
    """Mine from `take` to `leave`; a process that ends leaves it too. ``file`` is the sign that it is taken."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened: IO[bytes] | None = None

    def take(self) -> None:
        """Wait for it. Who had it before may have made what is wanted: look again."""
        if fcntl is None:
            return
        try:
            opened = self._file.open("wb")
        except OSError:  # a read-only cache
            return
        waited = 0.0
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if waited >= _LONGEST:
                    opened.close()
                    return
            time.sleep(_PAUSE)
            waited += _PAUSE
        self._opened = opened

    def leave(self) -> None:
        """Let the next one have it."""
        if self._opened is not None:
            with suppress(OSError):
                self._file.unlink()
            self._opened.close()
            self._opened = None
