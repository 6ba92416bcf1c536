"""Compiled code of a plug-in that does not come back. Nothing can interrupt it: the program ends, with an error that names the plug-in.

A thread looks on. The code is stuck when for `sim.guard.LIMIT` seconds the running thread stands at one and the same instruction of the rooms that call
compiled code, and no step of any engine has begun or ended meanwhile. In a session of Python the error is printed and the session stays: its owner ends it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from sim import guard, plugins
from sim.errors import PluginError

if TYPE_CHECKING:
    from sim.engine.group import EngineGroup
    from sim.fleet.build import Plan

Progress: TypeAlias = list[tuple[float, int]]
"""Of each group: seconds of steps begun, requests not finished."""


@contextmanager
def watched(plans: Sequence[Plan], groups: Sequence[EngineGroup]) -> Iterator[None]:
    """Run ``groups`` of engines under watch, if any of their schedulers is a plug-in's."""
    foreign = next((p.scheduler for p in plans if not plugins.is_own(p.scheduler.__module__)), None)
    if foreign is None:
        yield
        return

    def progress() -> Progress:
        return [(float(g.parts.sum()), int(g.outstanding.sum())) for g in groups]

    def tell() -> None:
        file = str(getattr(sys.modules.get(foreign.__module__), "__file__", foreign.__module__))
        why = f"compiled code has not come back after {guard.LIMIT:g} s (SERVESIM_PLUGIN_SECONDS): it loops for ever, or plans steps that take no time"
        sys.stderr.write(f"error: {PluginError(file, 0, foreign.__name__, why)}\n")
        sys.stderr.flush()
        if plugins.alone or multiprocessing.current_process().name != "MainProcess":
            os._exit(2)

    done = threading.Event()
    threading.Thread(
        target=look_on, args=(threading.get_ident(), progress, tell, done), name="compiled code", daemon=True
    ).start()
    try:
        yield
    finally:
        done.set()


def look_on(
    thread: int,
    progress: Callable[[], Progress],
    tell: Callable[[], None],
    done: threading.Event,
    rooms: tuple[str, ...] = ("sim.engine.", "sim.fleet."),
) -> None:
    """Call ``tell`` once when the thread is stuck in one of the ``rooms``; until ``done``."""
    last: tuple[int, int, Progress] | None = None
    since = time.monotonic()
    while not done.wait(min(1.0, guard.LIMIT / 4)):
        frame = sys._current_frames().get(thread)
        here = frame is not None and str(frame.f_globals.get("__name__")).startswith(rooms)
        now = (id(frame), frame.f_lasti, progress()) if here and frame is not None else None
        if now is None or now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > guard.LIMIT:
            tell()
            return
