"""Links between accelerators and between servers (`profiles/links/*.yaml`): bandwidth, latency, topology, each with source and grade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from sim.errors import UnknownNameError
from sim.places import expanded
from sim.profile_files import Evidence, Graded, Record, checked, parse_mapping, read_text
from sim.resources import path as resource
from sim.units import parse_bytes, parse_seconds

LinkKind = Literal["nvswitch", "nvlink", "xgmi", "pcie", "hccs", "ub", "icn", "rdma", "tcp", "none"]
_WHAT = "a link"


def _per_second(value: object) -> float:
    return parse_bytes(value.strip().removesuffix("/s") if isinstance(value, str) else value)


_TEXT_TOO: JsonDict = {"type": ["number", "string"]}


class Bandwidth(Graded[Annotated[float, Field(ge=0, le=1e15, json_schema_extra=_TEXT_TOO), BeforeValidator(_per_second)]]):
    """Bytes per second, such as 450GB."""


class Latency(Graded[Annotated[float, Field(ge=0, le=10, json_schema_extra=_TEXT_TOO), BeforeValidator(parse_seconds)]]):
    """Seconds, or with a unit such as 10us."""


class Collectives(Record):
    """Whose measured collectives stand in on a link, scaled by bandwidth."""

    system: str = Field(description="first part of the name of a fitted kernel profile, such as h100-sxm")
    reason: str = Field(min_length=1, description="why they may")


class LinkFile(Record):
    """How one accelerator reaches the others of its server, or how servers reach one another."""

    name: str = Field(min_length=1, description="name of the link")
    title: str = Field("", description="for people")
    kind: LinkKind = Field(description="technology")
    switched: bool = Field(False, description="a group of any size has the full bandwidth of every member")
    domain: int = Field(8, ge=1, le=1 << 20, strict=True, description="how many accelerators it joins")
    bandwidth: Bandwidth = Field(
        description="bytes per second in one direction out of one accelerator, all its lanes together, such as 450GB"
    )
    latency: Latency = Field(description="one small message, such as 10us")
    peer_bandwidth: Bandwidth | None = Field(
        None, description="what one pair can use where there is no switch: one lane of a mesh"
    )
    collectives: Collectives | None = Field(
        None, description="measured collectives that stand in; without: a ring at 72 % of the bandwidth"
    )
    notes: tuple[str, ...] = Field((), description="for people")


@dataclass(frozen=True)
class Link:
    """How one accelerator reaches the others.

    *Units*: ``bandwidth`` bytes per second in one direction out of one accelerator, all its lanes together; ``latency`` seconds of
    one small message. ``peer_bandwidth`` is what one *pair* can use where there is no switch (HCCS full mesh: one lane of seven);
    0 means a pair can use everything. ``domain`` is how many accelerators the link joins; ``switched``: a group of any size has the full
    bandwidth of every member. ``collectives``: the system whose measured collectives stand in, scaled by bandwidth ("": none).
    """

    kind: LinkKind
    bandwidth: float
    latency: float
    domain: int = 8
    peer_bandwidth: float = 0.0
    source: str = ""
    evidence: Evidence = "datasheet"
    name: str = ""
    switched: bool = False
    collectives: str = ""
    why: str = ""

    def group_bandwidth(self, n: int) -> float:
        """Bytes/s one member can send to the other ``n - 1`` of a group together: a mesh uses only the lanes to members."""
        return min(self.bandwidth, self.peer_bandwidth * (n - 1)) if self.peer_bandwidth and n > 1 else self.bandwidth


def parse_link(raw: Mapping[str, object], source: str) -> Link:
    """A link from the mapping of its file. ``source`` names the file in errors. Raises `DataError` that names all that is wrong."""
    f = checked(LinkFile, raw, source)
    told = f.bandwidth.source if f.bandwidth.source == f.latency.source else f"{f.bandwidth.source}; {f.latency.source}"
    return Link(
        kind=f.kind,
        bandwidth=f.bandwidth.value,
        latency=f.latency.value,
        domain=f.domain,
        peer_bandwidth=f.peer_bandwidth.value if f.peer_bandwidth else 0.0,
        source=told,
        evidence=f.bandwidth.evidence,
        name=f.name,
        switched=f.switched,
        collectives=f.collectives.system if f.collectives else "",
        why=f.collectives.reason if f.collectives else "",
    )


def find_link(name: str, field: str = "link") -> Link:
    """The link of that name, or of a file ``*.yaml`` of one's own. Raises `UnknownNameError` with the nearest names, `DataError`."""
    if name.endswith((".yaml", ".yml")):
        file = expanded(name)
    else:
        file = resource("profiles", "links", f"{name}.yaml")
        if name not in link_names():
            raise UnknownNameError(field, name, link_names())
    return _link(read_text(file, _WHAT), str(file))


def link_names() -> tuple[str, ...]:
    """Names of the built-in links, sorted."""
    return tuple(sorted(f.stem for f in resource("profiles", "links").glob("*.yaml")))


@lru_cache(maxsize=128)
def _link(text: str, source: str) -> Link:
    return parse_link(parse_mapping(text, source, _WHAT), source)
