"""One scenario over many settings, with what is wrong in a domain found before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sim.errors import ConfigError, ServesimError

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json


def variants(base: Scenario, points: Sequence[Mapping[str, Json]], paths: Sequence[str] = ()) -> list[Scenario | ServesimError]:
    """The scenario at every point; in place of a combination that is impossible, its `ServesimError`.

    A value that is impossible in every combination (a setting of an unknown name, a degree of 0) is an error of the study. ``paths``: the
    settings whose values are lists; those of ranges are not judged one by one.

    *Raises*: `ConfigError`.
    """
    from sim.config import resolve, vary

    found: list[Scenario | ServesimError] = []
    for point in points:
        try:
            made = vary(base, point)
            resolve(made)
            found.append(made)
        except ServesimError as error:
            found.append(error)
    failed = [f for f in found if isinstance(f, ServesimError)]
    if failed and len(failed) == len(found):
        raise failed[0]
    for path in paths:
        by_value: dict[str, list[Scenario | ServesimError]] = {}
        for point, one in zip(points, found, strict=True):
            by_value.setdefault(repr(point[path]), []).append(one)
        for group in by_value.values():
            errors = [one for one in group if isinstance(one, ServesimError)]
            if len(errors) == len(group):
                raise errors[0]
    return found


def repeated(scenario: Scenario, replication: int) -> Scenario:
    """The same scenario with the random numbers of its ``replication``-th repetition; the 0th is the scenario itself."""
    return scenario if replication == 0 else scenario.model_copy(update={"seed": seed_of(scenario.seed, replication)})


def seed_of(seed: int, replication: int) -> int:
    """The seed of a repetition: what is compared under the same seed gets the same random numbers in each of them."""
    from sim.streams import sub_seed

    return seed if replication == 0 else sub_seed(seed, f"replication/{replication}")


def is_random(scenario: Scenario) -> bool:
    """Whether another seed gives another run: recorded traffic is the same under every seed."""
    return bool(scenario.traffic.random)


def check_replications(scenario: Scenario, replications: int) -> None:
    """Raises `ConfigError` when runs would be repeated that are all the same."""
    if replications > 1 and not is_random(scenario):
        raise ConfigError(
            "replications", replications, "repeat the same recorded requests: another seed changes nothing", "1",
            "the interval of one run comes from its parts",
        )  # fmt: skip
