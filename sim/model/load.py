"""Models by built-in name, by Hugging Face id or by the path of a ``config.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sim.document import loads
from sim.errors import ConfigError, DataError, UnknownNameError
from sim.model.hf import spec_from_config
from sim.model.spec import ModelSpec
from sim.places import expanded, is_file, is_folder, is_there
from sim.profile_files import LARGEST, read_text
from sim.resources import path as resource


class ModelProfile(NamedTuple):
    """A built-in model: ``config`` holds the keys of its ``config.json`` that matter for timing and memory."""

    name: str
    hub: tuple[str, ...]
    source: str
    config: Mapping[str, Any]


def load_model(name_or_path: str, weights: str = "auto", kv_cache: str = "auto", field: str = "model") -> ModelSpec:
    """The model of a built-in name, a Hugging Face id, or a ``config.json`` (the file or its folder).

    ``weights`` and ``kv_cache`` name the number formats it is served in; ``auto`` takes those of the checkpoint.

    *Raises*: `UnknownNameError` with the nearest names; `DataError` for an unreadable file; `ConfigError` for a missing key.
    """
    if not isinstance(name_or_path, str) or not name_or_path.strip():
        raise ConfigError(f"{field}.name", name_or_path, "must be a built-in name or the path of a config.json")
    return _load(name_or_path.strip(), weights, kv_cache, field, _contents(name_or_path.strip()))


def _contents(name_or_path: str) -> tuple[bytes, ...]:
    """What the files of a path hold: a part of the key, so that files that were edited are read again."""
    if _key(name_or_path) in _index():
        return ()
    path = expanded(name_or_path)
    try:
        folder = path if is_folder(path) else path.parent
        files = {path, *(folder / name for name in ("params.json", "config.json", "hf_quant_config.json"))}
        return tuple(file.read_bytes() for file in sorted(files) if is_file(file) and file.stat().st_size <= LARGEST)
    except (OSError, ValueError):  # said where it is read
        return ()


@lru_cache(maxsize=128)
def _load(name_or_path: str, weights: str, kv_cache: str, field: str, contents: tuple[bytes, ...]) -> ModelSpec:
    profile = _index().get(_key(name_or_path))
    if profile:
        return spec_from_config(profile.config, profile.name, weights, kv_cache, profile.source, field)
    file = expanded(name_or_path)
    if is_folder(file):
        native = file / "params.json"  # Mistral's own form
        file = native if is_file(native) and not is_there(file / "config.json") else file / "config.json"
    if file.suffix == ".json" or file.is_absolute() or is_there(file):  # no model's name begins with a slash
        beside = file.with_name("hf_quant_config.json")
        return spec_from_config(
            _read(file), _name_of(file), weights, kv_cache, str(file), field, _read(beside) if is_file(beside) else None
        )
    known = model_names()
    short = _key(name_or_path).rsplit("/", 1)[-1]
    raise UnknownNameError(f"{field}.name", short if "/" in name_or_path else name_or_path, known)


def model_names() -> tuple[str, ...]:
    """Built-in names, sorted."""
    return tuple(sorted({p.name for p in _index().values()}))


def model_profile(name: str) -> ModelProfile:
    """The built-in profile of a name or Hugging Face id. Raises `UnknownNameError`."""
    profile = _index().get(_key(name))
    if not profile:
        raise UnknownNameError("model.name", name, model_names())
    return profile


def _key(name: str) -> str:
    return name.strip().lower().replace("_", "-")


@lru_cache(maxsize=1)
def _index() -> dict[str, ModelProfile]:
    index: dict[str, ModelProfile] = {}
    for file in sorted(resource("profiles", "models").glob("*.json")):
        raw = _read(file)
        profile = ModelProfile(raw["name"], tuple(raw.get("hub", ())), raw["source"], raw["config"])
        names = [profile.name, *profile.hub, *(h.rsplit("/", 1)[-1] for h in profile.hub), *raw.get("aliases", ())]
        for name in names:
            index.setdefault(_key(name), profile)
    return index


def _read(file: Path) -> dict[str, Any]:
    if not os.path.lexists(file):
        raise DataError(str(file), "no such file", "give a built-in model name or the path of a config.json")
    text = read_text(file, "the config.json of a model")
    try:
        raw = loads(text)
    except ValueError as problem:
        raise DataError(str(file), f"is no readable JSON: {problem}") from None
    if not isinstance(raw, dict):
        raise DataError(str(file), "must hold one JSON object, the config.json of a model")
    return raw


def _name_of(file: Path) -> str:
    folder = file.resolve().parent.name
    return folder if file.name == "config.json" and folder else file.stem
