"""A comparison of made-up runs, driven as a study is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sim
from sim.study.base import Outcome
from sim.study.questions.compare import Compare, CompareAnswer, CompareParams


def compared(make_result: Callable[..., Any], loads: Mapping[str, float], replications: int = 4) -> CompareAnswer:
    """``loads``: name of a deployment → how heavily it is loaded."""
    base = sim.load("quickstart")
    study = Compare([base.model_copy(update={"name": name}) for name in loads], CompareParams(replications=replications))
    steps = study.run()
    batch: Any = next(steps)
    while True:
        outcomes = []
        for trial in batch:
            name, r = trial.settings["deployment"], trial.settings["replication"]
            made = make_result(1500, seed=100 + r, load=loads[name], name=name)
            outcomes.append(Outcome(trial, Compare.observe(made, trial)))
        try:
            batch = steps.send(outcomes)
        except StopIteration as done:
            return done.value
