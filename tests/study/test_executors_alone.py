"""What stands between a study and those who run its trials, alone: the test plays the workers, and says who is done, who dies and when."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from sim.errors import ConfigError
from sim.study.executors import dask, executor, processes, ray
from sim.study.executors.processes import Processes
from sim.study.perform import Performed


class Workers:
    """Trials are done in the order in which they were handed over, one at each look; ``dies``: how often a trial takes its process with it.

    ``idle``: looks at which nobody is done.
    """

    def __init__(self, dies: dict[Any, int], idle: Collection[int] = ()) -> None:
        self.dies, self.idle = dies, idle
        self.handed: list[Any] = []
        self.most = self.looks = 0
        self.calls: list[str] = []
        self.open: list[Future[Performed]] = []
        self.trial_of: dict[Future[Performed], Any] = {}

    def submit(self, _: object, trial: Any, observe: object, **how: object) -> Future[Performed]:
        assert observe == "observe"
        future: Future[Performed] = Future()
        self.trial_of[future] = trial
        self.open.append(future)
        self.handed.append(trial)
        self.most = max(self.most, len(self.open))
        return future

    def look(self, running: Iterable[Future[Performed]], **how: object) -> Any:
        self.looks += 1
        if self.looks in self.idle:
            return SimpleNamespace(done=set())
        future = next(f for f in self.open if f in set(running))
        trial = self.trial_of[future]
        if self.dies.get(trial, 0):
            self.dies[trial] -= 1
            self.open.clear()
            future.set_exception(TerminatedWorkerError("killed"))
        else:
            self.open.remove(future)
            future.set_result(Performed({"trial": trial}))
        return SimpleNamespace(done={future})

    def shutdown(self, kill_workers: bool) -> None:
        self.calls.append(f"shutdown {kill_workers}")


def pooled(monkeypatch: pytest.MonkeyPatch, workers: Workers, jobs: int = 2) -> Processes:
    """Processes that are there already."""
    made = Processes(jobs)

    def start() -> Workers:
        workers.calls.append("start")
        made._pool = workers
        return workers

    monkeypatch.setattr(made, "_start", start)
    monkeypatch.setattr(processes, "wait", workers.look)
    made._pool = workers
    return made


def told(pairs: Iterable[tuple[int, Performed]]) -> list[tuple[int, str]]:
    """In order: which trial, and its error."""
    return [(number, done.error if done.data is None else str(done.data["trial"])) for number, done in pairs]


KILLED = "its process was killed three times (out of memory?)"


@pytest.mark.parametrize(
    ("dies", "order", "handed"),
    [
        ({}, [0, 1, 2, 3, 4, 5], "abcdef"),
        # c dies: it and those beside it are tried again, one after the other, until it is known which of them it was
        ({"c": 1}, [0, 1, 2, 3, 4, 5], "abcdef" + "cdef"),
        ({"c": 2}, [0, 1, 2, 3, 4, 5], "abcdef" + "c" + "cdef"),
        ({"c": 3}, [0, 1, -2, 3, 4, 5], "abcdef" + "cc" + "def"),
        ({"a": 3, "d": 1}, [-0.5, 1, 2, 3, 4, 5], "abcd" + "aa" + "bcde" + "f" + "defg"),
    ],
)
def test_what_was_with_a_worker_that_died_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, dies: dict[str, int], order: list[float], handed: str
) -> None:
    workers = Workers(dict(dies))
    found = list(pooled(monkeypatch, workers).run(list("abcdef"), "observe", lambda _: None))  # type: ignore[arg-type]
    assert told(found) == [(int(abs(k)), KILLED if k < 0 else "abcdef"[int(k)]) for k in order]
    assert all(done.final is (done.data is not None) for _, done in found)
    assert workers.calls == ["start"] * (1 + sum(min(n, 3) for n in dies.values()))
    assert workers.most == 4  # two for each process
    if handed and "g" not in handed:
        assert "".join(workers.handed) == handed


def test_who_waits_hears_of_it_and_whose_pool_has_no_head_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({}, idle={1, 3})
    heard: list[float] = []
    heads = iter([False, True])
    monkeypatch.setattr(processes, "_headless", lambda _: next(heads))
    found = pooled(monkeypatch, workers).run(list("abc"), "observe", heard.append)  # type: ignore[arg-type]
    assert told(found) == [(0, "a"), (1, "b"), (2, "c")]
    assert heard == [0.0, 0.0] and workers.calls == ["start", "start"]


def test_whoever_is_interrupted_leaves_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({}, idle={2})
    made = pooled(monkeypatch, workers)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    run = made.run(list("abc"), "observe", stop)  # type: ignore[arg-type]
    assert next(run)[0] == 0
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert workers.calls == ["start", "shutdown True"] and made._pool is None


@pytest.mark.parametrize(
    ("jobs", "took", "left", "alone"),
    [(1, 99.0, 9, 9), (2, 0.0, 1, 1), (2, 0.0, 9, 1), (None, 1.0, 9, 9), (None, 1.1, 9, 1), (None, 8.0, 3, 1), (None, 5.0, 2, 2)],
)
def test_processes_are_started_where_they_pay_off(
    monkeypatch: pytest.MonkeyPatch, jobs: int | None, took: float, left: int, alone: int
) -> None:
    """Of work of ``took`` seconds each; the first is done here in any case."""
    monkeypatch.setattr(processes, "processors", lambda: 4)
    clock = iter(float(k // 2) * 100.0 + (k % 2) * took for k in range(99))
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    here: list[Any] = []

    def perform(trial: Any, _: object, inner: Callable[[float, float], None]) -> Performed:
        here.append(trial)
        inner(1.0, 4.0)
        inner(1.0, 0.0)
        return Performed({"trial": trial})

    monkeypatch.setattr(processes, "perform", perform)
    workers = Workers({})
    heard: list[float] = []
    made = pooled(monkeypatch, workers)
    other = Processes(jobs)
    monkeypatch.setattr(other, "_start", made._start)
    found = told(other.run(list(range(left)), "observe", heard.append))  # type: ignore[arg-type]
    assert found == [(k, str(k)) for k in range(left)] and len(here) == alone and workers.handed == list(range(alone, left))
    assert heard == [0.25, 0.0] * alone


# ---- clusters


class Lost(Exception):
    """A worker is gone."""


def ray_of(workers: Workers, version: str, fails: Exception | None = None) -> Any:
    """The library, as far as it is used."""
    made: Any = ModuleType("ray")
    results: dict[Any, Any] = {}

    def remote(function: Any) -> Any:
        if function is ray._version:
            return SimpleNamespace(remote=lambda: "version")
        return SimpleNamespace(remote=lambda trial, observe: workers.submit(function, trial, observe))

    def wait(running: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        done = workers.look(running).done
        results.update({f: f for f in done})
        return list(done), []

    def get(reference: Any) -> Any:
        if reference == "version":
            return version
        try:
            return results[reference].result()
        except TerminatedWorkerError:
            raise Lost("gone\nfor good") from None

    def init(address: str, **_: object) -> None:
        workers.calls.append(f"init {address}")
        if fails:
            raise fails

    made.remote, made.wait, made.get, made.init = remote, wait, get, init
    made.exceptions = SimpleNamespace(RayError=Lost)
    made.cluster_resources = lambda: {"CPU": 1.5}
    made.cancel = lambda reference, force: workers.calls.append(f"cancel {workers.trial_of[reference]} {force}")
    made.shutdown = lambda: workers.calls.append("shutdown")
    return made


def test_a_ray_cluster_gets_some_trials_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({"c": 1}, idle={2})
    heard: list[float] = []
    monkeypatch.setitem(sys.modules, "ray", ray_of(workers, ray._version()))
    cluster = executor(cluster="ray://auto")
    run = cluster.run(list("abcde"), "observe", heard.append)  # type: ignore[arg-type]
    assert [next(run)[0], next(run)[0]] == [0, 1] and heard == [0.0] and workers.most == 3
    number, lost = next(run)
    assert (number, lost.data, lost.error, lost.final) == (2, None, "its worker was lost: gone", False)
    workers.open = [f for f in workers.trial_of if not f.done()]
    assert told(run) == [(3, "d"), (4, "e")]
    cluster.close()
    assert workers.calls == ["init auto", "shutdown"]


def test_a_ray_cluster_is_told_what_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({})
    monkeypatch.setitem(sys.modules, "ray", ray_of(workers, ray._version()))
    run = executor(cluster="ray://h:1").run(list("abcd"), "observe", lambda _: None)  # type: ignore[arg-type]
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert workers.calls == ["init ray://h:1", "cancel b True", "cancel c True"]


@pytest.mark.parametrize(
    ("version", "fails", "says"), [("other", None, "version|code"), ("", ConnectionError("no\nway"), "cannot be reached: no")]
)
def test_a_ray_cluster_that_is_not_there_or_runs_other_code(
    monkeypatch: pytest.MonkeyPatch, version: str, fails: Exception | None, says: str
) -> None:
    workers = Workers({})
    monkeypatch.setitem(sys.modules, "ray", ray_of(workers, version, fails))
    with pytest.raises(ConfigError, match=says):
        executor(cluster="ray://auto")
    assert workers.calls == ["init auto", *["shutdown"] * (fails is None)]


def dask_of(workers: Workers, version: str) -> Any:
    """The library, as far as it is used."""
    made: Any = ModuleType("distributed")

    class Client:
        def __init__(self, address: str, timeout: float, set_as_default: bool) -> None:
            workers.calls.append(f"client {address} {set_as_default}")

        def submit(self, function: object, trial: Any, observe: object, pure: bool, retries: int) -> Any:
            assert not pure and retries == 2
            future: Any = workers.submit(function, trial, observe)
            return future

        def run(self, function: Callable[[], str]) -> dict[str, str]:
            return {"worker": version or function()}

        def as_current(self) -> Any:
            return pytest.MonkeyPatch.context()

        def cancel(self, futures: list[Any]) -> None:
            workers.calls.append("cancel " + "".join(workers.trial_of[f] for f in futures))

        def close(self) -> None:
            workers.calls.append("close")

    def wait(running: list[Any], timeout: float, return_when: str) -> Any:
        found = workers.look(running)
        if not found.done:
            raise TimeoutError
        for future in found.done:
            future.status = "finished" if future.exception() is None else "error"
        return found

    made.Client, made.wait = Client, wait
    return made


def test_a_dask_cluster_gets_all_trials_and_is_told_what_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({"b": 1}, idle={1})
    heard: list[float] = []
    monkeypatch.setitem(sys.modules, "distributed", dask_of(workers, ""))
    cluster = executor(cluster="dask=tcp://h:8786")
    run = cluster.run(list("abcd"), "observe", heard.append)  # type: ignore[arg-type]
    assert next(run)[0] == 0 and heard == [0.0] and workers.handed == list("abcd")
    number, lost = next(run)
    assert (number, lost.data, lost.error, lost.final) == (1, None, "its worker was lost: killed", False)
    run.close()  # type: ignore[attr-defined]
    cluster.close()
    assert workers.calls == ["client tcp://h:8786 False", "cancel cd", "close"]
    again = Workers({})
    monkeypatch.setitem(sys.modules, "distributed", dask_of(again, ""))
    assert told(dask.connect("dask://h:1").run(list("ab"), "observe", heard.append)) == [(0, "a"), (1, "b")]  # type: ignore[arg-type]
    assert again.calls == ["client h:1 False"]


def test_a_dask_cluster_that_runs_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({})
    monkeypatch.setitem(sys.modules, "distributed", dask_of(workers, "other"))
    with pytest.raises(ConfigError):
        executor(cluster="dask=tcp://h:8786")
    assert workers.calls == ["client tcp://h:8786 False", "close"]


@pytest.mark.parametrize("address", ["nonsense", "processes://x", "base://x", "slurm://x"])
def test_an_address_of_no_cluster(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a cluster"):
        executor(cluster=address)
