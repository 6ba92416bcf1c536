"""Laguna (Poolside): query heads by layer, a gate per head, windows in three of four layers, one shared expert."""

from __future__ import annotations

from sim.model.base import Family, Fields, attention_of, blocks_of, decoder, experts, leading_dense
from sim.model.keys import Keys

_GATES = {True: "head", "per-head": "head", "per_head": "head", "per-element": "apart", "per_element": "apart"}


def _laguna(c: Keys) -> Fields:
    """M.1's gate is ``per-element``, a whole projection. *Source*: transformers ``models/laguna`` (5.7), vLLM ``models/laguna.py``."""
    f = decoder(c)
    n = f["layers"]
    experts(c, f)
    f["shared_intermediate"] = c.whole("shared_expert_intermediate_size", default=0, least=0)
    f["n_shared_experts"] = 1 if f["shared_intermediate"] else 0
    leading_dense(c, f)
    if dense := c.where("mlp_only_layers"):
        f["moe_layers"] = tuple(i not in dense for i in range(n))
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    heads = c.wholes("num_attention_heads_per_layer", n) if c.get("num_attention_heads_per_layer") else (f["heads"],) * n
    gating = c.get("gating")
    if gating not in (None, False, *_GATES):
        raise c.error("gating", f"is not modelled for {c.name}", "per-head, per-element, true, false")
    for key in ("gating_types", "partial_rotary_factor", "use_bidirectional_attention"):
        c.get(key)  # what they say stands in ``gating`` or weighs nothing
    gate = _GATES[gating] if gating else ""
    kinds = f["attention"] or ("full",) * n
    mixers = [attention_of(f, kind, gate=gate, heads=own) for kind, own in zip(kinds, heads, strict=True)]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"] + 2 * f["head_dim"]), "attention": ()}
    return f


FAMILIES = {"laguna": Family(_laguna)}
