"""One accelerator as the cost model sees it: `Accelerator`, with the source and grade of every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sim.errors import ConfigError
from sim.hardware.links import Link
from sim.profile_files import Evidence as Evidence

Kind = Literal["gpu", "npu", "cpu"]
MemoryType = Literal["hbm", "gddr", "lpddr", "ddr"]


class Figure(NamedTuple):
    """Where a number comes from and how far to trust it."""

    value: object
    source: str
    evidence: Evidence


class Proxy(NamedTuple):
    """Another accelerator whose measured kernels stand in for this one's, and why."""

    name: str
    reason: str


_FEW_LANES = ("sm_60", "sm_70", "sm_75", "sm_80")
"""Generations with 64 fp32 lanes a multiprocessor. *Source*: CUDA C++ programming guide, arithmetic instructions."""


@dataclass(frozen=True)
class Accelerator:
    """A GPU, an NPU die or a CPU: what one rank of a deployment runs on.

    *Units*: bytes, bytes per second, FLOP per second (dense, multiply and add counted as two), watts.
    ``memory_bytes`` is what the driver reports as total (``cudaMemGetInfo``), less than the number on the box;
    ``host_bandwidth`` is one direction. ``sustained_compute`` is the rate of the matrix units in long compute-bound steps relative to the short
    bursts in which kernels are timed: the power limit lowers the clock. ``generation`` says whose kernels behave alike (``sm_90``).
    ``node_size`` accelerators share a usual server, whose ``network`` (per accelerator) leads to others. ``device_name`` is what the driver
    calls it. ``figures`` holds value, source and evidence under each field's name (``peak_flops.fp8`` for one dtype, ``link.bandwidth`` for
    the link).
    """

    name: str
    title: str
    vendor: str
    architecture: str
    memory_bytes: float
    memory_bandwidth: float
    peak_flops: Mapping[str, float] = field(hash=False)
    sm_count: int  # streaming multiprocessors, AI cores or CPU cores
    tdp_watts: float
    idle_watts: float
    link: Link
    host_link: str
    host_bandwidth: float
    l2_bytes: float = 0.0
    sustained_compute: float = 1.0
    memory_efficiency: float = 0.0  # share of the bandwidth that long reads reach; 0: unknown
    compute_capability: str = ""  # CUDA only, "9.0"
    kind: Kind = "gpu"
    generation: str = ""
    memory_type: MemoryType | None = None
    node_size: int = 8
    network: Link | None = None
    device_name: str = ""
    proxy: Proxy | None = None
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, compare=False, repr=False)

    def supports(self, dtype: str) -> bool:
        """Whether the matrix units multiply this dtype natively."""
        return dtype in self.peak_flops

    def peak(self, dtype: str) -> float:
        """Peak dense FLOP/s. Raises `ConfigError` when the matrix units do not know the dtype."""
        if dtype not in self.peak_flops:
            raise ConfigError(
                "model.weights", dtype, f"{self.title} has no {dtype} matrix units", ", ".join(sorted(self.peak_flops))
            )
        return self.peak_flops[dtype]

    def compute_dtype(self, wanted: str) -> str:
        """The dtype a kernel for ``wanted`` really multiplies in here: fp8 weights on an A100 are unpacked to 16 bits."""
        if wanted in self.peak_flops:
            return wanted
        for fallback in ("bf16", "fp16", "fp32"):
            if fallback in self.peak_flops:
                return fallback
        raise ConfigError("deployment.accelerator", self.name, f"no peak known for {wanted}")

    @property
    def clock(self) -> float:
        """Hz at which the peaks hold, from that of fp32: an NVIDIA multiprocessor has 64 or 128 lanes. 0.0: not known."""
        lanes = 64 if self.generation in _FEW_LANES else 128
        known = self.generation.startswith("sm_") and self.sm_count > 0
        return self.peak_flops.get("fp32", 0.0) / (2.0 * lanes * self.sm_count) if known else 0.0

    @property
    def is_cpu(self) -> bool:
        """Whether this is a processor that works alone, not a card of one."""
        return self.kind == "cpu"

    @property
    def memory_gib(self) -> float:
        """Memory in GiB."""
        return self.memory_bytes / 2**30
