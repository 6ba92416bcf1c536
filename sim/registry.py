"""Name → class: how a new scheduler, router, trace format or arrival process joins without an edit elsewhere.

A built-in is found by scanning the modules of its room (`ROOMS`), a plug-in by the entry-point group ``servesim.<kind>``,
a user's own file by ``path/to/file.py:Name``. A registered class carries ``name``; looking one up imports its module only.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Literal, TypeGuard, TypeVar, get_args, get_origin

from pydantic import BaseModel

from sim import plugins
from sim.errors import ConfigError, ServesimError, UnknownNameError

T = TypeVar("T", bound=type)

ROOMS = {
    "engine": "sim.engine.schedulers",
    "router": "sim.policy.routing",
    "scaler": "sim.policy.scaling",
    "admission": "sim.policy.admission",
    "client": "sim.policy.clients",
    "fault": "sim.policy.faults",
    "arrival": "sim.workload.arrivals",
    "length": "sim.workload.lengths",
    "trace": "sim.workload.traces",
    "bench": "sim.study.bench",
    "export": "sim.report.exports",
    "study": "sim.study.questions",
    "section": "sim.metrics.sections",
}
BASES: Final = {
    "engine": "sim.engine.contract:Scheduler",
    "router": "sim.policy.router:Router",
    "scaler": "sim.policy.scaler:Scaler",
    "admission": "sim.policy.admitting:Admission",
    "client": "sim.policy.client:Client",
    "fault": "sim.policy.fault:Fault",
    "arrival": "sim.workload.arrivals._base:Arrival",
    "length": "sim.workload.lengths._base:Length",
    "trace": "sim.workload.traces._base:Trace",
    "bench": "sim.study.bench._base:Bench",
    "export": "sim.report.exports._base:Export",
    "study": "sim.study.base:Study",
    "section": "sim.metrics.section:Extra",
}
"""What a class of each kind is derived from; imported only to check a plug-in."""
_GUARDED: Final = ("engine", "router", "scaler", "admission", "client", "fault", "arrival", "length", "trace")
"""Kinds whose plug-ins take part in a run."""
_registered: dict[str, dict[str, type]] = {kind: {} for kind in ROOMS}
_checked: dict[tuple[str, type], type] = {}
_scanned: set[str] = set()
_loaded: set[tuple[str, str]] = set()
_broken: dict[str, list[str]] = {}
_own_file: list[str] = []


def register(kind: str) -> Callable[[T], T]:
    """Class decorator: ``@register("router")`` on a class with a ``name`` (and optionally ``aliases``).

    Raises `ConfigError` for a name that another class has. In a file that is loaded as ``path/to/file.py:Class`` it does nothing.
    """

    def add(cls: T) -> T:
        if _own_file:
            return cls
        if not isinstance(getattr(cls, "name", None), str):
            raise ConfigError(kind, f"{cls.__module__}.{cls.__qualname__}", "needs a `name` to be registered under")
        for name in (cls.name, *getattr(cls, "aliases", ())):  # type: ignore[attr-defined]
            if not plugins.is_own(cls.__module__):
                _built_in(kind, name)
            known = _registered.setdefault(kind, {}).get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                taken = f"is the name of {known.__module__}.{known.__qualname__} already"
                raise ConfigError(f"{kind} {cls.__module__}.{cls.__qualname__}", name, taken, hint="choose another `name`")
            _registered[kind][name] = cls
        return cls

    return add


def names(kind: str) -> list[str]:
    """Every known name of a kind, built-in and plug-in, sorted."""
    _scan(kind)
    return sorted(_registered[kind])


def lookup(kind: str, name: str, field: str = "") -> Any:
    """The class registered under ``name``; one of a plug-in is checked, and guarded while it runs (`sim.guard`).

    Raises `UnknownNameError` with the nearest names, `ConfigError` and `PluginError` for a plug-in that is no such class.
    """
    if name not in _registered.get(kind, {}):
        if ".py:" in name:
            return _from_file(kind, name, field or kind)
        _guess(kind, name, field or kind)
    if name not in _registered[kind]:
        _scan(kind)
    if name not in _registered[kind]:
        raise UnknownNameError(field or kind, name, _registered[kind], "; ".join([*_broken.get(kind, ()), *_choices(kind, name)]))
    cls = _registered[kind][name]
    return cls if plugins.is_own(cls.__module__) else _check(kind, cls, field or kind, name)


def _choices(kind: str, name: str) -> list[str]:
    """Where ``name`` is a choice of a setting of what there is: a policy is called a router by many."""
    found = {
        (str(getattr(cls, "name", "")), setting)
        for cls in _registered[kind].values()
        for setting, field in getattr(getattr(cls, "Params", None), "model_fields", {}).items()
        if name in _literals(field.annotation)
    }
    return [f"{setting}={name} is a setting of {whose}" for whose, setting in sorted(found)[:3]]


def _literals(annotation: object) -> set[object]:
    inside = get_args(annotation)
    return set(inside) if get_origin(annotation) is Literal else {x for a in inside for x in _literals(a)}


def _guess(kind: str, name: str, field: str) -> None:
    """Import the module or plug-in that bears the name, so that one name does not cost loading the whole room."""
    _built_in(kind, name)
    if name not in _registered[kind]:
        for point in entry_points(group=f"servesim.{kind}", name=name):
            try:
                _enter(kind, point)
            except ServesimError:
                raise
            except Exception as error:
                raise ConfigError(field, name, _cannot(point, error)) from error


def _built_in(kind: str, name: str) -> None:
    for module in {name.replace("-", "_").replace(".", "_"), name.replace("-", "").replace(".", "")}:
        if module.isidentifier() and importlib.util.find_spec(f"{ROOMS[kind]}.{module}") is not None:
            importlib.import_module(f"{ROOMS[kind]}.{module}")


def _scan(kind: str) -> None:
    """Import the whole room and all plug-ins; one that cannot be loaded is remembered for the message of an unknown name."""
    if kind in _scanned:
        return
    _scanned.add(kind)
    package = importlib.import_module(ROOMS[kind])
    for info in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not info.name.startswith("_"):
            importlib.import_module(f"{ROOMS[kind]}.{info.name}")
    for point in entry_points(group=f"servesim.{kind}"):
        try:
            _enter(kind, point)
        except Exception as error:
            _broken.setdefault(kind, []).append(_cannot(point, error))


def _enter(kind: str, point: EntryPoint) -> None:
    if (kind, point.value) not in _loaded:
        try:
            found = point.load()
        except SystemExit as error:  # it must not end the program
            raise RuntimeError(f"exits with {error.code}") from error
        _loaded.add((kind, point.value))
        if inspect.isclass(found) and found not in _registered[kind].values():
            register(kind)(found)


def _cannot(point: EntryPoint, error: Exception) -> str:
    return f"plug-in {point.name} = {point.value} cannot be loaded: {plugins.said(error)}"


def _from_file(kind: str, spec: str, field: str) -> type:
    file, _, attribute = spec.rpartition(":")
    _own_file.append(file)
    try:
        module = plugins.load_file(file, field)
    finally:
        _own_file.pop()
    own = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module.__name__]
    if not hasattr(module, attribute):
        raise ConfigError(field, spec, f"{file} has no {attribute!r}", ", ".join(own))
    return _check(kind, getattr(module, attribute), field, spec)


def _check(kind: str, cls: object, field: str, given: str) -> type:
    """The guarded class. Raises `ConfigError` where it is not what the kind asks for."""
    if inspect.isclass(cls) and (kind, cls) in _checked:
        return _checked[kind, cls]
    module, _, base_name = BASES[kind].partition(":")
    base: type = getattr(importlib.import_module(module), base_name)
    path = f"{module}.{base_name}"
    if not _is(cls, base):
        raise ConfigError(field, given, f"must be a class derived from {path}")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(field, given, f"does not define {', '.join(missing)}", hint=f"see {path}")
    if not isinstance(name := getattr(cls, "name", None), str) or not name:
        raise ConfigError(field, given, "needs a `name`, which results show", 'such as name = "mine"')
    if hasattr(base, "Params"):
        _check_params(cls, base.Params, field, given)
    from sim import guard  # loads numpy, which the help of the command line does not need

    _checked[kind, cls] = guard.guarded(cls, base) if kind in _GUARDED else cls
    return _checked[kind, cls]


def _check_params(cls: type, wanted_by: type[BaseModel], field: str, given: str) -> None:
    params: object = getattr(cls, "Params", None)
    models = [c for c in wanted_by.__mro__ if issubclass(c, BaseModel)]
    wanted = models[max(0, len(models) - 2)]  # the first of ours, which holds for settings of any kind
    if not _is(params, wanted):
        raise ConfigError(field, given, f"needs `Params`, a class derived from {wanted.__module__}.{wanted.__name__}")
    if not issubclass(params, BaseModel) or params.model_config.get("extra") != "forbid":
        raise ConfigError(
            field, given, "`Params` must refuse unknown settings", 'model_config = ConfigDict(frozen=True, extra="forbid")'
        )


def _is(found: object, base: type) -> TypeGuard[type]:
    return inspect.isclass(found) and issubclass(found, base)
