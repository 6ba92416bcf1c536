"""What happened when: faults, storms of retries, replicas that came and went, stretches in which the SLO was missed. For every time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from sim.metrics.facts import Facts
from sim.metrics.section import Extra, Section
from sim.metrics.spell import worst_spell
from sim.registry import register

if TYPE_CHECKING:
    from sim.metrics.faults import Incident

MOST: Final = 200
"""Events that are told; of more, the faults come first."""


@dataclass(frozen=True)
class Event(Section):
    """``kind``: ``fault``, ``storm``, ``scaling`` or ``slo``; ``end_s`` equals ``start_s`` where it lasts no time."""

    kind: str
    start_s: float
    end_s: float
    words: str


@register("section")
@dataclass(frozen=True)
class Events(Extra):
    """What happened when, in order of time. ``left_out``: how many more there were."""

    name = "events"

    events: tuple[Event, ...]
    left_out: int

    @classmethod
    def of(cls, facts: Facts) -> Events | None:
        """Of a run in which anything happened besides requests."""
        found = [*_faults(facts), *_storms(facts), *_spells(facts), *_scaling(facts)]
        if not any(e.kind != "slo" for e in found):
            return None
        return cls(tuple(sorted(found[:MOST], key=lambda e: (e.start_s, e.end_s))), max(len(found) - MOST, 0))


def _faults(facts: Facts) -> Iterator[Event]:
    for i in cast("Sequence[Incident] | None", facts.record.stations.get("faults")) or ():
        yield Event("fault", i.start_s, min(i.end_s, max(facts.horizon, i.start_s)), i.words)


def _storms(facts: Facts) -> Iterator[Event]:
    found = facts.storm
    if found is not None:
        yield Event("storm", found.start_s, found.end_s, f"retry storm, up to {found.peak:.1f} attempts per request")
        if found.metastable_s > 0.0 and found.load_back_s is not None:
            yield Event("storm", found.load_back_s, found.end_s, "metastable: the load is back, the service is not")


def _spells(facts: Facts) -> Iterator[Event]:
    slo = facts.record.slo
    if not slo.targets() and not facts.record.class_slo:
        return
    spell = worst_spell(facts.columns, facts.ok, facts.counted, slo.required)
    if spell is not None:
        yield Event("slo", spell.start_s, spell.end_s, f"{spell.met:.0%} of the requests that came met the SLO")


def _scaling(facts: Facts) -> Iterator[Event]:
    scaling = facts.record.scaling
    for life in scaling.lives if scaling is not None else ():
        if life.ready > 0.0:
            yield Event("scaling", life.asked, life.ready, f"replica {life.replica} started")
        if life.drain == life.drain:  # a number
            end = life.gone if life.gone == life.gone else life.drain
            yield Event("scaling", life.drain, end, f"replica {life.replica} {life.why}")
