"""From a section of the scenario to the validated `Params` of a registered class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sim import registry
from sim.errors import ConfigError, did_you_mean

P = TypeVar("P", bound=BaseModel)


class Params(BaseModel):
    """Base of every `Params`: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def as_mapping(section: Any) -> dict[str, Any]:
    """A section as a plain mapping, whether it is a mapping or a pydantic model."""
    if isinstance(section, BaseModel):
        return section.model_dump()
    return dict(section) if isinstance(section, Mapping) else {"name": section}


def build(kind: str, name_key: str, section: Any, field: str) -> Any:
    """An instance of the class that ``section[name_key]`` names, made with the rest of the section as its `Params`.

    Raises `ConfigError` with dotted field names under ``field``.
    """
    settings = as_mapping(section)
    name = settings.pop(name_key, None) or settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{field}.{name_key}", name, "is required", ", ".join(registry.names(kind)))
    cls = registry.lookup(kind, name, f"{field}.{name_key}")
    return cls(validate(cls.Params, settings, field))


def validate(model: type[P], settings: Mapping[str, Any], field: str) -> P:
    """``model`` of ``settings``. Raises one `ConfigError` for the first thing wrong."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (field, *first["loc"]))
        if first["type"] == "extra_forbidden":
            known = list(model.model_fields)
            raise ConfigError(
                where, first["input"], "unknown setting", ", ".join(known), did_you_mean(str(first["loc"][-1]), known)
            ) from None
        if first["type"] == "missing":
            raise ConfigError(where, None, "is required") from None
        raise ConfigError(where, first["input"], first["msg"].removeprefix("Value error, ")) from None
