"""The same scenario where things break more often: failures per hour instead of requests per second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.config.base import Fault
from sim.errors import ConfigError
from sim.fleet.breakage import make_faults

if TYPE_CHECKING:
    from sim.config.scenario import Scenario


def breaking(scenario: Scenario, factor: float) -> Scenario:
    """Its random faults come ``factor`` times as often. Raises `ConfigError` where there are none."""
    faults = []
    found = False
    for section, fault in zip(scenario.faults, make_faults(scenario.faults), strict=True):
        if fault.params.at is None:
            found = True
            section = Fault.model_validate({"name": section.name, **section.settings, "mtbf": fault.mtbf / factor})
        faults.append(section)
    if not found:
        raise ConfigError(
            "faults",
            len(faults),
            "stress along failures needs faults that come at random",
            "for example [{name: rank, mtbf: 30d}]",
        )
    return scenario.model_copy(update={"faults": tuple(faults)})


def per_hour(scenario: Scenario) -> float:
    """Failures per hour that are expected of the scenario, all replicas together, while all of them work."""
    from sim.fleet.breakage import units_of
    from sim.fleet.build import plan

    units = units_of(plan(scenario))
    rate = 0.0
    for fault in make_faults(scenario.faults):
        if fault.params.at is None:
            mine = fault.concerns(units) if fault.scope == "replica" else units[:1]
            rate += sum(fault.rate(u) for u in mine)
    return 3600.0 * rate
