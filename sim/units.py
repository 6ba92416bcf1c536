"""Quantities as people write them (``80GiB``, ``30s``, ``2000/s``) and as the package keeps them: seconds, bytes, per second.

The ``Seconds``, ``Bytes`` and ``Rate`` annotations make a pydantic field accept both a plain number and a string with a unit.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s].*?)?\s*$")
_TIME = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1.0} | {p + "B": 1000.0**i for i, p in enumerate("kMGTP", 1)} | {"KB": 1000.0}
_BYTES |= {p + "iB": 1024.0**i for i, p in enumerate("KMGTP", 1)}
_RATE = {"/s": 1.0, "/min": 1 / 60, "/m": 1 / 60, "/h": 1 / 3600, "req/s": 1.0, "rps": 1.0, "qps": 1.0}


def _parse(value: object, units: dict[str, float], what: str, example: str) -> float:
    if isinstance(value, bool) or value is None:
        raise ValueError(f"must be {what} such as {example}")
    if isinstance(value, int | float):
        number, unit = float(value), ""
    else:
        match = _NUMBER.match(str(value))
        if not match:
            raise ValueError(f"must be {what} such as {example}")
        number, unit = float(match[1].replace("_", "")), match[2] or ""
    if unit and unit not in units:
        raise ValueError(f"unknown unit {unit!r} for {what}; allowed: {', '.join(units)}")
    number *= units[unit] if unit else 1.0
    if not math.isfinite(number):
        raise ValueError(f"must be finite, such as {example}")
    return number


def parse_seconds(value: object) -> float:
    """Seconds from ``30``, ``"30s"``, ``"500ms"``, ``"2h"``. Raises ValueError."""
    return _parse(value, _TIME, "a time", "'30s' or '500ms'")


def parse_bytes(value: object) -> float:
    """Bytes from ``80e9``, ``"80GiB"``, ``"80GB"``. Raises ValueError."""
    return _parse(value, _BYTES, "a size", "'80GiB' or '40GB'")


def parse_rate(value: object) -> float:
    """Events per second from ``8``, ``"8/s"``, ``"480/min"``. Raises ValueError."""
    return _parse(value, _RATE, "a rate", "'8/s' or '480/min'")


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0, json_schema_extra={"type": ["number", "string"]})]
Bytes = Annotated[float, BeforeValidator(parse_bytes), Field(ge=0, json_schema_extra={"type": ["number", "string"]})]
Rate = Annotated[float, BeforeValidator(parse_rate), Field(gt=0, json_schema_extra={"type": ["number", "string"]})]


def significant(value: float | None, digits: int = 3) -> str:
    """``1234.5`` → ``1,234``, ``8.0`` → ``8.00``: so many significant digits and no digit of a whole number less, never an exponent."""
    if value is None or not math.isfinite(value):
        return "–"
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, places)}f}"


def show_number(value: float | None, digits: int = 3) -> str:
    """The same without zeros at its end, for sentences: ``8.0`` → ``8``."""
    text = significant(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def show_share(share: float) -> str:
    """``0.98996`` → ``98.99%``: a share that has to reach a bound is never rounded up to it."""
    return f"{math.floor(share * 1e4 + 1e-6) / 1e2:.2f}%"


def show_seconds(t: float) -> str:
    """``0.0123`` → ``12.3 ms``: three significant digits in the unit a person would use."""
    if not math.isfinite(t):
        return "–"
    unit, scale = unit_for(t)
    return f"{show_number(t / scale)} {unit}" if t else "0 s"


def unit_for(t: float) -> tuple[str, float]:
    """(unit, seconds of it) in which a person would say a time."""
    for unit, scale in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if abs(t) >= scale * (2 if scale >= 60 else 1):
            return unit, scale
    return "µs", 1e-6


def show_bytes(n: float) -> str:
    """``85899345920`` → ``80.00 GiB``."""
    for unit, scale in (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if abs(n) >= scale:
            return f"{n / scale:.2f} {unit}"
    return f"{n:.0f} B"
