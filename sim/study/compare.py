"""Several scenarios on the same traffic, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sim.errors import ConfigError
from sim.study.single import simulate


def compare(
    scenarios: Sequence[Any], *, same_traffic: bool = True, progress: Callable[[int, int | None, str], Any] | None = None
) -> list[Any]:
    """One `Result` per scenario, in the order given.

    With ``same_traffic`` all of them get the traffic and the seed of the first, so that what differs is the deployment alone; without it
    each keeps its own. ``progress(done, total, label)`` is called during the runs.

    *Raises*: `ConfigError` for fewer than two scenarios or for two of one name.
    """
    if len(scenarios) < 2:
        raise ConfigError("scenarios", len(scenarios), "are too few to compare", "at least 2")
    names = [s.name for s in scenarios]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("name", name, "is the name of two of the scenarios", "a name of its own for each")
    first = scenarios[0]
    results = []
    for scenario in scenarios:
        if same_traffic and scenario is not first:
            scenario = scenario.model_copy(update={"traffic": first.traffic, "seed": first.seed})
        inner = partial(_labelled, progress, scenario.name) if progress else None
        results.append(simulate(scenario, progress=inner))
    return results


def _labelled(progress: Callable[[int, int | None, str], Any], label: str, done: int, total: int | None) -> Any:
    return progress(done, total, label)
