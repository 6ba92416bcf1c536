"""A scenario with every default written out: also those of its engine, router and traffic, which only their own classes know."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from sim import registry
from sim.config.base import Engine, Named
from sim.config.scenario import Scenario
from sim.config.traffic import Sources
from sim.config.validate import settings

if TYPE_CHECKING:
    from sim.document import Json

PARTS = {
    "prefixes": "sim.workload.prefixes:PrefixParams",
    "sessions": "sim.workload.sessions:SessionParams",
    "agents": "sim.workload.agents:AgentParams",
    "clients": "sim.workload.pool:PoolParams",
}
"""Parts of synthetic traffic that are no choice among classes: the class of their settings, which lives in a room above this one."""


def resolve(scenario: Scenario) -> Scenario:
    """The same scenario, all defaults written. Imports the rooms of the classes that it names.

    *Raises*: `UnknownNameError`, `ConfigError` for names and settings that no registered class accepts.
    """
    return Scenario.model_validate(resolved(scenario))


def resolved(scenario: Scenario) -> dict[str, Json]:
    """`resolve` as plain data, ready for YAML. A setting that is none by default is left out."""
    data = scenario.model_dump(mode="json", exclude_none=True)
    if scenario.deployment is not None:
        data["deployment"]["engine"] = _engine(scenario.deployment.engine, "deployment.engine")
    for i, pool in enumerate(scenario.pools or ()):
        data["pools"][i]["engine"] = _engine(pool.engine, f"pools[{i}].engine", pool.role)
    data["router"] = _named(scenario.router, "router", "router")
    if scenario.scaling is not None:
        data["scaling"] = _named(scenario.scaling, "scaler", "scaling")
    for i, policy in enumerate(scenario.admission):
        data["admission"][i] = _named(policy, "admission", f"admission[{i}]")
    for i, fault in enumerate(scenario.faults):
        data["faults"][i] = _named(fault, "fault", f"faults[{i}]")
    if scenario.clients is not None:
        data["clients"] = _named(scenario.clients, "client", "clients")
    for field, source in scenario.traffic.sources().items():
        into = data["traffic"] if scenario.traffic.classes is None else data["traffic"]["classes"][field.rpartition(".")[2]]
        _source(source, into, field)
    return data


def params_of(part: str) -> type[BaseModel]:
    """The class of the settings of ``prefixes`` or ``sessions``."""
    module, _, name = PARTS[part].partition(":")
    found: type[BaseModel] = getattr(importlib.import_module(module), name)
    return found


def _source(source: Sources, into: dict[str, Any], field: str) -> None:
    """Write the defaults of one source of traffic into its data."""
    synthetic, trace = source.synthetic, source.trace
    if synthetic is not None:
        into, field = into["synthetic"], f"{field}.synthetic"
        into["arrival"] = _named(synthetic.arrival, "arrival", f"{field}.arrival")
        into["lengths"] = _named(synthetic.lengths, "length", f"{field}.lengths")
        for part in PARTS:
            given = getattr(synthetic, part)
            if given is not None:
                into[part] = _filled(params_of(part), given, f"{field}.{part}")
    if (
        trace is not None and trace.format != "auto"
    ):  # the settings of a format that is found in the file are known when it is read
        reader = registry.lookup("trace", trace.format, f"{field}.trace.format")
        into["trace"]["settings"] = _filled(reader.Params, trace.settings, f"{field}.trace.settings")


def _engine(section: Engine, field: str, role: str | None = None) -> dict[str, Json]:
    """As its pool's role makes it, whose defaults are others than those of a whole engine."""
    cls = registry.lookup("engine", section.name, f"{field}.name").edition(section.settings)
    given = settings(cls.Params, section.settings, field)
    if role is not None and cls.hands_over is not None:
        given = cls.as_side(given, role)
    return {"name": section.name} | _written(given)


def _named(section: Named, kind: str, field: str) -> dict[str, Json]:
    name = getattr(section, section.key)
    cls = registry.lookup(kind, name, f"{field}.{section.key}")
    return {section.key: name} | _filled(cls.Params, section.settings, field)


def _filled(params: type[BaseModel], given: Mapping[str, object], field: str) -> dict[str, Json]:
    return _written(settings(params, given, field))


def _written(given: BaseModel) -> dict[str, Json]:
    values = given.model_dump(mode="json")
    return {k: v for k, v in values.items() if v is not None or type(given).model_fields[k].default is not None}
