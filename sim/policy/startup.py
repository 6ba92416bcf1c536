"""How replicas come and go: the phases of a cold start, spot machines that are taken away with notice, windows of maintenance."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.profile_files import Record
from sim.resources import path, read_yaml
from sim.units import Bytes, Seconds


class Phase(NamedTuple):
    """A phase of a cold start: its length in seconds, and what that rests on."""

    name: str
    seconds: float
    grade: str
    source: str


_VLLM: Final = "tensorfuse.io/docs/blogs/reducing_gpu_cold_start (2025-09): vLLM, Llama 3.1 8B, L40S, files and compiled graphs on a shared volume"
_SOURCES: Final = {
    "provision": ("estimated", "no source: a machine of the resource pool is found and attached"),
    "image": ("estimated", "no source: an image of 10 GB at 330 MB/s"),
    "load_bandwidth": ("measured", f"{_VLLM}: 16 GB of weights in 18 s"),
    "warmup": ("measured", f"{_VLLM}: imports and engine 34 s, compilation 23 s, graph capture 7 s"),
}


class MeasuredPhase(Record):
    """``seconds`` as measured; those in which weights are read say how many ``bytes``, and are as long as it takes at that rate."""

    seconds: float = Field(ge=0)
    bytes: float | None = Field(None, gt=0)


class ColdStart(Record):
    """One cold start that somebody measured, phase by phase."""

    engine: str
    title: str
    source: str
    phases_s: dict[str, MeasuredPhase]

    def phases(self, weight_bytes: float, engine: str) -> list[Phase]:
        """Of a replica with so many bytes of weights."""
        grade = "measured" if engine == self.engine else "estimated"
        source = self.source if engine == self.engine else f"for want of figures of {engine}, those of {self.source}"
        return [
            Phase(name, p.seconds if p.bytes is None else p.seconds * weight_bytes / p.bytes, grade, f"{self.title}: {source}")
            for name, p in self.phases_s.items()
        ]


@cache
def cold_starts() -> dict[str, ColdStart]:
    """All of ``profiles/coldstart.yaml``, by name."""
    read = read_yaml(path("profiles", "coldstart.yaml"))
    return {name: ColdStart.model_validate(value) for name, value in read.items()}


class Startup(BaseModel):
    """The cold start of a replica. Its accelerators count from the end of ``provision`` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provision: Seconds = Field(30.0, le=1e6, description="until a machine is there; not spent on the dedicated group (estimated)")
    image: Seconds = Field(30.0, le=1e6, description="until the container image is pulled (estimated)")
    load_bandwidth: Bytes = Field(0.9e9, ge=1e5, description="bytes per second at which the weights of a replica are read")
    warmup: Seconds = Field(
        64.0, le=1e6, description="imports, compilation, graph capture of the engine (measured: vLLM, 8B model, L40S)"
    )

    measured: str | None = Field(
        None, description="a measured cold start of profiles/coldstart.yaml, by name, instead of load_bandwidth and warmup"
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.measured is not None:
            if self.measured not in (known := cold_starts()):
                raise ValueError(f"measured {self.measured!r} is none of {', '.join(known)}")
            fields = type(self).model_fields
            if self.load_bandwidth != fields["load_bandwidth"].default or self.warmup != fields["warmup"].default:
                raise ValueError("measured stands for load_bandwidth and warmup: leave these out")
        return self

    def phases(self, weight_bytes: float, engine: str = "vllm") -> tuple[Phase, ...]:
        """The phases in order, for ``weight_bytes`` of all ranks together. What is not the default is the user's own."""
        seconds = {
            "provision": self.provision,
            "image": self.image,
            "load_bandwidth": weight_bytes / self.load_bandwidth,
            "warmup": self.warmup,
        }
        names = {"provision": "machine", "image": "image", "load_bandwidth": "weights", "warmup": "warm-up"}
        if self.measured is not None:
            del seconds["load_bandwidth"], seconds["warmup"]
        out = []
        for setting, length in seconds.items():
            own = getattr(self, setting) != type(self).model_fields[setting].default
            grade, source = ("given", f"scaling.startup.{setting}") if own else _SOURCES[setting]
            if grade == "measured" and engine != "vllm":
                grade, source = "estimated", f"for want of figures of {engine}, those of {source}"
            out.append(Phase(names[setting], length, grade, source))
        if self.measured is not None:
            out += cold_starts()[self.measured].phases(weight_bytes, engine)
        return tuple(out)


class Spot(BaseModel):
    """Machines that their owner takes back. *Source*: AWS gives notice of 2 minutes, Google Cloud and Azure of 30 seconds (their documentation)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    notice: Seconds = Field(
        120.0, le=1e6, description="time between the notice, at which a replica takes nothing new, and the end of its machine"
    )
    at: tuple[Seconds, ...] = Field((), max_length=10_000, description="times of notices, each for one replica")
    mtbf: Seconds | None = Field(None, ge=0.01, le=1e9, description="mean time until a replica is taken back (exponential)")
    on_demand: int = Field(0, ge=0, le=1000, description="replicas that are on machines of their own and stay")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.at and self.mtbf is None:
            raise ValueError("needs at or mtbf: when machines are taken back")
        return self


class Maintenance(BaseModel):
    """A window in which machines are cordoned: their replicas drain, and so many fewer can be had."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Seconds = Field(le=1e8, description="when it begins")
    duration: Seconds = Field(gt=0, le=1e8, description="how long it lasts")
    replicas: int = Field(1, ge=1, le=1000, description="replicas whose machines are out of service")
