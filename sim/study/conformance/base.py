"""What a replay of recorded scheduler decisions reports, whatever the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Difference:
    """The first place where our engine decided otherwise than the recording.

    ``step`` counts the recording's rows from 0; ``recorded`` and ``ours`` hold the fields that the format has for our side.
    """

    step: int
    recorded: dict[str, Any]
    ours: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One recording: ``matched`` of ``steps`` rows agree up to the first difference (None: all of them)."""

    name: str
    steps: int
    matched: int
    difference: Difference | None = None


Replay = Callable[[Path], Iterator[Case]]
"""``check(path)`` of an engine's module: replays one recording (a file, or a folder that is one recording), yielding its cases."""
