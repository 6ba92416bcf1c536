"""The same deployment with longer or shorter steps, and how much longer or shorter real ones may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.config.slo import ClassSlo, Slo
    from sim.config.traffic import Traffic
    from sim.fleet.build import Plan
    from sim.metrics.model_error import Interval

T = TypeVar("T", "Slo", "ClassSlo | None")


def slower(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with every target shorter by ``factor``, those of classes too.

    A world in which every step takes ``factor`` times as long is the same as traffic so much faster, judged by targets so much shorter: the
    rate is for the caller to raise. Prompts' way to the engine is stretched with it, which is little.
    """

    def targets(slo: T) -> T:
        if slo is None:
            return slo
        given = {k: v for k in ("ttft", "tpot", "e2e") if (v := getattr(slo, k)) is not None}
        cut = {k: {p: x / factor for p, x in v.items()} if isinstance(v, Mapping) else v / factor for k, v in given.items()}
        return slo.model_copy(update=cut)

    changes: dict[str, Slo | Traffic | None] = {"slo": targets(scenario.slo)}
    if scenario.traffic.classes is not None:
        classes = {name: c.model_copy(update={"slo": targets(c.slo)}) for name, c in scenario.traffic.classes.items()}
        changes["traffic"] = scenario.traffic.model_copy(update={"classes": classes})
    return scenario.model_copy(update=changes)


def step_error(plans: Sequence[Plan]) -> Interval | None:
    """How much longer than predicted steps of measured deployments like this one were; None where nothing is known, or pools differ.

    A calibrated profile knows it of the user's own server.
    """
    from sim.metrics import model_error
    from sim.study.kinds import kind_of_plan

    kinds = {kind_of_plan(p) for p in plans}
    return model_error.known(kinds.pop(), "tpot_s.mean", plans[0].profile.band) if len(kinds) == 1 else None
