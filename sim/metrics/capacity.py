"""The shape of an answer to "how much load does this hold?": probes and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sim.metrics.definitions import definition


@dataclass(frozen=True)
class Probe:
    """One run of a search. ``value``: requests per second, or replicas; ``summary``: that of its result."""

    value: float
    summary: dict[str, Any]

    @property
    def held(self) -> bool:
        """Whether the run met its SLO."""
        return bool(self.summary["slo"]["met"])


@dataclass(frozen=True)
class CapacityAnswer:
    """``question``: the highest rate that a deployment holds, or the fewest replicas for a rate.

    ``answer``: None when not even the first probe held. ``bound``: what was fixed, in words (``2 replicas``, ``24 requests/s``).
    ``tolerance``: relative width of the last bracket of a rate.
    """

    name: str
    question: Literal["rate", "replicas"]
    answer: float | None
    probes: Sequence[Probe]
    bound: str = ""
    tolerance: float = 0.0
    warnings: Sequence[str] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """The answer in one sentence."""
        unit = "requests/s" if self.question == "rate" else "replica" if self.answer == 1 else "replicas"
        over = f" with {self.bound}" if self.bound and self.question == "rate" else f" for {self.bound}" if self.bound else ""
        if self.answer is None:
            return f"{self.name} does not hold its SLO{over} at any probed {'rate' if self.question == 'rate' else 'size'}."
        within = f" (to within {self.tolerance:.1%})" if self.tolerance and self.question == "rate" else ""
        if self.question == "rate":
            return f"{self.name} holds its SLO up to {self.answer:.4g} {unit}{over}{within}."
        return f"{self.name} needs {self.answer:.0f} {unit}{over}."

    def limit(self) -> str:
        """What breaks first: the sentence of the smallest load (or largest size) that did not hold."""
        broken = [p for p in self.probes if not p.held]
        if not broken:
            return "No probe broke the SLO."
        first = min(broken, key=lambda p: p.value) if self.question == "rate" else max(broken, key=lambda p: p.value)
        attained = first.summary.get("slo", {}).get("attainment", {})
        single = {k: v for k, v in attained.items() if k != "joint" and v is not None}
        missed = ""
        if single:
            worst = min(single, key=lambda k: single[k])
            what = f"{first.value:.4g} requests/s" if self.question == "rate" else f"{first.value:.0f} replicas"
            missed = f"at {what} only {single[worst]:.2%} meet {definition(worst).title}. "
        sentence = str(first.summary["bottleneck"]["sentence"])
        return missed + sentence.replace("Nothing is saturated:", "No limit is hit, but steps have grown long:")
