"""Deployments that do not exist as they are written: no engine runs them so. They are predicted all the same, and the result says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.engine.contract import Site

_NEEDS = {"fp8": 7.5, "fbgemm-fp8": 7.5, "awq-int4": 7.5}
"""Least compute capability by number format. *Source*: vLLM model_executor/layers/quantization (``get_min_capability``)."""
_LEAST = {"vllm": 7.0, "sglang": 7.5, "tgi": 7.0}
"""Least compute capability of engines by their installation guides."""


def unfit(engine: str, site: Site) -> tuple[str, ...]:
    """Sentences on what no ``engine`` does with this model on this accelerator."""
    a, m = site.accelerator, site.model
    if a is None or m is None:
        return ()
    found = []
    ascend = a.vendor.lower() == "huawei"
    if engine == "vllm-ascend" and not ascend:
        found.append(f"vLLM Ascend runs on Ascend NPUs only; on {a.title} engine vllm runs")
    if engine == "vllm" and ascend:
        found.append(f"vLLM runs on {a.title} through its plug-in only: engine vllm-ascend, whose host takes longer for a step")
    if ascend and m.format.compute == "fp8" and not a.supports("fp8"):
        found.append(
            f"{a.title} has no FP8 units, and engines read no {m.format.name} weights there: w8a8 or bf16 is what they serve"
        )
    capability = float(a.compute_capability) if a.compute_capability else 0.0
    if capability:
        found += _old(engine, a.title, capability, m.format.name)
    return tuple(found)


def _old(engine: str, title: str, capability: float, weights: str) -> list[str]:
    """What cards of an early generation lack."""
    if capability < _LEAST.get(engine, 0.0):
        return [f"{engine} needs compute capability {_LEAST[engine]:g}; {title} has {capability:g}"]
    if engine in _LEAST and capability < _NEEDS.get(weights, 0.0):
        return [
            f"{engine} has no kernels for {weights} weights below compute capability {_NEEDS[weights]:g}; {title} has {capability:g}"
        ]
    return []
