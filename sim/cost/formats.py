"""Which GEMM and expert kernels a number format runs in on an accelerator."""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import NotModelledError
from sim.hardware.accelerator import Accelerator
from sim.model.quant import EXPERT, MLP
from sim.model.spec import ModelSpec

_BLOCK_SCALED = ("deepseek", "qwen3", "minimax", "glm", "kimi")  # published fp8 checkpoints with one scale per 128 × 128 weights


@dataclass(frozen=True)
class Gemm:
    """A GEMM format: fitted tables to look in (best first), matrix-unit dtype, bytes per weight and per activation."""

    name: str
    tables: tuple[str, ...]
    unit: str
    weight_bytes: float
    act_bytes: float


HALF = Gemm("bf16", ("gemm.bf16",), "bf16", 2.0, 2.0)
FP16 = Gemm("fp16", ("gemm.bf16",), "bf16", 2.0, 2.0)  # as fast, but for kernels that sum up in 16 bits
FLOAT = Gemm("fp32", ("gemm.fp32", "gemm.bf16"), "fp32", 4.0, 4.0)  # without tensor cores: PyTorch multiplies 32 bits in full


def plain_format(m: ModelSpec) -> Gemm:
    """How linear layers that are not quantised run."""
    if m.format.bytes_of(MLP) >= 4.0:
        return FLOAT
    return FP16 if m.format.name == "fp16" else HALF


def gemm_format(m: ModelSpec, a: Accelerator) -> Gemm:
    """How the quantised linear layers of a model run on an accelerator."""
    form = m.format
    weight = form.bytes_of(MLP)
    if weight >= 2.0:
        return plain_format(m)
    if form.compute == "fp8":
        if not a.supports("fp8"):
            return Gemm("fp8 weights unpacked to 16 bits", ("gemm.fp8_wo", "gemm.bf16"), "bf16", weight, 2.0)
        if m.architecture.lower().startswith(_BLOCK_SCALED) or m.name.lower().startswith(_BLOCK_SCALED):
            return Gemm("fp8 with block scales", ("gemm.fp8_block", "gemm.fp8", "gemm.bf16"), "fp8", 1.0, 1.0)
        return Gemm("fp8", ("gemm.fp8", "gemm.fp8_block", "gemm.bf16"), "fp8", min(weight, 1.0), 1.0)
    if form.compute == "int8" and a.supports("int8"):
        return Gemm("int8", ("gemm.int8", "gemm.fp8", "gemm.bf16"), "int8", weight, 1.0)
    if form.compute == "fp4":
        if a.supports("fp4"):
            return Gemm(form.name, ("gemm.fp4", "gemm.fp8", "gemm.bf16"), "fp4", weight, weight)
        if not _unpacks(a):
            raise NotModelledError("model.weights", form.name, f"{a.title} has no 4-bit matrix units", "fp8, awq-int4, mxfp4")
    return Gemm(
        f"{form.name}, unpacked to 16 bits", (f"gemm.int{'4' if weight < 0.8 else '8_wo'}", "gemm.bf16"), "bf16", weight, 2.0
    )


def _unpacks(a: Accelerator) -> bool:
    """Whether 4-bit floats are unpacked to 16 bits where matrix units do not know them (vLLM: Marlin, from compute capability 7.5)."""
    return a.vendor.lower() == "nvidia" and a.supports("bf16")


def expert_format(m: ModelSpec, a: Accelerator) -> Gemm:
    """How the routed experts run."""
    weight = m.format.bytes_of(EXPERT)
    if m.format.name in ("mxfp4", "mxfp4-linear"):
        return Gemm("mxfp4 experts", ("moe.mxfp4", "moe.int4", "moe.bf16"), "bf16", weight, 2.0)
    if weight >= 4.0:
        return Gemm("fp32 experts", ("moe.fp32", "moe.bf16"), "fp32", 4.0, 4.0)
    if weight >= 2.0:
        return Gemm("bf16 experts", ("moe.bf16",), "bf16", 2.0, 2.0)
    if m.format.compute == "fp8" and a.supports("fp8"):
        block = m.architecture.lower().startswith(_BLOCK_SCALED) or m.name.lower().startswith(_BLOCK_SCALED)
        tables = ("moe.fp8_block", "moe.fp8") if block else ("moe.fp8", "moe.fp8_block")
        return Gemm("fp8 experts", (*tables, "moe.bf16"), "fp8", min(weight, 1.0), 1.0)
    if m.format.compute == "fp4" and a.supports("fp4"):
        return Gemm("fp4 experts", ("moe.fp4", "moe.fp8", "moe.fp8_block", "moe.bf16"), "fp4", weight, weight)
    if m.format.compute == "int8":
        return Gemm("int8 experts", ("moe.int8", "moe.fp8", "moe.bf16"), "int8", weight, 1.0)
    own = () if weight < 0.8 else ("moe.int8_wo",)  # both unpack weights on the way (Marlin)
    return Gemm("weight-only experts", (*own, "moe.int4", "moe.bf16"), "bf16", weight, 2.0)
