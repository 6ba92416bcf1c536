"""Which run is which: a digest of the resolved scenario with its seed, of the files it names, and of the code that runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from sim import plugins, registry
from sim.resources import path as resource
from sim.study.base import Task, Trial

_HERE = Path(__file__).resolve().parents[1]
_NO_RUN = ("report", "cli")  # rooms in which nothing of a run is decided


@cache
def code_version() -> str:
    """Digest of all that a run is computed by: the package's sources and its profiles."""
    digest = hashlib.blake2b(digest_size=16)
    sources = [p for p in sorted(_HERE.rglob("*.py")) if p.relative_to(_HERE).parts[0] not in _NO_RUN]
    profiles = resource("profiles")
    for root, files in ((_HERE, sources), (profiles, sorted(p for p in profiles.rglob("*") if p.is_file()))):
        for file in files:
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def trial_key(trial: Trial, study: str) -> str:
    """Two trials with the same key have the same outcome in a study of that name. Raises `ConfigError` for what cannot be resolved."""
    from sim.config.resolving import resolved

    if trial.problem:
        return digest([dict(trial.settings), trial.problem])
    if isinstance(trial, Task):
        work = trial.work.identity()
        return digest([type(trial.work).__name__, work, _foreign(), sorted(set(contents(work))), code_version(), study])
    data = resolved(trial.scenario)
    for label in ("question", "expect"):
        data.pop(label, None)
    return digest([data, sorted(trial.load.items()), _foreign(), sorted(set(contents(data))), code_version(), study])


def digest(data: object) -> str:
    """A short digest of plain data."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def contents(data: object) -> Iterator[str]:
    """Digests of the files that plain data names: traces, model configurations, profiles, classes of one's own."""
    if isinstance(data, Mapping):
        for value in data.values():
            yield from contents(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from contents(value)
    elif isinstance(data, str) and len(data) < 4096:
        name, python, _ = data.rpartition(".py:")
        file = Path(f"{name}.py" if python else data)
        if file.is_absolute() and file.is_file():
            stat = file.stat()
            yield _content(str(file), stat.st_size, stat.st_mtime_ns)


@cache
def _content(file: str, size: int, changed: int) -> str:
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _foreign() -> list[str]:
    """Digests of the sources of classes that others have registered."""
    found = set()
    for kind in registry.ROOMS:
        for cls in list(registry._registered.get(kind, {}).values()):
            if not plugins.is_own(cls.__module__):
                found.add(plugins.digest([cls.__module__]) or cls.__module__)
    return sorted(found)
