"""Which candidates to look at where they are too many to examine all: Optuna's NSGA-II over the domains, cost against latency.

The sampler is seeded and asked in waves of fixed size, so the same study asks for the same candidates, also when it is continued.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from sim.errors import ConfigError
from sim.study.plan.candidate import Candidate
from sim.study.plan.together import Part

if TYPE_CHECKING:
    import optuna

    from sim.document import Json

Evaluate = Callable[[Sequence[int]], Part[list[Candidate]]]
_NO_WAIT = 1e9


def explore(
    space: Sequence[Mapping[str, Sequence[Json]]], trials: int, wave: int, seed: int, evaluate: Evaluate, storage: str | None
) -> Part[None]:
    """Let Optuna choose ``trials`` candidates of ``space`` (grids: setting → values), ``wave`` at a time.

    ``evaluate`` takes numbers of choices (in the order of all combinations of all grids) and returns their candidates; what was examined
    before is answered at once. Every finished trial also goes into ``storage`` (a URL of Optuna: ``sqlite:///plan.db``, any database), to be
    looked at with its dashboard. *Raises*: `ConfigError` without the library, or for a storage that cannot be opened.
    """
    library = _library()
    library.logging.set_verbosity(library.logging.ERROR)
    sampler = library.samplers.NSGAIISampler(population_size=max(4 * wave, 16), seed=seed % 2**32)
    study = library.create_study(directions=["minimize", "minimize"], sampler=sampler)
    shown = _storage(library, storage)
    known: dict[int, Candidate] = {}
    done = 0
    while done < trials:
        asked = [study.ask() for _ in range(min(wave, trials - done))]
        numbers = [_number(space, trial) for trial in asked]
        fresh = sorted({n for n in numbers if n not in known})
        for c in (yield from evaluate(fresh)) if fresh else ():
            known[c.number] = c
        for trial, number in zip(asked, numbers, strict=True):
            values = _values(known[number])
            told = study.tell(trial, values)
            if shown is not None:
                shown.add_trial(told)
        done += len(asked)


def _number(space: Sequence[Mapping[str, Sequence[Json]]], trial: optuna.Trial) -> int:
    """The number of the combination that a trial stands for."""
    which = trial.suggest_categorical("grid", list(range(len(space)))) if len(space) > 1 else 0
    before = sum(math.prod(len(v) for v in grid.values()) for grid in space[:which])
    at = 0
    for name, values in space[which].items():
        prefix = f"{which}:" if len(space) > 1 else ""
        at = at * len(values) + int(trial.suggest_categorical(f"{prefix}{name}", list(range(len(values)))))
    return before + at


def _values(c: Candidate) -> tuple[float, float]:
    """Cost and TTFT p99 of the smallest size that holds; far away for what does not."""
    held = [p for p in c.probes if p.met and p.size == c.size]
    if not held:
        nearest = max((p.attainment for p in c.probes), default=0.0)
        return 1e12 * (2.0 - nearest), _NO_WAIT
    return held[0].cost, held[0].ttft_p99_s or 0.0


def _library() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "search", "optuna", "needs a library that is not installed", hint="pip install 'servesim[search]'"
        ) from error
    return optuna


def _storage(library: ModuleType, url: str | None) -> optuna.Study | None:
    if url is None:
        return None
    try:
        made: optuna.Study = library.create_study(storage=url, directions=["minimize", "minimize"], study_name=None)
        return made
    except Exception as error:  # whatever a database driver raises
        raise ConfigError(
            "storage", url, f"cannot be opened ({type(error).__name__})", "a URL such as sqlite:///plan.db"
        ) from error
