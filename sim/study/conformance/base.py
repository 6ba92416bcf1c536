"""What a replay of recorded scheduler decisions reports, whatever the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Difference:
    """The first place where our engine decided otherwise than the recording.

    ``step`` counts the recording's rows from 0; ``recorded`` and ``ours`` hold the fields that the format has for our side.
    """

    step: int
    recorded: Mapping[str, object]
    ours: Mapping[str, object]


@dataclass(frozen=True)
class Case:
    """One recording: ``matched`` of ``steps`` rows agree up to the first difference (None: all of them)."""

    name: str
    steps: int
    matched: int
    difference: Difference | None = None


@dataclass
class Count:
    """What is known of a case while its rows are gone through."""

    steps: int = 0
    matched: int = 0
    difference: Difference | None = None

    def add(self, same: bool, recorded: Mapping[str, object], ours: Mapping[str, object]) -> None:
        """One more row."""
        if self.difference is None and not same:
            self.difference = Difference(self.steps, recorded, ours)
        self.steps += 1
        self.matched += self.difference is None

    def case(self, name: str) -> Case:
        """What came of it."""
        return Case(name, self.steps, self.matched, self.difference)


Replay = Callable[[Path], Iterator[Case]]
"""``check(path)`` of an engine's module: replays one recording (a file, or a folder that is one recording), yielding its cases."""
