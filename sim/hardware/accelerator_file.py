"""What the profile of an accelerator may hold (`profiles/hardware/*.yaml`, and files of one's own), checked as a whole."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic.config import JsonDict

from sim.errors import DataError, UnknownNameError, did_you_mean
from sim.hardware.accelerator import Kind, MemoryType
from sim.hardware.links import find_link, link_names
from sim.profile_files import Graded, Record
from sim.units import parse_bytes

DTYPES = ("fp32", "tf32", "bf16", "fp16", "fp16_acc16", "fp8", "int8", "fp4", "int4")
"""Number formats of matrix units; ``fp16_acc16``: fp16 that is summed up in 16 bits, where that is faster than in 32 (GeForce)."""
_CPU = ("x86", "arm", "aarch64")


def _above(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    if value < 0:
        raise ValueError(f"must not be negative (got {value})")
    if value == 0:
        raise ValueError("must be above 0 (got 0)")
    return float(value)


def _size(value: object) -> float:
    return _above(parse_bytes(value.strip().removesuffix("/s") if isinstance(value, str) else value))


def _whole(value: object) -> float:
    found = _above(value)
    if found != int(found):
        raise ValueError(f"must be a whole number (got {value})")
    return found


def _name(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_TEXT_TOO: JsonDict = {"type": ["number", "string"]}


class Size(Graded[Annotated[float, Field(le=1e18, json_schema_extra=_TEXT_TOO), BeforeValidator(_size)]]):
    """Bytes, or bytes per second."""


class Number(Graded[Annotated[float, Field(le=1e9, allow_inf_nan=False), BeforeValidator(_above)]]):
    """A number above 0."""


class Whole(Graded[Annotated[float, Field(le=1e7, allow_inf_nan=False), BeforeValidator(_whole)]]):
    """A whole number of at least 1."""


class Share(Graded[Annotated[float, Field(le=1, allow_inf_nan=False), BeforeValidator(_above)]]):
    """Above 0, at most 1."""


class ProxyFile(Record):
    """Another accelerator whose measured kernels stand in."""

    name: str = Field(min_length=1, description="its name")
    reason: str = Field(min_length=1, description="why they may")


class NodeFile(Record):
    """The usual server."""

    size: int = Field(8, ge=1, le=1 << 20, strict=True, description="accelerators in it")
    network: str = Field("rdma-200g", description="link to other servers, per accelerator")
    source: str = Field("no source given", min_length=1, description="where that comes from")

    @field_validator("network")
    @classmethod
    def _known(cls, name: str) -> str:
        return _link(name)


def _link(name: str) -> str:
    try:
        find_link(name)
    except UnknownNameError:
        near = did_you_mean(name, link_names())
        raise ValueError(f"unknown link {name!r} ({near + '; ' if near else ''}known: {', '.join(link_names())})") from None
    except DataError as error:
        raise ValueError(str(error)) from None
    return name


class AcceleratorFile(Record):
    """A GPU, an NPU die or a CPU: what one rank of a deployment runs on. A figure is a value, or value, source and evidence."""

    name: str = Field(min_length=1, max_length=80, description="its name in scenarios and results")
    title: str = Field("", description="for people; by default the name")
    vendor: str = Field(min_length=1, description="nvidia, amd, huawei, apple …: decides whose kernels may stand in")
    architecture: str = Field("", description="for people: Hopper, CDNA 3, x86-64 AVX-512 …")
    kind: Kind | None = Field(
        None, description="gpu, npu or cpu; by default a cpu if the architecture begins with x86 or arm, else a gpu"
    )
    compute_capability: str = Field("", pattern=r"^(\d+\.\d+)?$", description='CUDA compute capability, quoted: "9.0"')
    generation: str = Field(
        "", description="accelerators whose kernels behave alike; by default sm_90 for compute capability 9.0"
    )
    memory_type: MemoryType | None = Field(None, description="hbm, gddr, lpddr or ddr: helps to choose whose kernels stand in")
    device_name: str = Field("", description="what the driver calls it: NVIDIA L40S")
    aliases: tuple[Annotated[str, BeforeValidator(_name)], ...] = Field((), description="other names")
    memory: Size = Field(description="what the driver reports as total, such as 79.18GiB")
    memory_bandwidth: Size = Field(description="bytes per second, such as 3350GB")
    peak_tflops: dict[str, Number] = Field(
        description="dense TFLOP/s of the matrix units by number format: bf16, fp16, fp8, int8, fp4 …"
    )
    sm_count: Whole = Field(description="streaming multiprocessors, AI cores or CPU cores")
    l2: Size | None = Field(None, description="last-level cache")
    tdp_watts: Number = Field(description="board power limit")
    idle_watts: Number | None = Field(None, description="power when idle; by default 15 % of tdp_watts")
    sustained_compute: Share | None = Field(
        None, description="matrix rate of long compute-bound steps over that of the short bursts in which kernels are timed (1)"
    )
    memory_efficiency: Share | None = Field(
        None,
        description="share of memory_bandwidth that long reads reach; kernels that stand in are scaled by it where both have one",
    )
    link: str = Field("none", description="link to the others of its server: a name or the path of a YAML; none: it works alone")
    host_link: str = Field("pcie4-x16", description="link to the host's memory, and to accelerators beyond the link's domain")
    node: NodeFile | None = Field(None, description="the usual server; by default 8 of them, joined by rdma-200g")
    proxy: ProxyFile | None = Field(None, description="another accelerator whose measured kernels stand in")
    notes: tuple[str, ...] = Field((), description="for people")

    @field_validator("link", "host_link")
    @classmethod
    def _known(cls, name: str) -> str:
        return _link(name)

    @field_validator("compute_capability", mode="before")
    @classmethod
    def _quoted(cls, given: object) -> object:
        if isinstance(given, int | float):
            raise ValueError(f'must be text: YAML reads a bare number; quote it, as in "{given}"')
        return given

    @field_validator("peak_tflops", mode="before")
    @classmethod
    def _formats(cls, given: object) -> object:
        if not isinstance(given, dict) or not given:
            raise ValueError("must map number formats such as bf16 to figures")
        unknown = [k for k in given if k not in DTYPES]
        if unknown:
            raise ValueError(f"unknown number format {unknown[0]!r}; known: {', '.join(DTYPES)}")
        return given

    @model_validator(mode="after")
    def _idle_below_limit(self) -> AcceleratorFile:
        if self.idle_watts is not None and self.idle_watts.value > self.tdp_watts.value:
            raise ValueError(f"idle_watts: {self.idle_watts.value:g} is more than tdp_watts {self.tdp_watts.value:g}")
        return self

    @property
    def what(self) -> Kind:
        """gpu, npu or cpu."""
        return self.kind or ("cpu" if self.architecture.lower().startswith(_CPU) else "gpu")
