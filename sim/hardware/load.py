"""Accelerators by name or by the path of a profile a user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from sim.errors import UnknownNameError
from sim.hardware.accelerator import Accelerator, Figure, Proxy
from sim.hardware.accelerator_file import AcceleratorFile
from sim.hardware.links import find_link
from sim.hardware.power import sustained_by_power
from sim.places import expanded
from sim.profile_files import Graded, checked, parse_mapping, read_text
from sim.resources import path as resource

_WHAT = "the profile of an accelerator"
_IDLE = 0.15  # of the power limit


def load_accelerator(name_or_path: str, field: str = "deployment.accelerator") -> Accelerator:
    """The accelerator of a built-in name or alias (``h100`` is ``h100-sxm``), or of a profile file ``*.yaml``, read again when edited.

    *Raises*: `UnknownNameError` with the nearest names; `DataError` naming the file and everything that is wrong in it.
    """
    text = str(name_or_path).strip()
    if text.endswith((".yaml", ".yml")):
        file = expanded(text)
    else:
        stem = _index().get(_key(text))
        if stem is None:
            raise UnknownNameError(field, text, accelerator_names())
        file = resource("profiles", "hardware", f"{stem}.yaml")
    return _parsed(read_text(file, _WHAT), str(file))


def accelerator_names() -> tuple[str, ...]:
    """Built-in names, sorted, without aliases."""
    return tuple(sorted(set(_index().values())))


def _key(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def _index() -> Mapping[str, str]:
    """Name or alias → built-in name."""
    files = sorted(resource("profiles", "hardware").glob("*.yaml"))
    return _aliases(tuple((f, (s := f.stat()).st_mtime_ns, s.st_size) for f in files))


@lru_cache(maxsize=2)
def _aliases(files: tuple[tuple[Path, int, int], ...]) -> Mapping[str, str]:
    """Reads the head of every file only: YAML of 50 profiles would cost 0.2 s."""
    index: dict[str, str] = {}
    for file, _, _ in files:
        index[file.stem] = file.stem
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("aliases:"):
                    for alias in line.split(":", 1)[1].strip().strip("[]").split(","):
                        index.setdefault(_key(alias), file.stem)
                if line.startswith("memory:"):
                    break
    return index


@lru_cache(maxsize=128)
def _parsed(text: str, source: str) -> Accelerator:
    return parse_accelerator(parse_mapping(text, source, _WHAT), source)


def parse_accelerator(raw: Mapping[str, object], source: str) -> Accelerator:
    """An accelerator from the mapping of its profile. ``source`` names the file in errors. Raises `DataError` with all that is wrong."""
    f = checked(AcceleratorFile, raw, source)
    figures: dict[str, Figure] = {}

    def number(key: str, entry: Graded[float], scale: float = 1.0) -> float:
        figures[key] = Figure(entry.value * scale, entry.source, entry.evidence)
        return entry.value * scale

    peaks = {dtype: number(f"peak_flops.{dtype}", entry, 1e12) for dtype, entry in f.peak_tflops.items()}
    link, host = find_link(f.link), find_link(f.host_link)
    figures["link.bandwidth"] = Figure(link.bandwidth, link.source, link.evidence)
    figures["host_bandwidth"] = Figure(host.bandwidth, host.source, host.evidence)
    idle = f.idle_watts or Graded[float](value=_IDLE * f.tdp_watts.value, source="15 % of the power limit")
    return Accelerator(
        name=f.name,
        title=f.title or f.name,
        vendor=f.vendor,
        architecture=f.architecture,
        memory_bytes=number("memory_bytes", f.memory),
        memory_bandwidth=number("memory_bandwidth", f.memory_bandwidth),
        peak_flops=MappingProxyType(peaks),
        sm_count=int(number("sm_count", f.sm_count)),
        tdp_watts=number("tdp_watts", f.tdp_watts),
        idle_watts=number("idle_watts", idle),
        link=link,
        host_link=f.host_link,
        host_bandwidth=host.bandwidth,
        l2_bytes=number("l2_bytes", f.l2) if f.l2 else 0.0,
        sustained_compute=number("sustained_compute", f.sustained_compute or sustained_by_power(f)),
        memory_efficiency=number("memory_efficiency", f.memory_efficiency) if f.memory_efficiency else 0.0,
        compute_capability=f.compute_capability,
        kind=f.what,
        generation=f.generation or (f"sm_{f.compute_capability.replace('.', '')}" if f.compute_capability else ""),
        memory_type=f.memory_type,
        node_size=f.node.size if f.node else 8,
        network=find_link(f.node.network) if f.node else None,
        device_name=f.device_name,
        proxy=Proxy(f.proxy.name, f.proxy.reason) if f.proxy else None,
        aliases=f.aliases,
        notes=f.notes,
        figures=MappingProxyType(figures),
    )
