"""From a file, a built-in name or a text to a `Scenario`, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.config.resolving import resolved
from sim.config.scenario import Scenario
from sim.config.text import dump, parse
from sim.config.validate import settings
from sim.errors import ConfigError, DataError, brief, did_you_mean
from sim.places import expanded
from sim.profile_files import read_text
from sim.resources import path as resource

if TYPE_CHECKING:
    from sim.document import Json

_BARE = {"arrival": "process", "lengths": "kind"}  # what a bare string means in these sections; elsewhere: the name
_UNFIT = re.compile(r"^\W|[/\\\x00-\x1f\x7f]")
_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[\d{1,9}\])*")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def load(path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """The scenario of a file, or of a built-in name (``quickstart``), with ``overrides`` such as ``deployment.tp=2`` applied.

    Relative paths inside it count from the scenario's folder, those given to a built-in one from the working directory.
    *Raises*: `DataError` for a file that cannot be read, `ConfigError` for whatever is wrong in it.
    """
    file = _find(path)
    text = read_text(file, "a scenario")
    return loads(text, overrides, str(path), None if file.is_relative_to(str(resource("scenarios"))) else file.resolve().parent)


def as_scenario(given: object) -> Scenario:
    """A scenario as it is; loaded, where a file or a built-in name is given. Raises `ConfigError` for anything else."""
    if isinstance(given, Scenario):
        return given
    if isinstance(given, str | Path):
        return load(given)
    raise ConfigError("scenario", type(given).__name__, "is no scenario", "what sim.load returns, a file, or a built-in name")


def loads(text: str, overrides: Iterable[str] = (), source: str = "scenario", folder: Path | None = None) -> Scenario:
    """The scenario of a YAML text; relative paths count from ``folder`` (default: the working directory)."""
    raw = parse(text, source)
    if not isinstance(raw, dict):
        raise DataError(source, "must be a mapping with model, traffic and deployment")
    if raw and raw.keys().isdisjoint(Scenario.model_fields):
        raise DataError(
            source, f"is no scenario: it has {brief(', '.join(map(str, raw)))}", "a scenario has model, traffic and deployment"
        )
    overrides = list(overrides)
    if overrides:
        for key in ("expect", "question"):  # what is asked and expected is of the scenario as written
            raw.pop(key, None)
    for override in overrides:
        _override(raw, override)
    if "name" not in raw and source != "scenario":
        raw["name"] = _UNFIT.sub("-", Path(source).stem)[:80]
    _root(raw, folder or Path.cwd())
    return settings(Scenario, raw)


def vary(scenario: Scenario, changes: Mapping[str, object], folder: Path | None = None) -> Scenario:
    """The scenario with some settings replaced, by dotted path; what it expects is dropped, as that is expected of it as written.

    A section that is mostly a name may be replaced by a bare name (``deployment.engine``), which drops the settings of the old one.
    *Raises*: `ConfigError` for unknown settings and impossible values.
    """
    raw = scenario.model_dump(mode="json", exclude_unset=True)
    raw.pop("expect", None)
    for field, value in changes.items():
        put(raw, field, value)
    _root(raw, folder or Path.cwd())
    return settings(Scenario, raw)


def to_yaml(scenario: Scenario) -> str:
    """The scenario with every default written out: ``loads(to_yaml(s)) == resolve(s)``, and it runs to the same bytes."""
    return dump(resolved(scenario))


def built_in() -> list[tuple[str, str]]:
    """Names of the built-in scenarios, and the question each one answers."""
    out = []
    for file in sorted(resource("scenarios").rglob("*.yaml")):
        raw = parse(file.read_text(encoding="utf-8"), file.name)
        out.append((file.stem, str(raw.get("question", "")) if isinstance(raw, Mapping) else ""))
    return out


def _find(path: str | Path) -> Path:
    try:
        file = expanded(path)
        file.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(str(path)[:100], f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if file.is_dir():
        raise DataError(str(path), "is a folder", "give a scenario file, or the name of a built-in one")
    if file.exists():
        return file
    shipped = {f.stem: f for f in resource("scenarios").rglob("*.yaml")}
    if str(path) in shipped:
        return shipped[str(path)]
    known = did_you_mean(file.stem, shipped) or f"built-in scenarios: {', '.join(sorted(shipped))}"
    raise DataError(str(path), "no such file and no built-in scenario", known)


def _override(raw: dict[str, Json], override: str) -> None:
    field, equals, value = override.partition("=")
    field = field.strip()
    if not equals or not field:
        raise ConfigError("--set", override, "must be path=value", "such as deployment.tp=2")
    put(raw, field, parse(value, f"--set {field}") if value.strip() else None)


def put(raw: dict[str, Json], field: str, value: object) -> None:
    """Set one setting of raw data by its dotted path, in place. Raises `ConfigError` for a path that leads nowhere."""
    steps = [int(m[2]) if m[2] else m[1] for m in _STEP.finditer(field)]
    if not _PATH.fullmatch(field):
        raise ConfigError("--set", field, "must be path=value", "such as deployment.tp=2")
    here: Any = raw
    for i, step in enumerate(steps[:-1]):
        inside = _get(here, step, field)
        if isinstance(inside, str):
            inside = {_BARE.get(str(step), "name"): inside}
        elif inside is None:
            inside = {}
        elif not isinstance(inside, dict | list):
            raise ConfigError(".".join(map(str, steps[: i + 1])), inside, "has no settings inside")
        _put(here, step, inside, field)
        here = inside
    _put(here, steps[-1], value, field)


def _get(here: Any, step: int | str, field: str) -> Any:
    if isinstance(here, list):
        index = int(step) if str(step).isdigit() else -1
        if not 0 <= index < len(here):
            raise ConfigError(field, step, "is no place in this list", f"0 to {len(here) - 1}")
        return here[index]
    return here.get(step)


def _put(here: Any, step: int | str, value: object, field: str) -> None:
    if isinstance(here, list):
        _get(here, step, field)
        here[int(step)] = value
    else:
        here[step] = value


def _root(raw: dict[str, Any], folder: Path) -> None:
    """Relative paths made absolute in place, from the scenario's folder, else from the working directory."""
    traffic = _inside(raw, "traffic")
    sources = [traffic, *(c for c in _inside(traffic, "classes").values() if isinstance(c, dict))]
    synthetics, traces = ([_inside(s, name) for s in sources] for name in ("synthetic", "trace"))
    paths = [(s, "path") for s in (*traces, *(_inside(s, "lengths") for s in synthetics))]
    for section, key in (*paths, (_inside(raw, "model"), "config")):
        if isinstance(section.get(key), str):
            section[key] = _at(section[key], folder)
    listed = raw.get("pools")
    pools = [_inside(raw, "deployment"), *(p for p in (listed if isinstance(listed, list) else ()) if isinstance(p, dict))]
    for pool in pools:
        if str(pool.get("accelerator")).endswith((".yaml", ".yml")):
            pool["accelerator"] = _at(str(pool["accelerator"]), folder)
        for key in ("profile", "network"):
            if str(pool.get(key)).endswith((".yaml", ".yml")):
                pool[key] = _at(str(pool[key]), folder)
    named = [(p, "engine", "name") for p in pools] + [(raw, "router", "name"), (raw, "scaling", "name"), (raw, "clients", "name")]
    for part in ("admission", "faults"):
        several = raw.get(part)
        named += [(raw, part, "name")] if not isinstance(several, list) else []
        named += [({"one": d}, "one", "name") for d in (several if isinstance(several, list) else ()) if isinstance(d, dict)]
    for synthetic, trace in zip(synthetics, traces, strict=True):
        named += [(synthetic, "arrival", "process"), (synthetic, "lengths", "kind"), (trace, "format", "")]
        named.append((trace, "arrival", "process"))
    for section, part, key in named:
        holder, name = (_inside(section, part), key) if isinstance(section.get(part), dict) else (section, part)
        if isinstance(holder.get(name), str) and ".py:" in holder[name]:
            file, _, member = holder[name].rpartition(":")
            holder[name] = f"{_at(file, folder)}:{member}"


def _inside(section: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under ``key``; an empty one where there is none (what it is instead, validation says)."""
    inner = section.get(key)
    return inner if isinstance(inner, dict) else {}


def _at(name: str, folder: Path) -> str:
    try:
        file = expanded(name)
        if file.is_absolute() or not name:
            return name if not name else str(file)
        return str(folder / file if (folder / file).exists() or not file.exists() else file.resolve())
    except (OSError, ValueError, RuntimeError):
        return name  # no path at all: whoever opens it says so
