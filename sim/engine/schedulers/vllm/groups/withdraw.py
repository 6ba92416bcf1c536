"""As in vLLM."""

from sim.engine.schedulers.vllm.groups.state import GroupState
from sim.engine.schedulers.vllm.withdraw import withdraw_vllm
from sim.jit import implement

implement(GroupState, withdraw=withdraw_vllm)
