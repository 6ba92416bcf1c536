"""How evenly tenants are served: Jain's index, and the tenant that is served worst.

Service of a tenant is that of the virtual token counter (arXiv 2401.00588): prompt tokens + 2 × generated tokens of its finished requests. Jain's index
(Σx)² / (n Σx²) is 1 where all x are equal, 1/n where one has all. Over service it says how evenly capacity went, which is wanted only among tenants
that ask for the same; over the share of its own requests that each got through, whether demand beyond a fair share was paid for by others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sim.ledger import FINISHED
from sim.ledger import Values as Array
from sim.metrics.facts import Facts
from sim.metrics.latency import number
from sim.metrics.section import Extra, Section
from sim.registry import register

OUTPUT_WEIGHT: Final = 2.0
_ALL, _WELL = 0.9995, 0.99  # of a tenant's requests served, and within their targets: nothing to tell


def jain(x: Array) -> float | None:
    """Of values that are not negative; None where all are 0."""
    square = float((x * x).sum())
    return float(x.sum()) ** 2 / (x.size * square) if square > 0 else None


@dataclass(frozen=True)
class WorstTenant(Section):
    """The one with the lowest attainment, or without targets the lowest share of its requests served; of equals the one whose TTFT p99 is highest."""

    tenant: int
    name: str
    served_share: float
    attainment: float | None
    service_share: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None


@register("section")
@dataclass(frozen=True)
class Fairness(Extra):
    """How evenly tenants are served: Jain's index over their service and over the share of its requests that each got through."""

    name = "fairness"

    tenants: int
    jain_service: float | None
    jain_served_share: float | None
    worst_tenant: WorstTenant

    @classmethod
    def of(cls, facts: Facts) -> Fairness | None:
        """Of a run in which at least two tenants sent requests that count."""
        record, columns = facts.record, facts.columns
        ok = facts.ok if record.slo.targets() or record.class_slo else None
        if "tenant" in columns:
            return section(columns, columns["tenant"], ("–", *record.tenant_names), ok, facts.counted)
        return section(columns, columns["klass"], record.class_names, ok, facts.counted)

    def sentences(self) -> list[str]:
        """The section in words; nothing where even the worst tenant got all that it asked for."""
        worst = self.worst_tenant
        if worst.served_share >= _ALL and (worst.attainment is None or worst.attainment >= _WELL):
            return []
        how = [f"{worst.served_share:.0%} of its requests were served"]
        if worst.attainment is not None:
            how.append(f"{worst.attainment:.0%} met the SLO")
        if worst.ttft_p99_s is not None:
            how.append(f"TTFT p99 {worst.ttft_p99_s:.2f} s")
        index = "" if self.jain_service is None else f"Jain's index of service {self.jain_service:.2f}; "
        return [f"{self.tenants} tenants: {index}worst served is {worst.name}: {', '.join(how)}"]


def section(
    columns: Mapping[str, Array], tenant: Array, names: Sequence[str], ok: Array | None, counted: Array
) -> Fairness | None:
    """None where fewer than two tenants sent counted requests. ``ok``: who met the targets; None without any."""
    there = np.flatnonzero(np.bincount(tenant[counted], minlength=1))
    if there.size < 2:
        return None
    finished = counted & (columns["status"] == FINISHED)
    size = columns["prompt_tokens"] + OUTPUT_WEIGHT * columns["output_tokens"]
    n = int(there[-1]) + 1
    asked = np.bincount(tenant[counted], minlength=n)[there]
    served = np.bincount(tenant[finished], minlength=n)[there] / asked
    service = np.bincount(tenant[finished], size[finished], n)[there]
    met = None if ok is None else np.bincount(tenant[ok & counted], minlength=n)[there] / asked
    rows = []
    for i, t in enumerate(there.tolist()):
        ttft = columns["ttft_s"][finished & (tenant == t)]
        ttft = ttft[~np.isnan(ttft)]
        p50, p99 = np.percentile(ttft, (50.0, 99.0)) if ttft.size else (np.inf, np.inf)
        rows.append((served[i] if met is None else met[i], -p99, t, p50, p99, i))
    _, _, t, p50, p99, i = min(rows)
    return Fairness(
        int(there.size),
        jain(service),
        jain(served),
        WorstTenant(
            tenant=int(t),
            name=names[t] if t < len(names) else str(t),
            served_share=float(served[i]),
            attainment=None if met is None else float(met[i]),
            service_share=float(service[i] / service.sum()) if service.sum() > 0 else None,
            ttft_p50_s=number(p50),
            ttft_p99_s=number(p99),
        ),
    )
