# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Adapters (LoRA) in a batch: which are on the device, which in host memory, what has to be copied or read before the step.

Both places evict the adapter that was used least recently. *Source*: vLLM 0.33 ``lora/worker_manager.py: LRUCacheWorkerLoRAManager`` and
``lora/model_manager.py: LRUCacheLoRAModelManager``, SGLang 0.5.23 ``lora/mem_pool.py: LoRAMemoryPool`` (lru by default): both copy in front
of the forward pass, which waits. How many adapters may be in one batch is the scheduler's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.features import ADAPTERS, LORA_LOADS, LORA_READS, LORA_TOKENS
from sim.jit import inline, kernel


@dataclass(frozen=True)
class Adapters:
    """What an engine is set up for: ``rank`` of the buffers, how many adapters are ``on_device`` at once and ``in_host`` memory.

    ``in_host`` None: all of them are in host memory from the start.
    """

    rank: int
    on_device: int
    in_host: int | None = None


@kernel
def set_adapters(s, on_device, in_host):
    """Room for adapters on the device and in host memory (0: whatever is not on the device is there)."""
    s.ad_id = np.zeros(on_device, np.int32)
    s.ad_last = np.zeros(on_device, np.int64)
    s.ad_host_id = np.zeros(in_host, np.int32)
    s.ad_host_last = np.zeros(in_host, np.int64)


@inline
def _use(ids, last, lora, clock):
    """Use an adapter: 0 if it has been used at ``clock`` already, 1 if it was there, 2 if the one unused for longest made way for it."""
    oldest = 0
    for j in range(ids.size):
        if ids[j] == lora:
            new = 1 if last[j] < clock else 0
            last[j] = clock
            return new
        if last[j] < last[oldest]:
            oldest = j
    ids[oldest] = lora
    last[oldest] = clock
    return 2


@kernel
def count_adapters(f, rows, slots, tokens, lora, clock, ids, last, host_ids, host_last):
    """Fill the sums ``f`` of a batch that concern adapters, the ``clock``-th that is counted: ``slots`` and ``tokens`` of its rows."""
    if ids.size == 0:
        return
    f[LORA_TOKENS] = f[ADAPTERS] = f[LORA_LOADS] = f[LORA_READS] = 0.0
    for i in range(rows):
        name = lora[slots[i]]
        if name == 0:
            continue
        f[LORA_TOKENS] += tokens[i]
        found = _use(ids, last, name, clock)
        if found > 0:
            f[ADAPTERS] += 1.0
        if found == 2:
            f[LORA_LOADS] += 1.0
            if host_ids.size > 0 and _use(host_ids, host_last, name, clock) == 2:
                f[LORA_READS] += 1.0
