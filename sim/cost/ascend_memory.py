"""How vllm-ascend divides an NPU's memory: as vLLM, with its own experts, collectives and, in V0, another measure of the peak."""

from __future__ import annotations

from dataclasses import dataclass

from sim.cost.memory import GIB, Deployment
from sim.cost.memory_rules import VllmRule

_RUNTIME = 0.18 * GIB  # as vLLM
_HCCL = 0.8 * GIB  # two communicators of 2 × HCCL_BUFFSIZE (200 MiB); two 310P have 1.0 to 1.05 GiB outside torch (issue 10122)
# Bytes that torch's allocator holds after the dummy pass for each of its peak. Fitted to the prompts of 32,000 tokens that run at once on 910B,
# by the tail of TPOT of 0.9.1: 7 of Qwen3 8B on one card, 12 of Qwen3 30B-A3B on two.
_HELD = 1.75


@dataclass(frozen=True)
class AscendRule(VllmRule):
    """vllm-ascend. *Source*: 0.9.1 ``worker/worker.py: determine_num_available_blocks``, ``ops/fused_moe.py: fused_experts``."""

    by_free_memory: bool = False
    """The peak is what the device has less free after the dummy pass (V0), not what torch had allocated at most."""

    def _peak(self, d: Deployment, sampled: int) -> float:
        peak = super()._peak(d, sampled)
        m = d.model
        if m.is_moe:  # the sorted tokens live until the second product is done
            width = m.moe_intermediate / (max(d.tp * d.dp, d.ep) // d.ep)
            copies = m.top_k * (2.0 * m.hidden + width)
            peak = max(peak, self.max_num_batched_tokens * 2.0 * (copies + 4.0 * m.hidden))
        return peak * (_HELD if self.by_free_memory else 1.0)

    def _outside_torch(self, d: Deployment) -> float:
        return _RUNTIME + (_HCCL if d.world > 1 else 0.0)
