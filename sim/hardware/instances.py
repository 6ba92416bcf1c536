"""Servers and cloud instance types by name: which accelerators they hold and how they reach other servers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import yaml

from sim.errors import ConfigError, UnknownNameError
from sim.hardware.accelerator import Accelerator, Evidence
from sim.hardware.links import Link, find_link
from sim.hardware.load import load_accelerator
from sim.resources import path as resource


@dataclass(frozen=True)
class Instance:
    """One server or instance type.

    *Units*: ``memory_bytes`` host memory in bytes and ``vcpus`` threads, 0 where unknown; ``network`` is per accelerator.
    """

    name: str
    accelerator: Accelerator
    count: int
    network: Link
    vcpus: int
    memory_bytes: float
    source: str
    evidence: Evidence

    def check_fits(self, world: int, field: str = "deployment") -> None:
        """Raises `ConfigError` when ``world`` accelerators are more than one such server holds."""
        if world > self.count:
            raise ConfigError(field, world, f"needs more accelerators than {self.name} holds", f"1..{self.count}")


def load_instance(name: str, field: str = "deployment.instance") -> Instance:
    """The instance type of that name. Raises `UnknownNameError` with the nearest names."""
    rows = _rows()
    key = name.strip().lower()
    if key not in rows:
        raise UnknownNameError(field, name, rows)
    row = rows[key]
    return Instance(
        name=key,
        accelerator=load_accelerator(str(row["accelerator"])),
        count=int(str(row["count"])),
        network=find_link(str(row["network"])),
        vcpus=int(str(row.get("vcpu", 0))),
        memory_bytes=float(str(row.get("memory", "0GiB")).removesuffix("GiB")) * 2**30,
        source=str(row["source"]),
        evidence=row["evidence"],  # type: ignore[arg-type]
    )


def instance_names() -> tuple[str, ...]:
    """Known names, sorted."""
    return tuple(sorted(_rows()))


@lru_cache(maxsize=1)
def _rows() -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    for file in sorted(resource("profiles", "hardware", "instances").glob("*.yaml")):
        rows |= yaml.safe_load(file.read_text(encoding="utf-8"))["instances"]
    return rows
