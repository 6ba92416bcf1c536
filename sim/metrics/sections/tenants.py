"""What each tenant got."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sim.metrics.facts import Facts
from sim.metrics.groups import Row, group_rows
from sim.metrics.section import Extra, keyed
from sim.registry import register

_MOST: Final = 200


@dataclass(frozen=True)
class TenantRow(Row):
    """The requests of one tenant."""

    index: int = field(metadata=keyed("tenant"))


@register("section")
@dataclass(frozen=True)
class Tenants(Extra):
    """Tenants by requests, the largest first: at most 200 of ``count``; the request table has them all."""

    name = "tenants"

    count: int
    rows: tuple[TenantRow, ...]

    @classmethod
    def of(cls, facts: Facts) -> Tenants | None:
        """Of traffic that has tenants."""
        if "tenant" not in facts.columns:
            return None
        tenant = facts.columns["tenant"]
        size = np.bincount(tenant)
        order = np.argsort(-size, kind="stable")
        order = order[size[order] > 0]
        place = np.full(size.size, min(len(order), _MOST))
        place[order[:_MOST]] = np.arange(min(len(order), _MOST))
        label = place[tenant]
        rows = group_rows(facts.columns, label, facts.ok, facts.counted, int(label.max()) + 1)[: min(len(order), _MOST)]
        found = (row.of(TenantRow, int(t), facts.record.tenant_name(int(t))) for t, row in zip(order, rows, strict=False))
        return cls(len(order), tuple(found))
