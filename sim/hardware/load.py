"""Accelerators by name or by the path of a profile a user wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from sim.errors import DataError, UnknownNameError
from sim.hardware.accelerator import Accelerator, Figure, Proxy
from sim.hardware.links import LINKS, find_link
from sim.resources import path as resource
from sim.units import parse_bytes

_EVIDENCE = ("measured", "fitted", "datasheet", "estimated")
_TEXT = ("name", "title", "vendor", "architecture")
_OPTIONAL = ("compute_capability", "aliases", "link", "host_link", "proxy", "notes", "l2", "sustained_compute")
_FIGURES = ("memory", "memory_bandwidth", "sm_count", "tdp_watts", "idle_watts", "peak_tflops")


def load_accelerator(name_or_path: str, field: str = "deployment.accelerator") -> Accelerator:
    """The accelerator of a built-in name or alias (``h100`` is ``h100-sxm``), or of a profile file ``*.yaml``.

    *Raises*: `UnknownNameError` with the nearest names; `DataError` naming the file and the figure that is missing or malformed.
    """
    text = str(name_or_path).strip()
    if text.endswith((".yaml", ".yml")):
        return parse_accelerator(_read(Path(text).expanduser()), text)
    index = _index()
    stem = index.get(_key(text))
    if stem is None:
        raise UnknownNameError(field, text, accelerator_names())
    return _builtin(stem)


def accelerator_names() -> tuple[str, ...]:
    """Built-in names, sorted, without aliases."""
    return tuple(sorted(set(_index().values())))


def _key(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


@lru_cache(maxsize=1)
def _index() -> dict[str, str]:
    """Name or alias → built-in name. Reads the head of every file only: YAML of 50 profiles would cost 0.2 s."""
    index: dict[str, str] = {}
    for file in sorted(resource("profiles", "hardware").glob("*.yaml")):
        index[file.stem] = file.stem
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("aliases:"):
                    for alias in line.split(":", 1)[1].strip().strip("[]").split(","):
                        index.setdefault(_key(alias), file.stem)
                if line.startswith("memory:"):
                    break
    return index


@lru_cache(maxsize=64)
def _builtin(stem: str) -> Accelerator:
    file = resource("profiles", "hardware", f"{stem}.yaml")
    return parse_accelerator(_read(file), file.name)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(str(file), "no such file", "give the name of an accelerator or the path of its profile") from None
    except (OSError, yaml.YAMLError) as problem:
        raise DataError(str(file), f"is no readable YAML: {problem}") from None
    if not isinstance(raw, Mapping):
        raise DataError(str(file), "must hold one mapping, the profile of an accelerator")
    return raw


def parse_accelerator(raw: Mapping[str, Any], source: str) -> Accelerator:
    """An accelerator from the mapping of its profile. ``source`` names the file in errors. Raises `DataError`."""
    unknown = sorted(set(raw) - {*_TEXT, *_OPTIONAL, *_FIGURES})
    if unknown:
        raise DataError(source, f"unknown key {unknown[0]!r}", f"known: {', '.join((*_TEXT, *_OPTIONAL, *_FIGURES))}")
    missing = [key for key in (*_TEXT, *_FIGURES, "link", "host_link") if key not in raw]
    if missing:
        raise DataError(source, f"{missing[0]!r} is missing")
    figures: dict[str, Figure] = {}

    def number(key: str, entry: Any, parse: Callable[[Any], float] = float) -> float:
        figures[key] = figure = _figure(key, entry, source)
        try:
            value = parse(figure.value)
        except (TypeError, ValueError) as problem:
            raise DataError(source, f"{key}: {problem}") from None
        if not value >= 0:
            raise DataError(source, f"{key}: must not be negative (got {value})")
        figures[key] = figure._replace(value=value)
        return value

    if not isinstance(raw["peak_tflops"], Mapping) or not raw["peak_tflops"]:
        raise DataError(source, "peak_tflops: must map number formats such as bf16 to figures")
    for key in ("link", "host_link"):
        if raw[key] not in LINKS:
            raise DataError(source, f"{key}: unknown link {raw[key]!r}", f"known: {', '.join(LINKS)}")
    peaks = {
        dtype: number(f"peak_flops.{dtype}", entry, lambda v: float(v) * 1e12) for dtype, entry in raw["peak_tflops"].items()
    }
    link, host = find_link(raw["link"]), find_link(raw["host_link"])
    figures["link.bandwidth"] = Figure(link.bandwidth, link.source, link.evidence)  # type: ignore[arg-type]
    figures["host_bandwidth"] = Figure(host.bandwidth, host.source, host.evidence)  # type: ignore[arg-type]
    proxy = raw.get("proxy")
    return Accelerator(
        **{key: str(raw[key]) for key in _TEXT},
        memory_bytes=number("memory_bytes", raw["memory"], parse_bytes),
        memory_bandwidth=number("memory_bandwidth", raw["memory_bandwidth"], parse_bytes),
        peak_flops=MappingProxyType(peaks),
        sm_count=int(number("sm_count", raw["sm_count"])),
        tdp_watts=number("tdp_watts", raw["tdp_watts"]),
        idle_watts=number("idle_watts", raw["idle_watts"]),
        link=link,
        host_link=raw["host_link"],
        host_bandwidth=host.bandwidth,
        l2_bytes=number("l2_bytes", raw["l2"], parse_bytes) if "l2" in raw else 0.0,
        sustained_compute=_share("sustained_compute", number("sustained_compute", raw["sustained_compute"]), source)
        if "sustained_compute" in raw
        else 1.0,
        compute_capability=str(raw.get("compute_capability", "")),
        proxy=Proxy(proxy["name"], proxy["reason"]) if proxy else None,
        aliases=tuple(str(a) for a in raw.get("aliases", ())),
        notes=tuple(raw.get("notes", ())),
        figures=MappingProxyType(figures),
    )


def _share(key: str, value: float, source: str) -> float:
    if not 0.0 < value <= 1.0:
        raise DataError(source, f"{key}: must be above 0 and at most 1 (got {value})")
    return value


def _figure(key: str, entry: Any, source: str) -> Figure:
    if not isinstance(entry, Mapping) or not {"value", "source", "evidence"} <= set(entry):
        raise DataError(source, f"{key}: needs value, source and evidence")
    if entry["evidence"] not in _EVIDENCE:
        raise DataError(source, f"{key}: evidence {entry['evidence']!r} is none of {', '.join(_EVIDENCE)}")
    return Figure(entry["value"], str(entry["source"]), entry["evidence"])
