"""From a YAML file to a `Scenario`, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sim.config.explain import explain
from sim.config.overrides import override
from sim.config.plugins import in_folder, resolve
from sim.config.scenario import Scenario
from sim.config.yamls import LARGEST, dump, parse
from sim.errors import ConfigError, DataError, did_you_mean
from sim.resources import path as resource

_SUFFIXES = (".yaml", ".yml")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario of a file, or the built-in one of that name. ``overrides`` are texts such as ``deployment.tp=2``.

    Relative paths inside the file are looked for in its folder, then in the working directory.

    *Raises*: `DataError` for a file that cannot be read, `ConfigError` for what it says.
    """
    file = _find(path)
    try:
        size = file.stat().st_size
        if size > LARGEST:
            raise DataError(str(path), f"is no scenario: {size:,} bytes, at most {LARGEST:,} are read")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(str(path), "is no text file (UTF-8)", "a scenario is written in YAML") from None
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return _made(text, overrides, file.parent, str(path), _name(file.stem))


def loads(text: str, overrides: Sequence[str] = (), folder: str | Path | None = None) -> Scenario:
    """The scenario of a YAML text; ``folder`` is where its relative paths begin (default: the working directory)."""
    return _made(text, overrides, Path(folder) if folder is not None else None, "scenario", None)


def to_yaml(scenario: Scenario) -> str:
    """The resolved scenario as text: every default of every section, engine, router and traffic is written.

    ``loads(to_yaml(s)) == resolve(s)``, and the text runs to the same result.
    """
    return dump(resolve(scenario).model_dump(mode="json"))


def built_in() -> list[tuple[str, str]]:
    """(name, question) of the scenarios that travel with the package."""
    found = []
    for file in sorted(resource("scenarios").glob("*.yaml")):
        data = parse(file.read_text(encoding="utf-8"), file.name)
        found.append((file.stem, str(data.get("question") or "") if isinstance(data, dict) else ""))
    return found


def _find(path: str | Path) -> Path:
    given = Path(path).expanduser() if str(path) else Path()
    try:
        if given.is_file():
            return given
        inside = resource("scenarios", f"{given}.yaml")
        if given.parent == Path() and not str(path).endswith(_SUFFIXES) and inside.is_file():
            return inside
        exists = given.exists()
    except (OSError, ValueError) as error:
        raise DataError(str(path)[:200], f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if exists and str(path):
        raise DataError(str(path), "is a folder or a device, not a scenario file")
    names = [p.stem for p in resource("scenarios").glob("*.yaml")]
    raise DataError(str(path), "no such file and no built-in scenario of this name", did_you_mean(given.stem, names))


def _made(text: str, overrides: Sequence[str], folder: Path | None, source: str, name: str | None) -> Scenario:
    data = parse(text, source)
    if not isinstance(data, dict):
        what = "is empty" if data is None else f"holds {type(data).__name__}"
        raise ConfigError("", data, f"{source}: {what}, must be a mapping with model, traffic and deployment")
    in_folder(data, partial(_locate, folder))
    for change in [overrides] if isinstance(overrides, str) else overrides:
        override(data, change)
    in_folder(data, partial(_locate, None))
    if name is not None:
        data.setdefault("name", name)
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise explain(error, Scenario) from None


def _locate(folder: Path | None, text: str) -> str:
    """An absolute path where the file is there, so that the scenario runs from anywhere; else as written."""
    file, colon, member = text.partition(".py:")
    given = Path(f"{file}.py" if colon else text).expanduser()
    if given.is_absolute():
        return f"{given}:{member}" if colon else str(given)
    for base in (folder, Path()):
        try:
            if base is not None and (base / given).exists():
                found: Any = (base / given).resolve()
                return f"{found}:{member}" if colon else str(found)
        except (OSError, ValueError):
            break
    return text


def _name(stem: str) -> str:
    return re.sub(r"^[\W_]+|[^\w .+-]", "-", stem).strip("-")[:100] or "scenario"
