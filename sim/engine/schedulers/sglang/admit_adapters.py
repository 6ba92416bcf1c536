# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""The adapters of the next batch: ``max_loras_per_batch``.

Source: SGLang 0.5.23 ``managers/scheduler.py: Scheduler._get_new_batch_prefill_raw``.
"""

from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.state import SglangState


@outlined(SglangState)
def _adapter_fits(s, lora):
    """``max_loras_per_batch``: whether a request with this adapter (0: none, which counts as one) may join the batch."""
    if s.n_loras < s.lora_limit:
        return 1
    for j in range(s.n_loras):
        if s.loras[j] == lora:
            return 1
    return 0


@outlined(SglangState)
def _note_adapter(s, lora):
    for j in range(s.n_loras):
        if s.loras[j] == lora:
            return 0
    s.loras[s.n_loras] = lora
    s.n_loras += 1
    return 0


@outlined(SglangState)
def _adapters_of_batch(s):
    """Start the set of adapters with those of the running batch and of a request that goes on (never too many)."""
    s.n_loras = 0
    for i in range(s.n_run):
        _note_adapter(s, s.r_lora[s.run[i]])
    for i in range(s.n_can):
        _note_adapter(s, s.r_lora[s.can[i]])
    return 0
