"""Policy ``slo`` and adaptive P/D of the v1 scheduler (``pkg/scheduler/policy/slo_policy.go``, ``adaptive_pd.go``). Times in ms."""

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


def adaptive_decode(accounts: Sequence[Account], now: float, pick: Pick, tpot: float = TPOT_SLO) -> Account | None:
    """The fullest below the SLO × 0.85 (bin packing), else the emptiest. The filter compares predicted TTFT with the TPOT bound, as upstream."""
    left = [a for a in filtered(accounts, now, None) if a.predicted_ttft < FACTOR * tpot]
    below = [a for a in left if a.predicted_tpot < FACTOR * tpot]
    if below:
        return max(below, key=lambda a: a.predicted_tpot)
    return select(left, ("predicted_tpot",), pick) if left else None
