"""Sections whose settings belong to a registered class: validated by its ``Params``, which only then is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sim import registry
from sim.config.explain import explain
from sim.config.scenario import Scenario

P = TypeVar("P", bound=BaseModel)

SETTINGS = {"prefixes": "sim.workload.prefixes:PrefixParams", "sessions": "sim.workload.sessions:SessionParams"}
"""Parts of synthetic traffic that are no choice among classes, and whose settings they are."""


def settings(params: type[P], given: Mapping[str, Any], field: str) -> P:
    """``params`` of the given settings. Raises one `ConfigError` with the dotted path under ``field``."""
    try:
        return params.model_validate(dict(given))
    except ValidationError as error:
        raise explain(error, params, field) from None


def resolve(scenario: Scenario) -> Scenario:
    """The scenario with every default of its engine, router and traffic written out. Imports the rooms that these live in.

    *Raises*: `UnknownNameError`, `ConfigError` for names and settings that no registered class accepts.
    """
    data = scenario.model_dump()

    def fill(section: dict[str, Any] | None, key: str, kind: str, field: str, keep: tuple[str, ...] = ()) -> None:
        if section is None:
            return
        name = section[key]
        cls = registry.lookup(kind, name, f"{field}.{key}")
        declared = {k: section.pop(k) for k in (key, *keep)}
        filled = settings(cls.Params, section, field).model_dump(mode="json")
        section.clear()
        section.update(declared | filled)

    if data["deployment"] is not None:
        fill(data["deployment"]["engine"], "name", "engine", "deployment.engine")
    for i, pool in enumerate(data["pools"] or ()):
        fill(pool["engine"], "name", "engine", f"pools[{i}].engine")
    fill(data["router"], "name", "router", "router")
    traffic = data["traffic"]
    if traffic["synthetic"] is not None:
        synthetic = traffic["synthetic"]
        fill(synthetic["arrival"], "process", "arrival", "traffic.synthetic.arrival")
        fill(synthetic["lengths"], "kind", "length", "traffic.synthetic.lengths")
        for name in SETTINGS:
            if synthetic[name] is not None:
                filled = settings(params_of(name), synthetic[name], f"traffic.synthetic.{name}")
                synthetic[name] = filled.model_dump(mode="json")
    fixed = ("path", "rate_scale", "rate", "window", "limit", "max_tokens")
    fill(traffic["trace"], "format", "trace", "traffic.trace", fixed)
    return Scenario.model_validate(data)


def params_of(part: str) -> type[BaseModel]:
    """The settings class of ``prefixes`` or ``sessions``; they live in a room above this one."""
    module, _, name = SETTINGS[part].partition(":")
    found: type[BaseModel] = getattr(importlib.import_module(module), name)
    return found


def in_folder(data: Any, find: Callable[[str], str]) -> None:
    """Apply ``find`` to every relative path that a raw scenario names, in place. Anything malformed is left for validation."""
    if not isinstance(data, dict):
        return

    def at(section: Any, key: str, when: Callable[[str], bool]) -> None:
        if isinstance(section, dict) and isinstance(section.get(key), str) and when(section[key]):
            section[key] = find(section[key])

    def always(_: str) -> bool:
        return True

    def own_class(text: str) -> bool:
        return ".py:" in text

    def part(section: Any, key: str) -> Any:
        return section.get(key) if isinstance(section, dict) else None

    at(part(data, "model"), "config", always)
    at(part(data, "model"), "name", lambda text: text.endswith(".json"))
    pools = data.get("pools") if isinstance(data.get("pools"), list) else []
    for pool in [data.get("deployment"), *pools]:
        at(pool, "accelerator", lambda text: text.endswith((".yaml", ".yml")))
        at(pool, "engine", own_class)
        at(part(pool, "engine"), "name", own_class)
    at(data, "router", own_class)
    at(part(data, "router"), "name", own_class)
    synthetic, trace = part(data.get("traffic"), "synthetic"), part(data.get("traffic"), "trace")
    at(part(synthetic, "lengths"), "path", always)
    for section, key in (("arrival", "process"), ("lengths", "kind")):
        at(synthetic, section, own_class)
        at(part(synthetic, section), key, own_class)
    at(trace, "path", always)
    at(trace, "format", own_class)
