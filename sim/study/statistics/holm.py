"""Many comparisons at once: Holm's (1979) step-down correction keeps the chance of any false claim at the level of one."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given: the i-th smallest times (n − i), never decreasing, at most 1."""
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = so_far
    return adjusted
