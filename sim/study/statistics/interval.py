"""A figure with the range in which its true value lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Self

from sim.document import number

if TYPE_CHECKING:
    from sim.document import Json


@dataclass(frozen=True)
class Interval:
    """``low ≤ true value ≤ high`` in ``level`` of all cases; ``high`` is infinite where too little was seen to say.

    ``method``: how it was found. ``n``: independent observations behind it (replications, or what dependent ones are worth).
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    n: float

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2.0

    @property
    def relative(self) -> float:
        """The larger of the distances to its ends, as a share of the value."""
        reach = max(self.high - self.value, self.value - self.low)
        return reach / abs(self.value) if self.value else (0.0 if reach == 0 else inf)

    @classmethod
    def from_dict(cls, data: Mapping[str, Json]) -> Self:
        """What `as_dict` gave."""
        low, value, level, n = (number(data[k]) for k in ("low", "value", "level", "n"))
        return cls(value, low, inf if data["high"] is None else number(data["high"]), level, str(data["method"]), n)

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON: no infinity."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high if isfinite(self.high) else None,
            "level": self.level,
            "method": self.method,
            "n": round(self.n, 1),
        }
