"""Contexts: default ``num_ctx`` by memory, truncation of prompts, how much a full context drops, which cache slot a prompt gets.

*Source*: ollama/ollama fb3076099687 server/routes.go ``Serve``, llm/llama_server.go ``completionPromptForRequest``; v0.24.0
runner/ollamarunner/cache.go ``LoadCacheSlot``, ``findLongestCacheSlot``, ``findBestCacheSlot``, ``ShiftDiscard``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

GIB = 1 << 30
ONE_SLOT_FAMILIES = frozenset(
    "mllama qwen3vl qwen3vlmoe qwen35 qwen35moe qwen3next lfm2 lfm2moe nemotron_h nemotron_h_moe nemotron_h_omni".split()
)
"""Families that are served with ``OLLAMA_NUM_PARALLEL`` 1 whatever it says."""


def default_num_ctx(total_vram: float) -> int:
    """Without ``OLLAMA_CONTEXT_LENGTH``: by the VRAM of all GPUs, less ``OLLAMA_GPU_OVERHEAD`` of each, in bytes."""
    return 262144 if total_vram >= 47 * GIB else 32768 if total_vram >= 23 * GIB else 4096


def lower_tier(num_ctx: int) -> int | None:
    """The default to retry with when a load runs out of memory; None: there is no lower one."""
    return 32768 if num_ctx > 32768 else 4096 if num_ctx > 4096 else None


def truncated(tokens: int, num_ctx: int, num_keep: int, bos: bool = True) -> tuple[int, int]:
    """(first, last) tokens that stay of a prompt of ``tokens``; (tokens, 0): all of them. Ollama 0.30 and later, with context shift."""
    if tokens <= num_ctx - 1:
        return tokens, 0
    keep = num_keep + bos
    return keep, num_ctx - max((num_ctx - keep) // 2, 1) - keep


def shift_discard(num_ctx: int, num_keep: int, inputs: int) -> int:
    """Tokens that a full context drops (up to 0.24): until half of what may go is free."""
    return max(max((num_ctx - num_keep) // 2, 1) - (num_ctx - inputs), 0)


class CacheSlot(NamedTuple):
    """What a cache slot holds; ``last_used`` in any unit of time."""

    id: int
    inputs: Sequence[Hashable]
    in_use: bool
    last_used: float


def _shared(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def longest_slot(slots: Sequence[CacheSlot], prompt: Sequence[Hashable]) -> tuple[int, int] | None:
    """(slot, common prefix): the free slot that shares most, the first of equals. None: all are in use."""
    free = [(_shared(s.inputs, prompt), -n, s.id) for n, s in enumerate(slots) if not s.in_use]
    return (max(free)[2], max(free)[0]) if free else None


def best_slot(slots: Sequence[CacheSlot], prompt: Sequence[Hashable]) -> tuple[int, int] | None:
    """``OLLAMA_MULTIUSER_CACHE``: a free slot that the prompt continues, else the free one unused for longest, with a copy."""
    shared, _, first = max((_shared(s.inputs, prompt), -n, s) for n, s in enumerate(slots))
    if shared == len(first.inputs) and not first.in_use:
        return first.id, shared
    free = [s for s in slots if not s.in_use]
    return (min(free, key=lambda s: s.last_used).id, shared) if free else None
