"""One trial, wherever it runs: scenario in, what the study observes out. Errors are part of the outcome."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.document import Json
from sim.errors import LawViolation, ServesimError
from sim.study.base import Progress, Task, Trial
from sim.study.keys import contents, digest

if TYPE_CHECKING:
    from sim.metrics.result import Result
    from sim.study.single import Prepared

Observe = Callable[["Result", Trial], dict[str, Json]]
_PREPARED = 4  # scenarios kept ready for other loads

_ready: OrderedDict[str, Prepared] = OrderedDict()


@dataclass(frozen=True)
class Performed:
    """``data`` or ``error``; ``final``: the same trial would end so again."""

    data: Mapping[str, Json] | None
    error: str = ""
    final: bool = True


def perform(trial: Trial, observe: Observe, progress: Progress | None = None) -> Performed:
    """Run a trial. KeyboardInterrupt passes; every other exception becomes the error of the trial."""
    try:
        if isinstance(trial, Task):
            return Performed(trial.work.perform(progress))
        result = _prepared(trial).run(**trial.load, progress=progress)
        if not result.summary.complete:
            raise KeyboardInterrupt
        return Performed(observe(result, trial))
    except LawViolation:
        raise
    except ServesimError as error:
        return Performed(None, str(error))
    except (MemoryError, OSError) as error:
        return Performed(None, f"{type(error).__name__}: {error}", final=False)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return Performed(None, f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")


def _prepared(trial: Trial) -> Prepared:
    """The scenario made ready; kept for a while where trials differ by load alone."""
    from sim.study.single import Prepared

    if not trial.load:
        return Prepared(trial.scenario)
    data = trial.scenario.model_dump(mode="json")
    key = digest([data, sorted(set(contents(data)))])  # a file that was edited is read again
    if key not in _ready:
        _ready[key] = Prepared(trial.scenario)
        while len(_ready) > _PREPARED:
            _ready.popitem(last=False)
    _ready.move_to_end(key)
    return _ready[key]
