"""Targets that a request must meet, and who met them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim.ledger import FINISHED
from sim.metrics.definitions import SLO_METRICS
from sim.metrics.section import Section

if TYPE_CHECKING:
    from sim.metrics.facts import Facts

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
    finished = columns["status"] == FINISHED
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


@dataclass(frozen=True)
class SloFigures(Section):
    """Targets, and how far they were met: ``attainment`` by target and ``joint``; ``met``: joint attainment reaches ``required``.

    Without targets ``required``, ``met`` and the goodput are None.
    """

    targets: Mapping[str, float]
    class_targets: Mapping[str, Mapping[str, float]]
    required: float | None
    attainment: Mapping[str, float | None]
    met: bool | None
    goodput_requests_per_s: float | None
    goodput_output_tokens_per_s: float | None
    unserved: float | None


def slo_figures(facts: Facts) -> SloFigures:
    """``slo`` of a summary."""
    record, duration = facts.record, facts.duration
    joint = share(facts.ok, facts.counted)
    wanted = bool(record.slo.targets() or record.class_slo)
    good = facts.ok & facts.finished
    timed = wanted and duration > 0
    served, ended = int(np.count_nonzero(facts.finished)), int(np.count_nonzero(facts.counted))
    names = record.class_names
    return SloFigures(
        targets=record.slo.targets(),
        class_targets={str(names[k]) if k < len(names) else str(k): s.targets() for k, s in sorted(record.class_slo.items())},
        required=record.slo.attainment if wanted else None,
        attainment={k: share(v, facts.counted) for k, v in facts.verdicts.items()} if wanted else {},
        met=joint >= record.slo.attainment if wanted and joint is not None else None,
        goodput_requests_per_s=float(np.count_nonzero(good)) / duration if timed else None,
        goodput_output_tokens_per_s=float(facts.columns["output_tokens"][good].sum()) / duration if timed else None,
        unserved=(ended - served) / ended if ended else None,
    )
