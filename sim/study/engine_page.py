"""What there is to say of an engine: its own words, and every setting with what it can change."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim import registry
from sim.engine.effect import every_setting, without_effect

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Setting:
    """One setting: dotted name, default as text, what it is, and a note on what it can change."""

    name: str
    default: str
    description: str
    note: str


@dataclass(frozen=True)
class EnginePage:
    """``words``: the documentation of the engine's module. ``idle``: settings without effect on time, and why."""

    title: str
    models: str
    words: str
    not_modelled: tuple[str, ...]
    settings: tuple[Setting, ...]
    idle: dict[str, str]


def engine_page(name: str) -> EnginePage:
    """The page of a registered engine. Raises `UnknownNameError`."""
    scheduler = registry.lookup("engine", name, "engine")
    package = sys.modules[scheduler.__module__.removesuffix(".engine")]
    rows = tuple(_setting(n, inner, info) for n, inner, info in every_setting(scheduler.Params))
    return EnginePage(
        f"{scheduler.name} {scheduler.version}",
        scheduler.models,
        (package.__doc__ or scheduler.__doc__ or "").strip(),
        scheduler.not_modelled,
        rows,
        without_effect(scheduler.Params),
    )


def _setting(name: str, inner: type[BaseModel] | None, info: FieldInfo) -> Setting:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    note = "no effect on time" if extra.get("effect") == "none" else ""
    if "needs" in extra:
        listed = extra.get("values")
        values = f"{', '.join(map(str, listed))}: " if isinstance(listed, list | tuple) else ""
        note = f"{values}only where requests have {extra['needs']}"
    return Setting(name, _default(inner, info), info.description or "", note)


def _default(inner: type[BaseModel] | None, info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if inner is not None and value is not None:
        return "as below"
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value)) if not isinstance(value, list | dict) else str(value)
    )
