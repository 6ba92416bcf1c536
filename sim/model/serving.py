"""What depends on model and engine at once: the KV dtype that ``auto`` means, and what is cached otherwise than the engine does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sim.model.spec import ModelSpec

_WORDS = {
    "sliding": ("sliding-window", "keep only their window"),
    "chunked": ("chunked-attention", "keep only their chunk"),
    "linear": ("recurrent", "keep a state of fixed size"),
}


def served(model: ModelSpec, follows_checkpoint: bool) -> ModelSpec:
    """The model as an engine serves it: its KV cache in the dtype the checkpoint asks for, where ``auto`` of the engine follows that."""
    if follows_checkpoint and model.kv_wanted and model.kv_wanted != model.kv_dtype:
        return replace(model, kv_dtype=model.kv_wanted)
    return model


def cache_warning(model: ModelSpec, kept: Collection[str] = ()) -> str | None:
    """A sentence where layers forget and the engine's cache is modelled as if they did not; None where it is right.

    ``kept``: kinds of layer whose caches the scheduler manages as the engine does (`Scheduler.own_caches`).
    """
    kinds = model.kinds
    wrong = [kind for kind in _WORDS if kind in kinds and kind not in kept]
    if not wrong:
        return None
    which = " and ".join(f"{kinds.count(kind)} {_WORDS[kind][0]} layers ({_WORDS[kind][1]})" for kind in wrong)
    return (
        f"{model.name} has {which} of {model.layers}: their memory is counted as the mean over the longest sequence and blocks are "
        "managed as if all layers had full attention; capacity and prefix hits are approximate"
    )
