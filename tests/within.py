"""A limit of time that fails what never ends, and not what waits for a machine that is busy with others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

WAITS = 10
"""So many times longer by the clock: nobody may sleep for ever either."""


class Endless(Exception):
    """It took longer than it may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Endless` where the block takes ``seconds`` of this process's own time, or `WAITS` times as long by the clock."""

    def late(*_: object) -> None:
        raise Endless(f"still at it after {seconds:g} s")

    before = {each: signal.signal(each, late) for each in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITS * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)
