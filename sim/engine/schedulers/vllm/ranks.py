# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Data-parallel ranks of a mixture of experts: what they tell each other (``v1/engine/core.py`` DPEngineCoreProc).

``prefill_schedule_interval`` counts the steps of the wave, the same on all ranks. vllm-ascend's balance scheduling: the ranks all-gather the
lengths of their running lists after each step; while any was full, none admits (``patch/platform/patch_balance_schedule.py``).
"""

import sim.engine.confer  # noqa: F401 - declares the functions implemented here
from sim.engine.schedulers.vllm.plan import has_requests


def confer_vllm(s, said):
    """Whether the batch is full."""
    if s.balance and s.n_run >= s.max_run:
        said[0] = 1.0


def heed_vllm(s, said, step):
    """Whether to admit, and whether prompts wait for their step."""
    if s.interval > 1:
        s.throttle = 1 if step % s.interval != 0 else 0
    if s.balance:
        s.shut = False
        for k in range(said.shape[0]):
            if said[k, 0] > 0.0:
                s.shut = True
        s.empties = 0  # what opens the door is not this rank's to see: ask again
        if s.shut:
            s.stuck = False


def unfinished_vllm(s):
    """``scheduler.has_unfinished_requests()``."""
    return s.n_run > 0 or s.wq.len > 0 or s.kvq.len > 0


def at_rest_vllm(s):
    """Nothing to schedule, nothing to report."""
    return not has_requests(s)
