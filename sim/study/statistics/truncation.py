"""How much of the start of a run is warm-up: MSER-5.

White (1997), "An effective truncation heuristic for bias reduction in simulation output"; White, Cobb and Spratt (2000): average
the series in batches of five, and cut it where the squared standard error of what remains is smallest.
"""

from __future__ import annotations

import numpy as np

from sim.ledger import Values

BATCH = 5


def mser(values: Values) -> int:
    """The cut d that minimises Σ_{i≥d} (x_i − mean)² / (n − d)² over the first half of the series (White 1997)."""
    n = len(values)
    if n < 2:
        return 0
    x = np.asarray(values, float) - float(np.mean(values))
    left = n - np.arange(n)
    total, squares = np.cumsum(x[::-1])[::-1], np.cumsum((x * x)[::-1])[::-1]
    spread = np.maximum(squares - total * total / left, 0.0) / (left * left)
    return int(np.argmin(spread[: n // 2 + 1]))


def mser5(values: Values) -> int | None:
    """How many of the first observations are warm-up; None where the series has not settled in its first half.

    A minimum at the end of the half that is looked at says that even more would be cut.
    """
    n = len(values) // BATCH
    if n < 10:
        return None
    cut = mser(np.asarray(values[: n * BATCH], float).reshape(n, BATCH).mean(axis=1))
    return cut * BATCH if cut < n // 2 - 1 else None
