"""Servers and cloud instance types by name: which accelerators they hold and how they reach other servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from sim.errors import ConfigError, DataError, UnknownNameError
from sim.hardware.accelerator import Accelerator
from sim.hardware.links import Link, find_link
from sim.hardware.load import load_accelerator
from sim.profile_files import Evidence, Record, checked, parse_mapping, read_text
from sim.resources import path as resource
from sim.units import Bytes

_WHAT = "servers and instance types"


class InstanceRow(Record):
    """One server or instance type as a file has it."""

    accelerator: str = Field(description="name of the accelerator")
    count: int = Field(ge=1, le=1 << 20, strict=True, description="accelerators in it")
    network: str = Field(description="link to other servers, per accelerator")
    vcpu: int = Field(0, ge=0, strict=True, description="threads; 0: unknown")
    memory: Bytes = Field(0.0, description="host memory; 0: unknown")
    evidence: Evidence = Field(description="grade of these figures")
    source: str = Field(min_length=1, description="where they come from")


class InstanceFile(Record):
    """A file of servers and instance types."""

    instances: dict[str, InstanceRow]


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
        accelerator=load_accelerator(row.accelerator),
        count=row.count,
        network=find_link(row.network),
        vcpus=row.vcpu,
        memory_bytes=row.memory,
        source=row.source,
        evidence=row.evidence,
    )


def instance_names() -> tuple[str, ...]:
    """Known names, sorted."""
    return tuple(sorted(_rows()))


def _rows() -> dict[str, InstanceRow]:
    rows: dict[str, InstanceRow] = {}
    for file in sorted(resource("profiles", "hardware", "instances").glob("*.yaml")):
        for name, row in _file(read_text(file, _WHAT), file).items():
            if name in rows:
                raise DataError(str(file), f"{name} is in another file already")
            rows[name] = row
    return rows


@lru_cache(maxsize=32)
def _file(text: str, file: Path) -> Mapping[str, InstanceRow]:
    return checked(InstanceFile, parse_mapping(text, str(file), _WHAT), str(file)).instances
