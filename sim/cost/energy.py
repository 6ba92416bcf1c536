"""Energy of a run: power of an accelerator by what it is doing, between idle and its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from sim.hardware.accelerator import Accelerator
from sim.ledger import PARTS

if TYPE_CHECKING:
    from sim.cost.residual import Floats

# Share of the span between idle power and the power limit. Prompt phases of LLM serving run near the limit, token phases at 50 to 70 % of it.
# Source: Patel et al., Splitwise (ISCA 2024, fig. 8) and POLCA (ASPLOS 2024), A100 and H100; shares of the parts fitted by eye: estimated.
ACTIVITY: Mapping[str, float] = MappingProxyType(
    {
        "linear_compute": 1.0,
        "attention_prefill": 0.85,
        "linear_memory": 0.6,
        "attention_decode": 0.55,
        "communication": 0.4,
        "other": 0.45,
        "host": 0.15,
    }
)


class Energy(NamedTuple):
    """``joules`` of all accelerators, of them ``idle_joules`` while no step ran; ``mean_watts`` of one accelerator."""

    joules: float
    idle_joules: float
    mean_watts: float


def power(accelerator: Accelerator, activity: float) -> float:
    """Watts of one accelerator at an activity between 0 (idle) and 1 (its limit)."""
    return accelerator.idle_watts + (accelerator.tdp_watts - accelerator.idle_watts) * min(max(activity, 0.0), 1.0)


def energy(accelerator: Accelerator, parts: Sequence[float] | Floats, seconds: float, count: int = 1) -> Energy:
    """Energy of ``count`` accelerators that spent ``parts`` (seconds by `sim.ledger.PARTS`, of one replica) of ``seconds`` in all.

    What is left of ``seconds`` was idle. Cooling, CPUs and power supplies are not in it.
    """
    busy = float(sum(parts))
    active = sum(power(accelerator, ACTIVITY[name]) * float(t) for name, t in zip(PARTS, parts, strict=True))
    idle = accelerator.idle_watts * max(seconds - busy, 0.0)
    total = active + idle
    return Energy(count * total, count * idle, total / seconds if seconds > 0.0 else 0.0)
