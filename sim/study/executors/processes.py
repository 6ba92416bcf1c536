"""Processes of this machine.

The first trials run in the calling process: they compile what all of them need, and show whether more processes pay off. Workers stay
for the whole study and for the next one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from sim.study.base import Trial
from sim.study.executors.base import Inner
from sim.study.perform import Observe, Performed, perform

if TYPE_CHECKING:
    from concurrent.futures import Future

    from joblib.externals.loky.process_executor import ProcessPoolExecutor

_PAYS_OFF_S = 8.0  # work of at least so many seconds is worth the start of workers, which costs 2 to 4 of them
_IDLE_S = 300  # longer than it takes to compile an engine: a worker must not leave while work is handed to it


class Processes:
    """``jobs`` processes; None: as many as there are processors, and only where the work is long enough."""

    def __init__(self, jobs: int | None = None) -> None:
        self._given = jobs is not None
        self._jobs = jobs or processors()
        self._pool: ProcessPoolExecutor | None = None

    def run(self, trials: Sequence[Trial], observe: Observe, inner: Inner) -> Iterator[tuple[int, Performed]]:
        """See `Executor`."""
        left = list(enumerate(trials))
        fastest = float("inf")
        while left and not self._worth(len(left), fastest):
            number, trial = left.pop(0)
            began = time.monotonic()
            yield number, perform(trial, observe, lambda done, total: inner(done / total if total else 0.0))
            fastest = min(fastest, time.monotonic() - began)
        if left:
            yield from self._pooled(left, observe, inner)

    def _worth(self, left: int, fastest: float) -> bool:
        if self._jobs == 1 or left < 2:
            return False
        if self._pool is not None:
            return True
        return fastest < float("inf") and (self._given or left * fastest > _PAYS_OFF_S)

    def _pooled(self, left: list[tuple[int, Trial]], observe: Observe, inner: Inner) -> Iterator[tuple[int, Performed]]:
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        lost: dict[int, int] = {}
        while left:
            pool = self._start()
            running: dict[Future[Performed], tuple[int, Trial]] = {}
            waiting = list(reversed(left))
            try:
                while waiting or running:
                    while waiting and len(running) < (1 if lost else 2 * self._jobs):  # alone, to see which of them it was
                        number, trial = waiting.pop()
                        running[pool.submit(perform, trial, observe)] = (number, trial)
                    finished = wait(running, timeout=0.3, return_when=FIRST_COMPLETED).done
                    if not finished:
                        inner(0.0)  # who wants to stop says so here
                        if _headless(pool):
                            raise TerminatedWorkerError("nobody hands out work any more")
                    for future in finished:
                        done = future.result()
                        number, _ = running.pop(future)
                        lost.pop(number, None)
                        yield number, done
                return
            except TerminatedWorkerError:  # killed, most likely for memory: whatever was with a worker is tried again
                self._pool = None
                again = []
                for number, trial in running.values():
                    lost[number] = lost.get(number, 0) + 1
                    if lost[number] < 3:
                        again.append((number, trial))
                    else:
                        yield number, Performed(None, "its process was killed three times (out of memory?)", final=False)
                left = [*again, *reversed(waiting)]
                lost = {number: lost[number] for number, _ in again}
            except BaseException:
                pool.shutdown(kill_workers=True)
                self._pool = None
                raise

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None or _headless(self._pool):
            from joblib.externals.loky import get_reusable_executor

            # a worker whose memory has grown is replaced between two trials: nothing is lost, and nobody need act
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
            pool = partial(
                get_reusable_executor, max_workers=self._jobs, timeout=_IDLE_S, initializer=_settle, initargs=(os.getpid(),)
            )
            self._pool = pool(kill_workers=False)
            if _headless(self._pool):  # that of an earlier study; its workers have nobody to end them either
                for worker in list(self._pool._processes.values()):
                    with suppress(ProcessLookupError):
                        os.kill(worker.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                self._pool = pool(reuse=False, kill_workers=True)
        return self._pool

    def close(self) -> None:
        """Workers end by themselves when they have been idle for a while; the next study may use them before."""
        self._pool = None


def _headless(pool: object) -> bool:
    """Whether the thread that hands out work has died: its futures would never be done."""
    manager = getattr(pool, "_executor_manager_thread", None)
    return manager is not None and not manager.is_alive()


def processors() -> int:
    """Processors that this process may use."""
    import joblib

    return max(1, int(joblib.cpu_count()))


def _settle(parent: int) -> None:
    """In a new worker: Ctrl-C is the parent's business, and no worker outlives its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
