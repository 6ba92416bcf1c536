"""What a scaler is: figures of the fleet go in at every evaluation, the number of replicas to have comes out; the fleet does the rest.

The figures (`METRICS`) are means over the replicas there are, those still starting included: they carry nothing yet, and would be asked for
again at every evaluation if they were left out (Kubernetes' horizontal pod autoscaler counts pods that are not ready likewise).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.guard import Guard
from sim.policy import answers
from sim.units import Bytes, Rate, Seconds

METRICS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "qps": "requests that arrive per second, over the window",
        "gpu": "share of time in which kernels run (steps without host overhead), over the window",
        "queue": "requests that wait, in the engines and at the gateway, as of now",
        "kv": "share of the KV memory in use, as of now",
    }
)
"""Per replica."""


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


class Startup(BaseModel):
    """The cold start of a replica. Its accelerators count from the end of ``provision`` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provision: Seconds = Field(30.0, le=1e6, description="until a machine is there; not spent on the dedicated group (estimated)")
    image: Seconds = Field(30.0, le=1e6, description="until the container image is pulled (estimated)")
    load_bandwidth: Bytes = Field(0.9e9, ge=1e5, description="bytes per second at which the weights of a replica are read")
    warmup: Seconds = Field(
        64.0, le=1e6, description="imports, compilation, graph capture of the engine (measured: vLLM, 8B model, L40S)"
    )

    def phases(self, weight_bytes: float, engine: str = "vllm") -> tuple[Phase, ...]:
        """The phases in order, for ``weight_bytes`` of all ranks together. What is not the default is the user's own."""
        seconds = {
            "provision": self.provision,
            "image": self.image,
            "load_bandwidth": weight_bytes / self.load_bandwidth,
            "warmup": self.warmup,
        }
        names = {"provision": "machine", "image": "image", "load_bandwidth": "weights", "warmup": "warm-up"}
        out = []
        for setting, length in seconds.items():
            own = getattr(self, setting) != type(self).model_fields[setting].default
            grade, source = ("given", f"scaling.startup.{setting}") if own else _SOURCES[setting]
            if grade == "measured" and engine != "vllm":
                grade, source = "estimated", f"for want of figures of {engine}, those of {source}"
            out.append(Phase(names[setting], length, grade, source))
        return tuple(out)


class Targets(BaseModel):
    """Wanted values per replica; at least one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    qps: Rate | None = Field(None, le=1e9, description=METRICS["qps"] + ", such as 12/s")
    gpu: float | None = Field(None, gt=0, le=1, description=METRICS["gpu"] + ": 0.7 is 70 %")
    queue: float | None = Field(None, gt=0, le=1e9, description=METRICS["queue"])
    kv: float | None = Field(None, gt=0, le=1, description=METRICS["kv"])

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.given:
            raise ValueError(f"needs at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def given(self) -> dict[str, float]:
        """Those that were set, by name."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


MOST: Final = 1000


class ScalerParams(BaseModel):
    """What every scaler is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(1, ge=0, le=MOST, description="fewest replicas; 0 allows scaling to zero")
    max: int = Field(ge=1, le=MOST, description="most replicas, those that are draining included")
    targets: Targets = Field(description="wanted value per replica, by metric; with several, the largest number of replicas")
    interval: Seconds = Field(15.0, ge=0.1, le=1e6, description="time between two evaluations (assumed: as Kubernetes)")
    window: Seconds = Field(30.0, ge=0.1, le=1e6, description="what qps and gpu are averaged over (assumed)")
    startup: Startup = Field(default_factory=Startup, description="phases of a cold start")
    pools: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="each pool is scaled by itself with these settings; here those of single pools, by name"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min > self.max:
            raise ValueError("min must not exceed max")
        return self


class Scaler(ABC):
    """Decides how many replicas there are. Registered with ``@register("scaler")``."""

    name: ClassVar[str]
    Params: ClassVar[type[ScalerParams]] = ScalerParams
    guards: ClassVar[Mapping[str, Guard]] = {
        "decide": Guard(
            answers.how_many,
            lambda now, current, metrics: f"at {now:.6g} s with {current} replicas and {dict(metrics)}",
            show=True,
            limited=True,
        )
    }
    """How a scaler of one's own is watched (`sim.guard`)."""
    dedicated: int | None = None
    """Replicas that have machines of their own; further ones run on public machines and are the first to go. None: no such difference."""

    def __init__(self, params: Any) -> None:
        self.params = params

    @abstractmethod
    def decide(self, now: float, current: int, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on, called in order of time. ``current``: replicas there are, starting ones included, draining ones not.

        ``metrics``: the values of ``params.targets``, per replica (all of it where there is none).
        """
