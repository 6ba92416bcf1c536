"""As in vLLM."""

from sim.engine.schedulers.vllm.withdraw import withdraw_vllm
from sim.engine.schedulers.vllm_ascend.prefill_first import PrefillFirstState
from sim.engine.schedulers.vllm_ascend.short_first import ShortFirstState
from sim.jit import implement

implement(PrefillFirstState, withdraw=withdraw_vllm)
implement(ShortFirstState, withdraw=withdraw_vllm)
