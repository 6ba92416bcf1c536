"""Policy ``slo`` of the v1 scheduler (``pkg/scheduler/policy/slo_policy.go``). Times in ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sim.policy.llumnix.v1_dispatch import Pick, filtered, select
from sim.policy.llumnix.v1_status import Account

TTFT_SLO: Final = 6000.0
TPOT_SLO: Final = 50.0
FACTOR: Final = 0.85
"""Share of the SLO that a prediction must stay below."""


def slo(
    accounts: Sequence[Account], now: float, infer_type: str, pick: Pick, ttft: float = TTFT_SLO, tpot: float = TPOT_SLO
) -> Account | None:
    """The smallest predicted time below the SLO × 0.85. The filters are not relaxed in the fall-back: None means rejected."""
    left = filtered(accounts, now, None)
    if infer_type != "decode":
        left = [a for a in left if a.predicted_ttft < FACTOR * ttft]
    if infer_type != "prefill":
        left = [a for a in left if a.predicted_tpot < FACTOR * tpot]
    metric = "predicted_tpot" if infer_type == "decode" else "predicted_ttft"
    return select(left, (metric,), pick) if left else None
