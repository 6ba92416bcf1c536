"""JSON schema of a scenario file, settings of every registered engine, router, arrival process and length distribution included."""

from __future__ import annotations

from typing import Any

from sim import registry
from sim.config.scenario import Scenario

_KINDS = {
    "Engine": ("engine", "name"),
    "Router": ("router", "name"),
    "Arrival": ("arrival", "process"),
    "Lengths": ("length", "kind"),
}


def schema() -> dict[str, Any]:
    """Draft 2020-12 schema with descriptions; a plug-in appears in it by itself."""
    out = Scenario.model_json_schema()
    definitions = out["$defs"]
    for section, (kind, key) in _KINDS.items():
        names = registry.names(kind)
        choices: list[dict[str, Any]] = [{"type": "string", "enum": names}]
        for name in names:
            cls = registry.lookup(kind, name)
            params = cls.Params.model_json_schema()
            definitions.update(params.pop("$defs", {}))
            params["properties"] = {key: {"const": name}} | params.get("properties", {})
            params["required"] = [key, *params.get("required", [])]
            params["title"] = name
            params["description"] = (cls.__doc__ or "").strip().split("\n")[0]
            choices.append(params)
        definitions[section] = {"description": definitions[section].get("description", ""), "anyOf": choices}
    definitions["Model"] = {"anyOf": [{"type": "string"}, definitions["Model"]]}
    definitions["Trace"]["properties"]["format"]["enum"] = registry.names("trace")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | out
