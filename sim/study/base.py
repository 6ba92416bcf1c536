"""What a study is: many runs of scenarios (or other work), asked for step by step, and an answer.

A study is one file in `sim.study.questions` (or an entry point ``servesim.study``) with one registered class. Its generator `Study.run`
says what to run and when it is enough: it yields lists of `Trial`, gets back a list of `Outcome` in the same order, and returns the answer.
Everything else is common to all studies and lives in `sim.study.driver`: running in parallel, keeping what is finished, going on after an
interruption, progress, files. The command ``servesim NAME`` and ``sim.NAME(…)`` come from the registration, their options from `Params`.

A generator must be deterministic: with the same outcomes it asks for the same trials. An interrupted study is continued by asking it
again from the start and answering from what is stored. This module imports nothing heavy: the command line loads it for its help.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypedDict, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from sim.errors import ConfigError, ServesimError

if TYPE_CHECKING:
    from sim.config import Scenario
    from sim.document import Json
    from sim.metrics.result import Result
    from sim.study.figures import Figures

Progress = Callable[[int, int | None], object]
"""Told the requests of a run that are done, and how many there are as far as known; a true answer stops it."""


class Params(BaseModel):
    """Base of the options of a study: frozen, unknown names refused.

    A field becomes a command-line option ``--name``, its ``description`` the help. ``json_schema_extra`` may say ``{"metavar": …}``,
    ``{"shown": …}`` (the default in the words that the option takes)
    and ``{"option": "-x"}`` (a short form). Options other than numbers, switches, words and choices arrive from the command line as a
    list of texts; a validator of the field makes something of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


P = TypeVar("P", bound=Params)


class Load(TypedDict, total=False):
    """What a run replaces of its scenario; see `sim.study.single.Prepared.run`."""

    rate: float
    replicas: int
    units: int
    lengths: float
    burst: float
    spike: tuple[float, float, float]
    course: tuple[tuple[float, ...], tuple[float, ...]]
    classes: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """One run.

    ``scenario``: all of it, its seed included. ``settings``: what tells this trial from the others of the study, for its row of the table.
    ``load``: what `Prepared.run` replaces: ``rate`` (requests/s, the same requests closer together) or ``replicas``.
    ``problem``: why it cannot run, where that is known before; it is not run, and this is its error.
    """

    scenario: Scenario
    settings: Mapping[str, Json] = field(default_factory=dict)
    load: Load = field(default_factory=Load)
    problem: str = ""

    @property
    def row(self) -> dict[str, object]:
        """What its row of the table says besides its outcome."""
        return {**self.settings, **self.load, "seed": self.scenario.seed}


class Work(Protocol):
    """What a trial does that is more, or other, than a scenario run: sent to where the trial runs, so it must be picklable."""

    def identity(self) -> Json:
        """Plain data that tells it apart; a file that it names by its absolute path counts with what is in it."""

    def perform(self, progress: Progress | None) -> Mapping[str, Json]:
        """Do it: a mapping ready for JSON. Raises what becomes the error of the trial."""


@dataclass(frozen=True)
class Task(Trial):
    """A trial that does ``work`` of its own instead of running a scenario; `Study.observe` does not see it."""

    scenario: Any = None
    work: Work = field(kw_only=True)

    @property
    def row(self) -> dict[str, object]:
        """See `Trial`."""
        return dict(self.settings)


class TrialError(ServesimError):
    """A trial failed whose result is needed."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: ``data``, what `Study.observe` took from its result, or ``error``, one sentence."""

    trial: Trial
    data: Mapping[str, Json] | None
    error: str = ""

    def value(self) -> Mapping[str, Json]:
        """The data. Raises `TrialError` with the error of the trial."""
        if self.data is None:
            raise TrialError(self.error)
        return self.data

    @property
    def figures(self) -> Figures:
        """What `figures` kept, for a study that keeps it. Raises `TrialError`."""
        from sim.study.figures import Figures

        return Figures.from_dict(self.value())


class Interrupted(ServesimError):
    """Thrown into a study that is stopped before its end; ``outcomes``: those of the trials it asked for last that are finished.

    A study that has an answer from part of its runs catches it and returns that answer.
    """

    def __init__(self, outcomes: Sequence[Outcome] = (), finished: int = 0) -> None:
        self.outcomes, self.finished = list(outcomes), finished
        super().__init__("interrupted")


@runtime_checkable
class Answer(Protocol):
    """What a study returns."""

    def sentence(self) -> str:
        """The answer in words."""

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON: no NaN."""

    @property
    def verdict(self) -> bool | None:
        """Whether it is good news (an SLO held, a claim confirmed); None when nothing was to be judged. ``--gate`` exits by it."""


Steps = Generator[Sequence[Trial], list[Outcome], Answer]


class Study(ABC, Generic[P]):
    """Base of all studies, generic in their options; see the module.

    ``examples``: whole commands, for its help.
    ``takes``: ``one`` scenario or ``many``, or ``files``: paths of measurements, which its `Params` call ``paths``, and a scenario or none.
    ``report``: the module with ``screen(answer)``, what the terminal shows,
    ``files(answer, folder)``, which writes the report, and perhaps ``elsewhere(answer)``, which writes files that were asked for in other
    places; `sim.report.study` suits every answer.
    ``gate``: when ``--gate`` exits with 3, in words.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ()
    Params: ClassVar[type[Params]] = Params
    takes: ClassVar[Literal["one", "many", "files"]] = "one"
    report: ClassVar[str] = "sim.report.study"
    gate: ClassVar[str] = "when the verdict is negative"

    def __init__(self, scenarios: Sequence[Scenario], params: P) -> None:
        if self.takes == "one" and len(scenarios) != 1:
            raise ConfigError("scenario", len(scenarios), f"{self.name} is a study of one scenario", "1")
        if self.takes == "files" and len(scenarios) > 1:
            raise ConfigError("scenario", len(scenarios), f"{self.name} takes what one scenario says was deployed", "0 or 1")
        self.scenarios = tuple(scenarios)
        self.params = params

    @property
    def title(self) -> str:
        """Name of the output folder, unless another one is given."""
        return f"{'-'.join(s.name for s in self.scenarios)[:80]}-{self.name}"

    @property
    def expected(self) -> int | None:
        """How many trials there will be, for the time left; None where that is not known ahead."""
        return None

    @abstractmethod
    def run(self) -> Steps:
        """Yield trials, receive their outcomes, return the answer. *Raises* `ConfigError` before the first trial for what cannot be asked."""

    @staticmethod
    def observe(result: Result, trial: Trial) -> dict[str, Json]:
        """What is kept of a run's `Result`: a mapping ready for JSON. It runs where the trial runs, perhaps in another process."""
        return figures(result)


def figures(result: Result) -> dict[str, Json]:
    """The summary of a result without what is the same in every run (evidence) or long (replicas, classes)."""
    from sim.study.figures import Figures

    return Figures.of(result.summary).as_dict()
