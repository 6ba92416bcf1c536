"""Weights that kernels want in larger shapes than the checkpoint's: experts of 4-bit microscaling under vLLM.

*Source*: vLLM ``fused_moe/oracle/mxfp4.py`` (hidden and intermediate widths rounded up to 256 and 128 for Marlin, 256 and 256 on AMD), and what
its logs say loading took: 13.72 GiB (gpt-oss-20b, A100, 0.19), 3.58 (four L40S, 0.11), 65.97 GiB (gpt-oss-120b, H100, 0.10 and 0.11.2), 7.26 GiB
(gpt-oss-20b, two AMD cards). Hopper takes Triton's kernels from 0.12 on: 13.47 GiB (20b) and 64.38 (120b, 0.14.1) are those of one width rounded up
to 256; that it is the hidden one is an assumption. Data-centre Blackwell takes FlashInfer's, of which no log is known: none is added there.
"""

from __future__ import annotations

from math import ceil

from sim.cost.memory import Deployment, Line
from sim.model.quant import EXPERT

_MARLIN, _AMD, _TRITON = (256, 128), (256, 256), (256, 1)
_TRITON_ON_HOPPER = (0, 12)
"""Inferred from the dates of logs."""


def _widths(d: Deployment, version: tuple[int, int]) -> tuple[int, int] | None:
    """What the hidden and the intermediate width are multiples of; None: of nothing, or not known."""
    if d.accelerator.vendor == "amd":
        return _AMD
    capability = d.accelerator.compute_capability
    if capability == "9.0" and version >= _TRITON_ON_HOPPER:
        return _TRITON
    return None if not capability or capability.startswith("10.") else _MARLIN


def expert_padding(d: Deployment, version: tuple[int, int]) -> tuple[Line, ...]:
    """A line with the bytes that padding adds on one GPU; none where nothing is padded."""
    model = d.model
    widths = _widths(d, version) if model.is_moe and model.format.name == "mxfp4" else None
    if widths is None:
        return ()
    hidden, inner = model.hidden, model.moe_intermediate / (max(d.tp * d.dp, d.ep) // d.ep)
    wide, inside = ceil(hidden / widths[0]) * widths[0], ceil(inner / widths[1]) * widths[1]
    layers = max(sum(model.experts_in[first:last]) for first, last in model.stages(d.pp))
    more = layers * model.n_experts / d.ep * 3 * (wide * inside - hidden * inner) * model.format.bytes_of(EXPERT)
    return (
        (Line("expert padding", more, "fitted", f"experts of {wide} × {inside} for the kernels, in vLLM logs"),)
        if more > 0
        else ()
    )
