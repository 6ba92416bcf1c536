"""Name → class: how a new scheduler, router, trace format or arrival process joins without an edit elsewhere.

A built-in is found by scanning the modules of its room (`ROOMS`), a plug-in by the entry-point group ``servesim.<kind>``,
a user's own file by ``path/to/file.py:Name``. A registered class carries ``name``; looking one up imports its module only.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from sim.errors import ConfigError, UnknownNameError

T = TypeVar("T", bound=type)

ROOMS = {
    "engine": "sim.engine.schedulers",
    "router": "sim.policy.routing",
    "scaler": "sim.policy.scaling",
    "arrival": "sim.workload.arrivals",
    "length": "sim.workload.lengths",
    "trace": "sim.workload.traces",
    "bench": "sim.study.bench",
    "export": "sim.report.exports",
}
_registered: dict[str, dict[str, type]] = {kind: {} for kind in ROOMS}
_scanned: set[str] = set()


def register(kind: str) -> Callable[[T], T]:
    """Class decorator: ``@register("router")`` on a class with a ``name`` (and optionally ``aliases``)."""

    def add(cls: T) -> T:
        for name in (cls.name, *getattr(cls, "aliases", ())):  # type: ignore[attr-defined]
            _registered.setdefault(kind, {})[name] = cls
        return cls

    return add


def names(kind: str) -> list[str]:
    """Every known name of a kind, built-in and plug-in, sorted."""
    _scan(kind)
    return sorted(_registered[kind])


def lookup(kind: str, name: str, field: str = "") -> Any:
    """The class registered under ``name``. Raises `UnknownNameError` with the nearest names."""
    if name not in _registered.get(kind, {}):
        if ".py:" in name:
            return _from_file(name, field or kind)
        _guess(kind, name)
    if name not in _registered[kind]:
        _scan(kind)
    if name not in _registered[kind]:
        raise UnknownNameError(field or kind, name, _registered[kind])
    return _registered[kind][name]


def _guess(kind: str, name: str) -> None:
    """Import the module that bears the name, so that one name does not cost loading the whole room."""
    for module in {name.replace("-", "_").replace(".", "_"), name.replace("-", "").replace(".", "")}:
        if module.isidentifier() and importlib.util.find_spec(f"{ROOMS[kind]}.{module}") is not None:
            importlib.import_module(f"{ROOMS[kind]}.{module}")


def _scan(kind: str) -> None:
    if kind in _scanned:
        return
    _scanned.add(kind)
    package = importlib.import_module(ROOMS[kind])
    for info in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not info.name.startswith("_"):
            importlib.import_module(f"{ROOMS[kind]}.{info.name}")
    for point in entry_points(group=f"servesim.{kind}"):
        point.load()


def _from_file(spec: str, field: str) -> Any:
    path, _, attribute = spec.partition(":")
    if not Path(path).is_file():
        raise ConfigError(field, spec, "no such file", "path/to/file.py:ClassName")
    module_spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise ConfigError(field, spec, f"{path} has no {attribute!r}", ", ".join(n for n in vars(module) if n[0] != "_"))
    return getattr(module, attribute)
