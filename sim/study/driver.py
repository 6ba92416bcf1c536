"""Runs any study: asks it what to run, runs that in parallel, keeps every finished trial, and goes on where an earlier call ended."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from sim import guard, plugins
from sim.errors import PluginError, brief
from sim.study.base import Answer, Interrupted, Outcome, Params, Steps, Study, Trial
from sim.study.executors import Executor, executor
from sim.study.keys import code_version, trial_key
from sim.study.store import Store
from sim.study.table import Table

if TYPE_CHECKING:
    from sim.config import Scenario
    from sim.document import Json

    Given = Scenario | str | Path

P = TypeVar("P", bound=Params)

Progress = Callable[[float, int | None, str], object]
"""Called with the trials done (a fraction counts for one that is running), how many there will be as far as known, and what is done;
a true answer, or KeyboardInterrupt, stops the study."""


def run_study(
    study: Study[P],
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Answer:
    """The answer of a study; with ``out`` its files are in that folder: ``runs.jsonl``, ``runs.parquet``, ``summary.json``, ``report.html``.

    A study that was interrupted goes on where it was when it is asked again with the same folder; ``fresh`` begins anew.
    The answer does not depend on ``jobs`` or ``cluster``. *Raises*: `Interrupted` when it was stopped and has no answer yet (finished
    trials are kept), `ConfigError` for what cannot be asked, `TrialError` when a trial failed that the study cannot do without.
    """
    with closing(Store(Path(out) if out else None, definition(study), code_version(), fresh=fresh)) as store:
        return _Drive(study, store, executor(jobs, cluster), progress).drive()


def definition(study: Study[P]) -> dict[str, Json]:
    """The whole study as plain data: two with the same definition ask the same."""
    from sim.config.resolving import resolved

    return {
        "study": study.name,
        "options": study.params.model_dump(mode="json"),
        "scenarios": [resolved(s) for s in study.scenarios],
    }


class _Drive(Generic[P]):
    def __init__(self, study: Study[P], store: Store, where: Executor, progress: Progress | None) -> None:
        self.study, self.store, self.where = study, store, where
        self.progress = progress or (lambda *_: None)
        self.asked: list[str] = []  # keys in the order in which the study asked for them
        self.trials: dict[str, Trial] = {}
        self.finished = 0
        self.table = Table(store.folder)

    def drive(self) -> Answer:
        steps = _steps_of(self.study)
        interrupted = False
        try:
            try:
                batch = next(steps)
                while True:
                    try:
                        outcomes = self._outcomes(batch)
                    except KeyboardInterrupt:
                        interrupted = True
                        outcomes = self._so_far(batch)
                    if interrupted and len(outcomes) < len(batch):
                        steps.throw(Interrupted(outcomes, self.finished))
                        raise Interrupted((), self.finished) from None  # it wanted to go on
                    batch = steps.send(outcomes)
            except StopIteration as done:
                answer: Answer = done.value
        except Interrupted:
            self.table.write(self._rows())
            raise
        finally:
            self.where.close()
        self._save(answer, complete=not interrupted)
        return answer

    def _outcomes(self, batch: Sequence[Trial]) -> list[Outcome]:
        """Of a list of trials: from the store, else by running them."""
        keys = [trial_key(t, self.study.name) for t in batch]
        for key, trial in zip(keys, batch, strict=True):
            if key not in self.trials:
                self.trials[key] = trial
                self.asked.append(key)
        for key, trial in zip(keys, batch, strict=True):
            if trial.problem and key not in self.store.known:
                self.store.add(key, None, trial.problem)
        missing = [k for k in dict.fromkeys(keys) if k not in self.store.known]
        self.finished = len(self.asked) - len(missing)
        self._tell(0.0, batch)
        found = self.where.run([self.trials[k] for k in missing], self.study.observe, lambda part: self._inside(part, batch))
        for number, done in found:
            self.store.add(missing[number], done.data, done.error, keep=done.final)
            self.finished += 1
            self._tell(0.0, batch)
            self.table.grow(self._rows)
        return [self._outcome(k, t) for k, t in zip(keys, batch, strict=True)]

    def _outcome(self, key: str, trial: Trial) -> Outcome:
        line = self.store.known[key]
        return Outcome(trial, line["data"], line["error"])

    def _so_far(self, batch: Sequence[Trial]) -> list[Outcome]:
        keys = [trial_key(t, self.study.name) for t in batch]
        return [self._outcome(k, t) for k, t in zip(keys, batch, strict=True) if k in self.store.known]

    def _tell(self, part: float, batch: Sequence[Trial]) -> None:
        total = self.study.expected
        known = max(len(self.asked), total or 0) if total or len(batch) > 1 else None
        if self.progress(self.finished + part, known, self.study.name):
            raise KeyboardInterrupt

    def _inside(self, part: float, batch: Sequence[Trial]) -> bool:
        self._tell(min(part, 0.999), batch)
        return False

    def _rows(self) -> list[Mapping[str, object]]:
        """One row per finished trial, in the order in which they were asked for."""
        rows: list[Mapping[str, object]] = []
        for key in self.asked:
            line = self.store.known.get(key)
            if line is not None:
                trial = self.trials[key]
                rows.append({**trial.row, "error": line["error"] or None, **(line["data"] or {})})
        return rows

    def _save(self, answer: Answer, *, complete: bool) -> None:
        view = import_module(self.study.report)
        if hasattr(view, "elsewhere"):
            view.elsewhere(answer)
        if self.store.folder is None:
            return
        self.table.write(self._rows())
        self.store.finish(lambda to: view.files(answer, to), complete=complete)


def _steps_of(study: Study[P]) -> Steps:
    """What a study asks and answers; one of somebody else's is watched."""
    if plugins.is_own(type(study).__module__):
        return study.run()
    steps, what = study.run(), f"{type(study).__name__}.run"
    found: object = steps
    if not inspect.isgenerator(found):
        code = inspect.unwrap(type(study).run).__code__
        problem = f"answered {brief(repr(steps))}; allowed: a generator that yields lists of trials and returns an answer"
        raise PluginError(code.co_filename, code.co_firstlineno, what, problem)
    return guard.conversation(steps, _wrong_batch, _wrong_answer, what)


def _wrong_batch(batch: object) -> str:
    if isinstance(batch, list | tuple) and all(isinstance(t, Trial) for t in batch):
        return ""
    return f"yielded {brief(repr(batch))}; allowed: a list of trials (sim.study.base.Trial)"


def _wrong_answer(answer: object) -> str:
    lacks = [n for n in ("sentence", "as_dict") if not callable(getattr(answer, n, None))]
    lacks += [] if hasattr(answer, "verdict") else ["verdict"]
    return f"returned {brief(repr(answer))}, which has no {' and no '.join(lacks)} (sim.study.base.Answer)" if lacks else ""


def api(cls: type[Study[Params]]) -> Callable[..., Answer]:
    """The function ``sim.NAME``: scenario(s) first, then the options of the study and those of `run_study` by name."""
    from sim.config import as_scenario, settings

    def ask(
        scenarios: Given | Sequence[Given],
        /,
        *,
        out: str | Path | None = None,
        jobs: int | None = None,
        cluster: str | None = None,
        fresh: bool = False,
        progress: Progress | None = None,
        **options: object,
    ) -> Answer:
        given = list(scenarios) if isinstance(scenarios, list | tuple) else [scenarios]
        study = cls([as_scenario(s) for s in given], settings(cls.Params, options))
        return run_study(study, out=out, jobs=jobs, cluster=cluster, fresh=fresh, progress=progress)

    ask.__name__ = ask.__qualname__ = cls.name
    fields = "\n".join(f"    {name}: {f.description or ''}" for name, f in cls.Params.model_fields.items())
    ask.__doc__ = f"{cls.__doc__}\n\nOptions, beside those of `sim.study.driver.run_study`:\n{fields}"
    return ask
