"""JSON schema of a scenario file, with the settings of every registered engine, router, arrival process, length and trace format."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaValue

from sim import registry
from sim.config.resolving import PARTS, params_of
from sim.config.scenario import Scenario

if TYPE_CHECKING:
    from pydantic import JsonValue

_KINDS = {
    "Engine": ("engine", "name"),
    "Router": ("router", "name"),
    "Scaling": ("scaler", "name"),
    "Admission": ("admission", "name"),
    "Clients": ("client", "name"),
    "Fault": ("fault", "name"),
    "Arrival": ("arrival", "process"),
    "Lengths": ("length", "kind"),
}
_OWN = {"type": "string", "pattern": r"\.py:\w+$"}


def schema() -> dict[str, JsonValue]:
    """Draft 2020-12 schema with descriptions; a plug-in appears in it by itself."""
    out = Scenario.model_json_schema()
    definitions = out["$defs"]
    for section, (kind, key) in _KINDS.items():
        names = registry.names(kind)
        choices: list[JsonSchemaValue] = [{"type": "string", "enum": names}, _OWN]
        choices += [_choice(kind, name, definitions, {key: {"const": name}}, [key]) for name in names]
        choices.append({"type": "object", "properties": {key: _OWN}, "required": [key]})
        definitions[section] = {"description": definitions[section].get("description", ""), "anyOf": choices}
    definitions["Model"] = {"anyOf": [{"type": "string"}, definitions["Model"]]}
    definitions["Trace"] = _trace(definitions)
    for part in PARTS:
        old = definitions["Synthetic"]["properties"][part]
        kept = {k: old[k] for k in ("description", "title", "default") if k in old}
        definitions["Synthetic"]["properties"][part] = kept | {
            "anyOf": [_params(params_of(part), part, definitions), {"type": "null"}]
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | out


def _choice(
    kind: str, name: str, definitions: JsonSchemaValue, properties: JsonSchemaValue, required: list[str]
) -> JsonSchemaValue:
    cls = registry.lookup(kind, name)
    params = _params(cls.Params, f"{kind}.{name}", definitions)
    params["properties"] = properties | params.get("properties", {})
    params["required"] = [*required, *params.get("required", [])]
    params["title"] = name
    params["description"] = (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return params


def _trace(definitions: JsonSchemaValue) -> JsonSchemaValue:
    """One branch for each format, with the settings of its reader."""
    base = definitions["Trace"]
    branches = []
    for name in registry.names("trace"):
        own = _params(registry.lookup("trace", name).Params, f"trace.{name}", definitions)
        properties = base["properties"] | {"format": {"const": name}, "settings": own}
        branches.append(base | {"title": name, "properties": properties})
    found = base | {"title": "auto", "properties": base["properties"] | {"format": {"const": "auto"}}}
    user = base | {"properties": base["properties"] | {"format": _OWN}}
    return {"description": base.get("description", ""), "anyOf": [found, *branches, user]}


def _params(params: type[BaseModel], prefix: str, definitions: JsonSchemaValue) -> JsonSchemaValue:
    """Schema of a settings class; the definitions it needs are added under names of their own."""
    made = params.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for described in made.get("properties", {}).values():
        if isinstance(described.get("default"), float) and not isfinite(described["default"]):
            del described["default"]  # JSON has no infinity: without a limit
    definitions.update({f"{prefix}.{name}": value for name, value in made.pop("$defs", {}).items()})
    return made
