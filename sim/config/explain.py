"""From pydantic's report of everything wrong to one sentence about the first thing wrong."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from sim.config.section import Named, Open
from sim.errors import ConfigError, did_you_mean

_SHOWN = 200


def explain(error: ValidationError, model: type[BaseModel], field: str = "") -> ConfigError:
    """The one error to show; ``field`` is the dotted path of the section that ``model`` describes.

    An unknown key goes first: the setting that is "missing" is often the one that was misspelt.
    """
    found = error.errors(include_url=False)
    first = min(found, key=lambda e: e["type"] != "extra_forbidden")
    inner, section, where = follow(model, first["loc"])
    path = dotted(where, field)
    value = _short(first["input"])
    if first["type"] == "extra_forbidden":
        known = keys_of(inner)
        return ConfigError(path, value, "unknown setting", ", ".join(known), did_you_mean(str(first["loc"][-1]), known))
    if first["type"] == "missing":
        return ConfigError(path, None, "is required")
    if first["type"] in {"model_type", "dict_type", "model_attributes_type"}:
        return ConfigError(path, value, "must be a mapping", ", ".join(keys_of(section)))
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return ConfigError(path, value, message[0].lower() + message[1:])


def dotted(parts: Sequence[object], prefix: str = "") -> str:
    """``("pools", 0, "tp")`` → ``pools[0].tp``, as it can be written after ``--set``."""
    path = prefix
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def keys_of(section: type[BaseModel] | None) -> list[str]:
    """The keys of a section as a user writes them."""
    if section is None:
        return []
    if issubclass(section, Named):
        return [section.key, "and the settings of what it names"]
    return [name for name in section.model_fields if not (issubclass(section, Open) and name == "settings")]


def follow(model: type[BaseModel], loc: Sequence[object]) -> tuple[type[BaseModel] | None, type[BaseModel] | None, list[object]]:
    """The section that holds the last part, the section that this part is (if it is one), and the way as a user writes it.

    The names that pydantic gives to the branches of a union are left out.
    """
    holder: type[BaseModel] | None = model
    section: type[BaseModel] | None = model
    way: list[object] = []
    for part in loc:
        if isinstance(part, int):
            way.append(part)
        elif section is not None and part in section.model_fields:
            way.append(section.key if issubclass(section, Named) and part == "name" else part)
            holder, section = section, section_of(section.model_fields[str(part)].annotation)
        elif section is not None or not _branch(str(part)):
            way.append(part)
            holder = section
    return holder, section, way


def _branch(part: str) -> bool:
    return "[" in part or part in {"int", "float", "str", "bool", "list", "tuple", "none", "dict"}


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class within an annotation such as ``Slo | None`` or ``tuple[Pool, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = section_of(inner)
        if found is not None:
            return found
    return None


def _short(value: object) -> object:
    text = repr(value)
    return value if len(text) <= _SHOWN else text[:_SHOWN] + "…"
