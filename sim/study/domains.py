"""The values that a study gives to a setting: lists and ranges, written as people write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

from pydantic import JsonValue

from sim.config.text import parse
from sim.document import is_number
from sim.errors import ConfigError
from sim.units import parse_rate, parse_seconds

if TYPE_CHECKING:
    from sim.document import Json

_RANGE = re.compile(r"^\s*(\S+?)\s*\.\.\s*([^\s:]+?)\s*(?::\s*(\d+)\s*(log)?)?\s*$")
_KEYS = ("from", "to", "steps", "scale", "whole")


@dataclass(frozen=True)
class Domain:
    """Values of one setting: a list, or a range between two numbers (``scale`` linear or log, ``whole`` numbers only).

    ``unit`` is put behind each number of a range (``/s``). ``steps`` of a range: how many values a grid takes of it.
    """

    path: str
    values: tuple[JsonValue, ...] = ()
    low: float = 0.0
    high: float = 0.0
    steps: int | None = None
    log: bool = False
    whole: bool = False
    unit: str = ""

    def grid(self) -> tuple[Json, ...]:
        """The values of a grid. Raises `ConfigError` for a range without ``steps``."""
        if self.values:
            return self.values
        if self.steps is None:
            raise ConfigError(
                self.path,
                f"{self.low:g}..{self.high:g}",
                "is a range: a grid needs the number of values",
                f"{self.low:g}..{self.high:g}:5",
            )
        parts = self.steps - 1
        return tuple(dict.fromkeys(self.at(i / parts if parts else 0.0) for i in range(self.steps)))

    def at(self, share: float) -> Json:
        """The value at a place between 0 (low) and 1 (high); of a list, each value has an equal part of the way."""
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.log:
            value = float(self.low * (self.high / self.low) ** share)
        else:
            value = self.low + (self.high - self.low) * share
        shown = round(value) if self.whole else float(f"{value:.6g}")
        return f"{shown:g}{self.unit}" if self.unit else shown


def domains(given: Mapping[str, Json] | str | Iterable[str], option: str = "over") -> tuple[Domain, ...]:
    """From a mapping ``{path: [values] | {from, to, steps, scale, whole}}`` or texts ``path=a,b,c``, ``path=4/s..16/s:7``.

    Raises `ConfigError`.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif not isinstance(given, Iterable):
        raise ConfigError(option, given, "must be a mapping of settings to their values, or a list of PATH=VALUES")
    else:
        pairs = []
        for text in [given] if isinstance(given, str) else given:
            path, equals, value = str(text).partition("=")
            if not equals or not path.strip() or not value.strip():
                raise ConfigError(
                    option,
                    text,
                    "must be PATH=VALUES",
                    "such as deployment.tp=1,2,4 or traffic.synthetic.arrival.rate=4/s..16/s:7",
                )
            pairs.append((path.strip(), _text(value)))
    paths = [path for path, _ in pairs]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(option, path, "is given twice", "all values of a setting in one list")
    return tuple(_domain(path, value, option) for path, value in pairs)


def _text(value: str) -> Json:
    match = _RANGE.match(value)
    if match:
        return (
            {"from": match[1], "to": match[2]}
            | ({"steps": int(match[3])} if match[3] else {})
            | ({"scale": "log"} if match[4] else {})
        )
    listed: Json = parse(f"[{value}]", "--over")
    return listed


def _domain(path: str, value: Json, option: str) -> Domain:
    where = f"{option}.{path}"
    if isinstance(value, Mapping) and "from" in value:
        for key in value:
            if key not in _KEYS:
                raise ConfigError(where, key, "is no part of a range", ", ".join(_KEYS))
        return _range(path, value, where)
    if isinstance(value, str):
        value = _text(value)
        return _domain(path, value, option)
    if not isinstance(value, Sequence) or not value:
        raise ConfigError(where, value, "must be a list of values, or a range", "[1, 2, 4], or {from: 4/s, to: 16/s, steps: 7}")
    shown = [plain(v) for v in value]
    for i, (one, text) in enumerate(zip(value, shown, strict=True)):
        if text in shown[:i]:
            raise ConfigError(where, one, "is in the list twice: it would run twice", ", ".join(dict.fromkeys(shown)))
    return Domain(path, tuple(cast("Sequence[JsonValue]", value)))


def plain(value: object) -> str:
    """A value as a scenario spells it: ``true``, ``null``, text without quotes."""
    if value is None or isinstance(value, bool | Mapping | list | tuple):
        return json.dumps(value, default=str)
    return str(value)


def _range(path: str, value: Mapping[str, Json], where: str) -> Domain:
    low, unit = _number(value["from"], f"{where}.from")
    high, other = _number(value.get("to"), f"{where}.to")
    if unit != other:
        raise ConfigError(where, f"{value['from']}..{value['to']}", "has two units")
    if not low < high:
        raise ConfigError(where, f"{value['from']}..{value['to']}", "must rise from low to high")
    scale, steps = value.get("scale", "linear"), value.get("steps")
    if scale not in ("linear", "log"):
        raise ConfigError(f"{where}.scale", scale, "is not one of the choices", "linear, log")
    if scale == "log" and low <= 0:
        raise ConfigError(f"{where}.from", value["from"], "must be above 0 on a logarithmic scale")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 2):
        raise ConfigError(f"{where}.steps", steps, "must be a whole number of at least 2")
    whole = value.get("whole", not unit and low == int(low) and high == int(high) and "." not in f"{value['from']}{value['to']}")
    return Domain(path, (), low, high, steps, scale == "log", bool(whole), unit)


def _number(value: Json, where: str) -> tuple[float, str]:
    """A number and its unit."""
    if is_number(value):
        return float(value), ""
    match = re.match(r"^\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(\S*)\s*$", str(value))
    try:
        if match and match[2]:
            (parse_rate if match[2].startswith("/") else parse_seconds)(value)
        return float(match[1] if match else str(value)), match[2] if match else ""
    except (TypeError, ValueError):
        raise ConfigError(where, value, "must be a number, with a unit where the setting has one") from None


def grid(given: Sequence[Domain]) -> list[dict[str, Json]]:
    """Every combination, the last setting changing fastest."""
    return [dict(zip((d.path for d in given), values, strict=True)) for values in product(*(d.grid() for d in given))]


def sample(given: Sequence[Domain], method: str, n: int, seed: int) -> list[dict[str, Json]]:
    """``n`` points spread over the ranges: ``latin-hypercube``, ``sobol`` (n is best a power of two) or ``random``; by scipy.stats.qmc."""
    import numpy as np
    from scipy.stats import qmc

    from sim.streams import stream

    rng = np.random.default_rng(int(stream(seed, "sweep").integers(2**62)))  # one that scipy can spawn from
    if method == "sobol":
        import warnings

        with warnings.catch_warnings():  # of n that are no power of two: balance is lost, nothing else
            warnings.simplefilter("ignore", UserWarning)
            points = qmc.Sobol(len(given), rng=rng).random(n)
    elif method == "latin-hypercube":
        points = qmc.LatinHypercube(len(given), rng=rng).random(n)
    else:
        points = rng.random((n, len(given)))
    return [{d.path: d.at(float(x)) for d, x in zip(given, row, strict=True)} for row in points]
