"""What an executor does: trials in, what became of them out, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from sim.errors import ConfigError
from sim.study.base import Trial
from sim.study.keys import code_version
from sim.study.perform import Observe, Performed

Inner = Callable[[float], object]
"""Told the share of a trial that is done, where that can be seen."""


class Executor(Protocol):
    """``run`` may be called many times; ``close`` once. Outcomes do not depend on the executor."""

    def run(self, trials: Sequence[Trial], observe: Observe, inner: Inner) -> Iterator[tuple[int, Performed]]:
        """(number of the trial, what became of it) as each one finishes. On KeyboardInterrupt whatever runs is given up."""

    def close(self) -> None:
        """Let the workers go."""


def checked(address: str, versions: Sequence[str]) -> None:
    """Raises `ConfigError` when workers elsewhere would compute with other code than this process."""
    if any(v != code_version() for v in versions):
        raise ConfigError(
            "--cluster", address, "runs another version of servesim than this machine", hint="install the same on its nodes"
        )
