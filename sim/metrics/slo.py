"""Targets that a request must meet, and who met them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.metrics.definitions import SLO_METRICS

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Slo:
    """Targets in seconds (None: no target) and the share of requests that must meet all of them."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None
    attainment: float = 0.99

    @classmethod
    def of(cls, source: Any) -> Slo:
        """From anything with these names, a mapping or an object (the scenario's ``slo`` section); None gives no targets."""
        if source is None:
            return cls()
        names = [f.name for f in fields(cls)]
        found = {k: source.get(k) if isinstance(source, Mapping) else getattr(source, k, None) for k in names}
        return cls(**{k: float(v) for k, v in found.items() if v is not None})

    def targets(self) -> dict[str, float]:
        """``{"ttft_s": 1.0, …}``: the targets that are set."""
        values = zip(SLO_METRICS, (self.ttft, self.tpot, self.e2e), strict=True)
        return {key: v for key, v in values if v is not None}


def met(columns: Mapping[str, Array], targets: Mapping[str, float]) -> dict[str, Array]:
    """b1[n] for every target and ``joint``. A request of one token meets any TPOT; one that did not finish meets nothing."""
    finished = columns["status"] == 0
    out: dict[str, Array] = {}
    joint = finished.copy()
    for key, limit in targets.items():
        ok = columns[key] <= limit
        if key == "tpot_s":
            ok |= columns["output_tokens"] <= 1
        ok &= finished
        out[key] = ok
        joint &= ok
    out["joint"] = joint
    return out


def share(ok: Array, counted: Array) -> float | None:
    """Share of ``counted`` that are ``ok``; None when nobody counts."""
    n = int(np.count_nonzero(counted))
    return int(np.count_nonzero(ok & counted)) / n if n else None
