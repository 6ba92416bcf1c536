"""The launcher's default for ``max_batch_prefill_tokens``: what the card computes in a second, or what fits into its memory.

*Source*: text-generation-inference 3.3 (db931fcf) ``launcher/src/main.rs`` compute_optimal, vram_maximum, main.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sim.model import ModelSpec

if TYPE_CHECKING:
    from sim.hardware.accelerator import Accelerator

DEFAULT = 4096
_OF_FAMILY = MappingProxyType({"qwen2vl": 10_000, "qwen25vl": 10_000, "gemma3": 8_000})

TERAFLOPS = MappingProxyType(
    {"4090": 82, "T4": 65, "L4": 121, "L40": 181, "L40S": 363, "A10G": 125, "A40": 149, "A100": 312, "H100": 900, "H200": 989}
)
"""Dense 16-bit TFLOP/s by card, as the launcher has them."""

# The names that the launcher knows, as nvidia-smi spells them, in lower case and with dashes. Tesla T4, GeForce RTX 4090, H100 PCIe and
# A100-PCIE-40GB are spelled otherwise there, so they count as unknown.
_KNOWN_AS = MappingProxyType(
    {
        "nvidia-l4": "L4",
        "nvidia-l40": "L40",
        "nvidia-l40s": "L40S",
        "nvidia-a10g": "A10G",
        "nvidia-a40": "A40",
        "nvidia-a100-sxm4-40gb": "A100",
        "nvidia-a100-sxm4-80gb": "A100",
        "nvidia-a100-80gb-pcie": "A100",
        "nvidia-h100-80gb-hbm3": "H100",
        "nvidia-h100-nvl": "H100",
        "nvidia-h200": "H200",
    }
)


def family(model: ModelSpec) -> str:
    """The model family as one lower-case word: ``gemma3…`` for ``Gemma3ForCausalLM`` and for ``gemma3_text``."""
    return model.architecture.lower().replace("_", "")


@dataclass(frozen=True)
class PrefillBudget:
    """The launcher's figures. None: skipped. ``vram`` figures in bytes, the others in tokens."""

    flop_per_token: int
    compute_optimal: int | None
    token_vram: int
    model_vram: int
    vram_maximum: int | None
    default_max_batch_prefill_tokens: int


def prefill_budget(
    model: ModelSpec, card: str | None, vram: float, num_shard: int, cuda_memory_fraction: float = 1.0
) -> PrefillBudget:
    """The default on ``num_shard`` cards of ``vram`` bytes. ``card``: a key of `TERAFLOPS`, or None for one the launcher does not know."""
    layers, hidden, head, inter = model.layers, model.hidden, model.head_dim, model.intermediate
    experts = model.n_experts or 1
    inter = model.moe_intermediate or inter if model.is_moe else inter
    routed = (model.top_k if model.is_moe else 1) + model.n_shared_experts
    flop = layers * (2 * hidden * head * (3 * model.heads + 2 * model.kv_heads) + 6 * hidden * inter * routed)
    optimal = None
    if card is not None and model.vision_params == 0:
        tokens = TERAFLOPS[card] * 10**12 * num_shard // flop
        optimal = tokens if tokens > 100 else None
    token_vram = model.kv_heads * 2 * head * 2 * layers + (inter + inter // 2) * experts * 2 * 3
    # the launcher counts the query, key and value matrices without their input width
    attention = (model.heads + 2 * model.kv_heads) * head + model.heads * head * hidden
    model_vram = 2 * (layers * (3 * inter * experts * hidden + attention) + 2 * hidden * model.vocab)
    maximum = None
    if not model.format.quantised:
        share = (
            np.float32(int(vram) * num_shard) * np.float32(cuda_memory_fraction) * np.float32(0.95)
        )  # single precision upstream
        room = int(share) - model_vram
        maximum = room // token_vram if room >= 0 else None
    fallback = next((n for name, n in _OF_FAMILY.items() if family(model).startswith(name)), DEFAULT)
    value = min(x for x in (optimal or fallback, model.max_position, maximum) if x is not None)
    return PrefillBudget(flop, optimal, token_vram, model_vram, maximum, max(value, 1))


def card_of(accelerator: Accelerator) -> str | None:
    """How the launcher sees an accelerator of ours: by the name its driver gives."""
    return _KNOWN_AS.get(accelerator.device_name.lower().replace(" ", "-"))


def check_row(row: Mapping[str, object]) -> dict[str, object]:
    """The figures of one recorded row (``model, gpu, num_shard``, memory in MiB at the end of ``note``)."""
    from sim.model import load_model

    mib = re.search(r"(\d+)\s*$", str(row["note"]))
    if mib is None:
        raise ValueError("note without memory in MiB")
    budget = prefill_budget(
        load_model(str(row["model"]).lower()), str(row["gpu"]), int(mib[1]) * 2**20, int(str(row["num_shard"]))
    )
    return {name: getattr(budget, name) for name in PrefillBudget.__dataclass_fields__}
