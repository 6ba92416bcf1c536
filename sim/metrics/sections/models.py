"""What the requests of each model got, and how busy its replicas were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from sim.metrics.facts import Facts
from sim.metrics.groups import Row, group_rows
from sim.metrics.section import Extra, keyed
from sim.registry import register


@dataclass(frozen=True)
class ModelRow(Row):
    """The requests of one model. ``replicas`` serve it, ``busy``: share of the time on average."""

    index: int = field(metadata=keyed("model"))
    replicas: int = 0
    busy: float = 0.0


@register("section")
@dataclass(frozen=True)
class Models(Extra):
    """Of a fleet with several models, each on replicas of its own."""

    name = "models"

    rows: tuple[ModelRow, ...]

    @classmethod
    def of(cls, facts: Facts) -> Models | None:
        """Where requests name models."""
        serve = cast("Mapping[str, Sequence[str]] | None", facts.record.stations.get("models"))
        if serve is None or "model" not in facts.columns:
            return None
        rows = group_rows(facts.columns, facts.columns["model"], facts.ok, facts.counted, len(serve))
        found = []
        for k, ((name, pools), row) in enumerate(zip(serve.items(), rows, strict=True)):
            named = zip(facts.record.replica_names, facts.load, strict=True)  # `pool 0`, or by rank `pool 0 rank 1`
            mine = [(n, load["busy"]) for n, load in named if any(n.startswith(f"{p} ") for p in pools)]
            replicas = len({n.split(" rank ")[0] for n, _ in mine})
            busy = sum(share for _, share in mine) / len(mine) if mine else 0.0
            found.append(row.of(ModelRow, k, name, replicas=replicas, busy=busy))
        return cls(tuple(found))

    def sentences(self) -> list[str]:
        """A model whose replicas are idle while another's are not is worth a sentence."""
        most, least = max(self.rows, key=lambda r: r.busy), min(self.rows, key=lambda r: r.busy)
        if most.busy < 0.5 or least.busy > 0.5 * most.busy:
            return []
        busy = f"the replicas of {most.name} were busy {most.busy:.0%} of the time, those of {least.name} {least.busy:.0%}"
        return [f"{busy}: each serves only its own model"]
