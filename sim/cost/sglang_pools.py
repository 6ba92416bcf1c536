"""How SGLang divides what is left for keys and values among pools: full layers, window layers, recurrent states.

*Source*: SGLang 0.5.23 ``model_executor/pool_configurator.py``, ``model_executor/kv_cache_configurator.py``. A server logs the sizes as
``SWAKVPool mem usage: …, swa size: …, full size: …`` and ``Mamba Cache is allocated. max_mamba_cache_size: …``, and the tokens of full layers
as ``max_total_num_tokens``.
"""

from __future__ import annotations

from typing import Literal

from sim.cost.memory import Deployment, Division, Line, Pool
from sim.errors import ConfigError

Keeps = Literal["mean", "all", "window", "states"]
"""``all``: every layer keeps every token. ``mean``: what layers forget is spread over the longest sequence (not how SGLang does it)."""


def divide(
    d: Deployment, keeps: Keeps, page: int, ratio: float, state_ratio: float, slots: int | None, room: float, tokens: int | None
) -> Division | None:
    """The pools in ``room`` bytes; ``tokens`` of full layers, where they are known. Raises `ConfigError`."""
    if keeps == "mean":
        return None
    if keeps == "all":
        return Division(page * d.model.kv_bytes_per_token(d.tp, d.pp))
    groups = d.model.kv_groups(d.tp, d.pp)
    full = sum(g.layers * g.bytes_per_token for g in groups if not g.window)
    if keeps == "window":
        window = sum(g.layers * g.bytes_per_token for g in groups if g.window)
        cell = full + ratio * window
        n = int(room // (page * cell)) * page if tokens is None else tokens
        forgets = int(n * ratio) // page * page
        pools = (Pool("full layers", n, "tokens", n * full), Pool("window layers", forgets, "tokens", forgets * window))
        return Division(page * cell, (), pools)
    slot = d.model.state_bytes(d.tp, d.pp)
    source = f"max_mamba_cache_size {slots}"
    if slots is None:
        share = room * state_ratio / (1 + state_ratio) if tokens is None else tokens * full * state_ratio
        slots = int((share - slot) // slot)
        source = f"mamba_full_memory_ratio {state_ratio:g} to KV, less a slot nobody uses"
    if slots < 1:
        raise ConfigError(
            "deployment.engine.mamba_full_memory_ratio", state_ratio, "leaves no slot for a recurrent state", "more memory"
        )
    states = slots * slot
    n = int((room - states) // (page * full)) * page if tokens is None else tokens
    pools = (Pool("full layers", n, "tokens", n * full), Pool("recurrent states", slots, "states", states))
    return Division(page * full, (Line("recurrent states", states, "estimated", source),), pools)
