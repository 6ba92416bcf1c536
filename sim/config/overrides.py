"""``--set path=value``: one setting of a raw scenario changed before it is validated."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from sim.config.explain import dotted, keys_of, section_of
from sim.config.scenario import Scenario
from sim.config.section import Named, Open
from sim.config.yamls import parse
from sim.errors import ConfigError, did_you_mean

_PART = re.compile(r"([^.\[\]]+)((?:\[\d+\])*)")


def override(data: dict[str, Any], text: str) -> None:
    """Apply ``deployment.tp=2`` or ``pools[0].engine.max_num_seqs=64`` in place; the value is read as YAML.

    *Raises*: `ConfigError` when the text has no value or the path leads nowhere.
    """
    path, equals, value = text.partition("=")
    parts = _split(path.strip())
    if not equals or not parts:
        raise ConfigError("--set", text, "must be PATH=VALUE, such as deployment.tp=2")
    here: Any = data
    section: type[BaseModel] | None = Scenario
    for i, part in enumerate(parts[:-1]):
        below = _below(section, part, parts[: i + 1], text)
        here = _enter(here, part, parts[: i + 1], below)
        section = below
    last = parts[-1]
    _below(section, last, parts, text)
    _check(here, last, parts)
    here[last] = parse(value, f"--set {path.strip()}")


def _split(path: str) -> list[str | int]:
    parts: list[str | int] = []
    for word in path.split("."):
        match = _PART.fullmatch(word)
        if not match:
            return []
        parts.append(int(match[1]) if match[1].isdigit() else match[1])
        parts += [int(n) for n in re.findall(r"\d+", match[2])]
    return parts


def _below(section: type[BaseModel] | None, part: str | int, way: list[str | int], text: str) -> type[BaseModel] | None:
    """The section class under ``part``, None inside open settings. Raises for a key that no section has."""
    if section is None or isinstance(part, int):
        return section
    if part in section.model_fields:
        return section_of(section.model_fields[part].annotation)
    if issubclass(section, Open) or _is_mapping_of(section, way):
        return section if not issubclass(section, Open) else None
    known = keys_of(section)
    raise ConfigError(dotted(way), text, "unknown setting", ", ".join(known), did_you_mean(part, known))


def _is_mapping_of(section: type[BaseModel], way: list[str | int]) -> bool:
    """Whether the part is a free key: ``expect`` maps figures to bounds."""
    return way[0] == "expect" and len(way) == 2


def _enter(here: Any, part: str | int, way: list[str | int], below: type[BaseModel] | None) -> Any:
    _check(here, part, way)
    inner = here[part] if isinstance(part, int) else here.get(part)
    if inner is None:
        inner = {}
    elif isinstance(inner, str) and below is not None:
        inner = {below.key if issubclass(below, Named) else "name": inner}
    elif isinstance(inner, dict | list):
        inner = inner.copy()  # an alias may stand for the same mapping elsewhere
    here[part] = inner
    return inner


def _check(here: Any, part: str | int, way: list[str | int]) -> None:
    above = dotted(way[:-1])
    if isinstance(here, list):
        if not isinstance(part, int) or part >= len(here):
            raise ConfigError(dotted(way), part, "no such entry", f"{above}[0] to {above}[{len(here) - 1}]" if here else "")
    elif not isinstance(here, dict):
        raise ConfigError(dotted(way), here, f"{above} has no settings of its own")
    elif isinstance(part, int):
        raise ConfigError(dotted(way), part, f"{above} is a mapping, not a list")
