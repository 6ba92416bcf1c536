"""Which kinds of layer hold the KV cache of models some of whose layers forget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.metrics.facts import Facts
from sim.metrics.section import Extra, Section
from sim.registry import register


@dataclass(frozen=True)
class KvGroup(Section):
    """What one kind of layer holds, in shares of all blocks; a block counts for every request that holds it, so shared ones more than once.

    ``mean``: over time; ``waiting``: while the head of the queue waited for KV memory (None: it never did); ``most``: at any time.
    """

    mean: float
    waiting: float | None
    most: float


@register("section")
@dataclass(frozen=True)
class KvGroups(Extra):
    """KV cache by kind of layer. ``waiting_share``: of the time in which the head of the queue waited for memory; ``bound_by``: what held most then."""

    name = "kv_groups"

    groups: Mapping[str, KvGroup]
    waiting_share: float
    bound_by: str | None

    @classmethod
    def of(cls, facts: Facts) -> KvGroups | None:
        """Of a run with engines that keep such layers apart; several pools as one."""
        found: list[Mapping[str, Any]] | None = facts.record.stations.get("kv_groups")
        if not found:
            return None
        seconds, waited, capacity = (sum(pool["times"][i] for pool in found) for i in range(3))
        if seconds <= 0 or capacity <= 0:
            return None
        parts: dict[str, list[float]] = {}
        for pool in found:
            for kind, row in pool["parts"].items():
                parts[kind] = [a + b for a, b in zip(parts.get(kind, [0.0] * 3), row, strict=True)]
        blocks = capacity / seconds  # of one engine
        engines = max(sum(pool.get("engines", 1) for pool in found), 1)
        groups = {
            kind: KvGroup(row[0] / capacity, row[1] / (waited * blocks) if waited > 0 else None, row[2] / (engines * blocks))
            for kind, row in parts.items()
        }
        bound = max(parts, key=lambda kind: parts[kind][1]) if waited > 0 else None
        return cls(groups, waited / seconds, bound)

    def sentences(self) -> list[str]:
        """In words, for the first screen."""
        held = ", ".join(f"{kind} {group.mean:.0%}" for kind, group in self.groups.items())
        text = f"KV blocks by kind of layer, on average of all blocks: {held}"
        if self.bound_by is not None and self.waiting_share >= 0.005:
            share = self.groups[self.bound_by].waiting
            text += f"; requests waited for KV memory {self.waiting_share:.0%} of the time, when {self.bound_by} held {share:.0%}"
        return [text]
