"""The JSON schema of a scenario file, with the settings of everything that is registered."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sim import registry
from sim.config.deployment import Engine, Router
from sim.config.model import Model
from sim.config.plugins import SETTINGS, params_of
from sim.config.scenario import Scenario
from sim.config.section import Named
from sim.config.traffic import Arrival, Lengths, Trace


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) that editors complete from. Imports every registered class."""
    whole = Scenario.model_json_schema(ref_template="#/$defs/{model}")
    defs: dict[str, Any] = whole["$defs"]
    for section in (Engine, Router, Arrival, Lengths):
        defs[section.__name__] = _choice(section, defs)
    defs["Model"] = {"anyOf": [{"type": "string"}, defs["Model"]], "description": Model.__doc__}
    defs["Trace"] = _traces(defs)
    for part in SETTINGS:
        properties = defs["Synthetic"]["properties"]
        properties[part] = {k: v for k, v in properties[part].items() if k in ("description", "title", "default")}
        properties[part]["anyOf"] = [_params(params_of(part), part, defs), {"type": "null"}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "servesim-scenario",
        **whole,
        "title": "servesim scenario",
    }


def _choice(section: type[Named], defs: dict[str, Any]) -> dict[str, Any]:
    """Any registered name, bare or with its settings; a class in a user's own file with any settings."""
    names = registry.names(section.kind)
    own = r"\.py:\w+$"
    branches: list[dict[str, Any]] = [{"type": "string", "anyOf": [{"enum": names}, {"pattern": own}]}]
    for name in names:
        cls = registry.lookup(section.kind, name)
        branch = dict(_params(cls.Params, f"{section.kind}.{name}", defs))
        branch["properties"] = {section.key: {"const": name, "description": _first_line(cls)}, **branch.get("properties", {})}
        branch["required"] = [section.key, *branch.get("required", [])]
        branch["title"] = name
        branch["description"] = _first_line(cls)
        branches.append(branch)
    branches.append(
        {"type": "object", "properties": {section.key: {"type": "string", "pattern": own}}, "required": [section.key]}
    )
    return {"anyOf": branches, "description": section.__doc__}


def _traces(defs: dict[str, Any]) -> dict[str, Any]:
    base = defs["Trace"]
    properties = {k: v for k, v in base["properties"].items() if k != "settings"}
    branches = []
    for name in registry.names(Trace.kind):
        cls = registry.lookup(Trace.kind, name)
        own = _params(cls.Params, f"{Trace.kind}.{name}", defs)
        branch = dict(own) | {"title": name, "description": _first_line(cls), "additionalProperties": False}
        branch["properties"] = properties | {"format": {"const": name}} | own.get("properties", {})
        branch["required"] = [*base["required"], *own.get("required", [])]
        branches.append(branch)
    return {"anyOf": branches, "description": Trace.__doc__}


def _params(params: type[BaseModel], name: str, defs: dict[str, Any]) -> dict[str, Any]:
    """Schema of a settings class; its own definitions join ``defs`` under the prefix ``name``."""
    made = params.model_json_schema(ref_template="#/$defs/" + name + ".{model}")
    for key, value in made.pop("$defs", {}).items():
        defs[f"{name}.{key}"] = value
    return made


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
