"""Study files: ``study: NAME``, the scenario or scenarios, and the options of the study, in one YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.errors import ConfigError
from sim.places import is_file
from sim.profile_files import read_text

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json


def gather(study: str, arguments: Sequence[str], overrides: Sequence[str] = ()) -> tuple[list[Scenario], dict[str, Json]]:
    """(scenarios, options): of a study file, if that is the only argument, else of scenario files and built-in names.

    A study file has ``scenario`` (a file, a built-in name, or a mapping in place) or ``scenarios`` (a list of them); ``set`` (as ``--set``);
    everything else are options of the study, spelled as in Python. Relative paths count from the file's folder.

    *Raises*: `ConfigError`, `DataError`.
    """
    found = _of_study(study, arguments)
    if found is None:
        return [_one_of(arguments, a, overrides) for a in arguments], {}
    data, folder, own = found
    if ("scenario" in data) == ("scenarios" in data):
        raise ConfigError("scenario", None, "a study file needs exactly one of scenario and scenarios")
    listed = data.pop("scenarios", None) or [data.pop("scenario", None)]
    if not isinstance(listed, list):
        raise ConfigError("scenarios", listed, "must be a list")
    return [_scenario(s, folder, [*own, *overrides]) for s in listed], data


def _one_of(arguments: Sequence[str], name: str, overrides: Sequence[str]) -> Scenario:
    """A scenario; an error in one of several says in which."""
    from sim.config import load

    try:
        return load(name, overrides)
    except ConfigError as error:
        raise error.inside(name) if len(arguments) > 1 else error from None


def measured(
    study: str, paths: Sequence[str], scenario: str | None, overrides: Sequence[str] = ()
) -> tuple[list[Scenario], dict[str, Json]]:
    """(scenarios, options) of a study of measurements: ``paths`` are theirs, or one study file with ``paths`` and perhaps ``scenario``.

    *Raises*: `ConfigError`, `DataError`.
    """
    from sim.config import load

    found = _of_study(study, paths) if Path(paths[0]).suffix in (".yaml", ".yml") else None
    if found is None:
        if overrides and scenario is None and any(not o.startswith("seed=") for o in overrides):
            raise ConfigError(
                "--set", overrides[0], "changes a scenario, and there is none", hint="name what was deployed: --scenario"
            )
        return [] if scenario is None else [load(scenario, overrides)], {"paths": list(paths)}
    data, folder, own = found
    listed = data.pop("paths", None)
    if not isinstance(listed, list) or not listed or not all(isinstance(p, str) for p in listed):
        raise ConfigError("paths", listed, "must be a list of files or folders with measurements")
    told = data.pop("scenario", None)
    deployed = [load(scenario, [*own, *overrides])] if scenario is not None else []
    if not deployed and told is not None:
        deployed = [_scenario(told, folder, [*own, *overrides])]
    return deployed, data | {"paths": [str(folder / p) for p in listed]}


def _of_study(study: str, arguments: Sequence[str]) -> tuple[dict[str, Json], Path, list[str]] | None:
    """(the rest of a study file, its folder, what it sets); None where the arguments are no study file. Raises `ConfigError`."""
    found = _study_file(arguments[0]) if len(arguments) == 1 else None
    if found is None:
        return None
    data, folder = found
    named = data.pop("study")
    if named != study:
        raise ConfigError("study", named, f"is not the study of this command ({study})")
    given = data.pop("set", None) or []
    if not isinstance(given, Mapping | list) or (isinstance(given, list) and not all(isinstance(g, str) for g in given)):
        raise ConfigError("set", given, "must be a mapping or a list of settings", "such as {deployment.tp: 2}")
    own = [f"{k}={_text(v)}" for k, v in given.items()] if isinstance(given, Mapping) else list(given)
    return data, folder, own


def _study_file(argument: str) -> tuple[dict[str, Json], Path] | None:
    from sim.config.text import parse

    file = Path(argument)
    if not is_file(file):
        return None
    data = parse(read_text(file, "a scenario or a study"), argument)
    return (data, file.resolve().parent) if isinstance(data, dict) and "study" in data else None


def _scenario(given: object, folder: Path, overrides: Sequence[str]) -> Scenario:
    from sim.config import load, loads
    from sim.config.text import dump

    if isinstance(given, Mapping):
        return loads(dump(dict(given)), overrides, folder=folder)
    if not isinstance(given, str):
        raise ConfigError("scenario", given, "must be a file, a built-in name, or a mapping")
    beside = folder / given
    return load(beside if is_file(beside) else given, overrides)


def _text(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)
