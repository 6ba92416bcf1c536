"""Time of layers with a recurrent state: per row of a decode step, and per token of a prompt.

Decode reads and writes the state once. Prompts run a chunked form that is bound by the multiprocessors, not by memory.

*Fitted* to 1,800 decode and 18,000 prompt timings of gated delta rules (Qwen3.5 sizes) and of Kimi delta attention (K3 sizes) in vLLM on H100,
H200, B200 and B300 (aiconfigurator-core 0.12, operators ``gdn`` and ``kda``: convolution and recurrence added, states in 32 bits, launches of 5.5 us
(decode) and some 20 us (prompts) left to the launches of the step). Median errors from 32 rows and 2,048 tokens on: decode of gated delta rules 2 to
10 %, of delta attention 3 to 24 % (too fast on Blackwell); prompts 12 to 26 %. Other recurrences (Mamba, lightning attention) are taken to be like
the gated delta rule.
"""

from __future__ import annotations

from typing import NamedTuple

from sim.hardware.accelerator import Accelerator
from sim.model.recurrent import DeltaNet, Kda
from sim.model.spec import ModelSpec

BANDWIDTH = 0.85  # share of the memory bandwidth at which decode reads and writes states
PROMPT = 7.4e-12  # seconds of one multiprocessor for one element of state and one token of a prompt
PROMPT_KDA = 2.3  # times that for Kimi delta attention
CHUNK = 64  # tokens of a prompt between two writes of the state, at least


class StateTime(NamedTuple):
    """Seconds of all recurrent layers per row of a decode step and per token of a prompt, and a sentence on what they rest on."""

    row: float
    token: float
    note: str


def state_time(m: ModelSpec, a: Accelerator, tp: int, pp: int) -> StateTime | None:
    """None for models without states."""
    held = m.state_bytes(tp, pp)
    if not held:
        return None
    row = 2.0 * held / (BANDWIDTH * a.memory_bandwidth)
    elements, measured = 0.0, True
    for block in m.blocks:
        if block.mixer is None:
            continue
        matrix = block.mixer.state()[1]
        elements += matrix * (PROMPT_KDA if isinstance(block.mixer, Kda) else 1.0)
        measured &= not matrix or isinstance(block.mixer, DeltaNet | Kda)
    token = max(row / CHUNK, elements / (tp * pp) * PROMPT / max(a.sm_count, 1))
    kind = "fitted to gated delta rules and Kimi delta attention on H100 to B300"
    return StateTime(
        row, token, f"recurrent layers: {kind}" + ("" if measured else "; this recurrence is taken to be like them (estimated)")
    )
