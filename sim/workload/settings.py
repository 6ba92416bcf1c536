"""From a section of the scenario to the validated `Params` of a registered class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from sim import registry
from sim.config import settings
from sim.errors import ConfigError


class Params(BaseModel):
    """Base of every `Params`: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def as_mapping(section: object) -> dict[str, Any]:
    """A section as a plain mapping, whether it is a mapping or a pydantic model."""
    if isinstance(section, BaseModel):
        return section.model_dump()
    return dict(section) if isinstance(section, Mapping) else {"name": section}


def build(kind: str, name_key: str, section: object, field: str) -> Any:
    """An instance of the class that ``section[name_key]`` names, made with the rest of the section as its `Params`.

    Raises `ConfigError` with dotted field names under ``field``.
    """
    given = as_mapping(section)
    name = given.pop(name_key, None) or given.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{field}.{name_key}", name, "is required", ", ".join(registry.names(kind)))
    cls = registry.lookup(kind, name, f"{field}.{name_key}")
    return cls(settings(cls.Params, given, field))
