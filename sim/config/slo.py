"""Targets that requests must meet: of every request, and of percentiles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field, model_validator

from sim.config.base import Section
from sim.units import parse_seconds

if TYPE_CHECKING:
    from sim.document import Json

EACH: Final = "each"
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?|999)")


def share_of(percentile: str) -> float:
    """``p95`` → 0.95, ``p99.9`` and ``p999`` → 0.999. Raises ValueError."""
    found = _PERCENTILE.fullmatch(percentile)
    share = 0.0 if not found else 0.999 if found[1] == "999" else round(float(found[1]) / 100, 9)
    if not 0 < share < 1:
        raise ValueError(f"{percentile!r} is no percentile: {EACH}, p50, p90, p95, p99, p99.9 …")
    return share


def _target(value: object) -> object:
    if value is None:
        return None
    given = value if isinstance(value, Mapping) else {EACH: value}
    if not given:
        raise ValueError(f"needs a time, or percentiles such as {{p95: 2s}}, with {EACH} for every request")
    out = {}
    for name, limit in given.items():
        if name != EACH:
            share_of(str(name))
        out[str(name)] = seconds = parse_seconds(limit)
        if seconds <= 0:
            raise ValueError(f"{name} must be greater than 0")
    return out if set(out) != {EACH} else out[EACH]


_SECONDS: Final[dict[str, Json]] = {"type": ["number", "string"]}


def _forms(schema: dict[str, Json]) -> None:
    """What a target may be in a file: text too, which the type of the field does not say."""
    schema.pop("type", None)
    schema["anyOf"] = [_SECONDS, {"type": "object", "additionalProperties": _SECONDS}, {"type": "null"}]


Target = Annotated[float | dict[str, float] | None, BeforeValidator(_target), Field(json_schema_extra=_forms)]
"""Seconds of every request, or of percentiles of all requests: ``2s``, ``{p95: 2s}``, ``{each: 10s, p50: 500ms}``."""


class Targets(Section):
    """Targets of latency: of every request, ``ttft: 2s``, or of percentiles, ``ttft: {p95: 2s}``, or both, ``ttft: {each: 5s, p95: 2s}``."""

    ttft: Target = Field(None, description="time to first token")
    tpot: Target = Field(None, description="time per output token after the first")
    e2e: Target = Field(None, description="end-to-end latency")

    @model_validator(mode="after")
    def _no_contradiction(self) -> Targets:
        """A first token comes before the end: a later target for it says nothing."""
        first, end = (_loosest(x) for x in (self.ttft, self.e2e))
        for name, limit in first.items():
            if name in end and limit > end[name]:
                at = "" if name == EACH else f".{name}"
                raise ValueError(
                    f"ttft{at} ({limit:g} s) is above e2e{at} ({end[name]:g} s), but the first token comes before the end: it would never be missed"
                )
        for key in ("ttft", "tpot", "e2e"):
            limits = sorted((share_of(n) if n != EACH else 2.0, v, n) for n, v in _loosest(getattr(self, key)).items())
            for (_, lower, low), (_, higher, high) in pairwise(limits):
                if lower > higher:
                    raise ValueError(f"{key}.{low} ({lower:g} s) is above {key}.{high} ({higher:g} s), which it can never be")
        return self


def _loosest(target: float | dict[str, float] | None) -> dict[str, float]:
    return target if isinstance(target, dict) else {} if target is None else {EACH: target}


class Slo(Targets):
    """What requests must meet, and the share of them that must meet all targets of every request."""

    attainment: float = Field(0.99, gt=0, le=1, description="share of requests that must meet all targets")


class ClassSlo(Targets):
    """Targets of one class; where it has any, they hold for its requests instead of all of ``slo``."""

    attainment: float | None = Field(
        None, gt=0, le=1, description="share of the class's requests that must meet all its targets; null: as `slo`"
    )
