"""What a step cost rests on: grade and source of every operator, and the range its measurements cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sim.hardware.accelerator import Evidence as Grade
from sim.ledger import PARTS

if TYPE_CHECKING:
    from sim.cost.residual import Floats
    from sim.document import Json

GRADES: tuple[Grade, ...] = ("measured", "fitted", "datasheet", "estimated")


class Operator(NamedTuple):
    """One operator: the ``part`` of the step it belongs to, its ``share`` of that part's time, and where its numbers come from."""

    name: str
    part: str
    grade: Grade
    source: str
    share: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """Grades of a step cost.

    ``ranges``: largest value covered by measurements (or by the fit) of ``tokens`` in a step, ``rows`` (sequences in a decode batch),
    ``context`` tokens, ``message_bytes`` of a collective. ``notes`` are sentences for people: proxies, approximations.
    """

    operators: tuple[Operator, ...]
    ranges: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def by_part(self) -> dict[str, dict[Grade, float]]:
        """Share of every part's time by grade; shares of a part add up to 1."""
        table: dict[str, dict[Grade, float]] = {}
        for part in PARTS:
            here = [o for o in self.operators if o.part == part and o.share > 0.0]
            total = sum(o.share for o in here)
            table[part] = {g: sum(o.share for o in here if o.grade == g) / total for g in GRADES} if here else {"estimated": 1.0}
        return table

    def shares(self, parts: Sequence[float] | Floats) -> dict[Grade, float]:
        """Share of simulated time that rests on each grade, for seconds by part as a run recorded them."""
        table, total = self.by_part(), float(sum(parts))
        out: dict[Grade, float] = dict.fromkeys(GRADES, 0.0)
        for part, seconds in zip(PARTS, parts, strict=True):
            for grade, share in table[part].items():
                out[grade] += share * float(seconds) / total if total else 0.0
        return out

    def warnings(self, **reached: float) -> list[str]:
        """A sentence for every range that a run left: ``warnings(tokens=16384, context=200_000)``."""
        return [
            f"{name} reached {value:,.0f}, measurements end at {self.ranges[name]:,.0f}: step times beyond are extrapolated"
            for name, value in reached.items()
            if name in self.ranges and value > self.ranges[name]
        ]

    def as_dict(self) -> dict[str, Json]:
        """Plain data for a result file."""
        return {"operators": [o._asdict() for o in self.operators], "ranges": dict(self.ranges), "notes": list(self.notes)}


def merge_notes(*groups: Iterable[str]) -> tuple[str, ...]:
    """Notes in order, each once."""
    return tuple(dict.fromkeys(n for group in groups for n in group))
