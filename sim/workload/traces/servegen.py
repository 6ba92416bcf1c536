"""ServeGen client pools: a folder of clients, each with its rate, burstiness and lengths by time of day, from which traffic is drawn."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.document import loads
from sim.errors import ConfigError, DataError
from sim.registry import register
from sim.streams import stream
from sim.tables import lines as table_lines
from sim.units import Seconds
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.textfile import read_all
from sim.workload.traces._base import Head, Trace

_WINDOW = 600.0
_LARGEST = 1 << 28
_MOST = 20_000_000


class ServeGenParams(Params):
    """Settings of a ServeGen pool."""

    start: Seconds = Field(default=0.0, ge=0, le=1e9, description="time of the pool at which the traffic begins")
    duration: Seconds = Field(default=3600.0, gt=0, le=1e8, description="how much of it is drawn")
    scale: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False, description="rates are multiplied by this")
    seed: int = Field(default=0, ge=0, description="seed of the draws")


@dataclass(frozen=True)
class _Client:
    number: int
    windows: list[tuple[float, float, float, str, float]]
    """(start s, rate, CV, pattern, shape)"""
    lengths: dict[float, tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]]


@register("trace")
class ServeGen(Trace):
    """A folder of ``chunk-N-trace.csv`` (window start s, rate, CV, pattern, two parameters; no header) and ``chunk-N-dataset.json``
    (``{"start": {"input_tokens": "{length: probability, …}", "output_tokens": …}}``). One chunk is one client.

    Arrivals of a client in a window are independent gaps of its pattern (Gamma, Weibull, exponential) with the window's mean; lengths are drawn
    from its table of that time. Prompt and output lengths are drawn apart, as ServeGen does.

    *Source*: alibaba/ServeGen.
    """

    name = "servegen"
    Params: ClassVar[type[Params]] = ServeGenParams
    params: ServeGenParams

    def fits(self, head: Head) -> bool:
        """A folder with its files."""
        if head.kind == "csv":
            return head.path.name.startswith("chunk-") and "-trace.csv" in head.path.name
        return head.kind == "folder" and any(head.path.glob("chunk-*-trace.csv"))

    def read(self, path: Path) -> RequestBlock:
        """The requests of the asked time."""
        files = sorted(path.glob("chunk-*-trace.csv")) if path.is_dir() else [path]
        if not files:
            raise DataError(str(path), "holds no chunk-*-trace.csv")
        parts, without = [], 0
        for file in files:
            client = _client(file)
            if client is None:
                without += 1
                continue
            parts.append(self._draw(client, path))
        if not parts:
            raise DataError(str(path), "has no chunk-N-dataset.json beside its chunk-N-trace.csv: lengths are not known")
        if without:
            self.note(f"{path.name}: {without} clients without chunk-N-dataset.json are left out")
        arrival, prompt, output, klass = (np.concatenate([p[k] for p in parts]) if parts else np.zeros(0) for k in range(4))
        if not arrival.size:
            raise DataError(str(path), f"no client sends anything in {self.params.duration:g} s from {self.params.start:g} s")
        order = np.argsort(arrival, kind="stable")
        self.note(
            f"{path.name}: drawn from {len(parts)} clients, {self.params.duration:g} s from {self.params.start:g} s, scale {self.params.scale:g}"
        )
        first = arrival[order[0]]
        return RequestBlock.of(arrival[order] - first, prompt[order], output[order], klass=klass[order].astype(np.int32))

    def _draw(self, client: _Client, path: Path) -> tuple[NDArray[np.float64], ...]:
        p = self.params
        rng = stream(p.seed, f"servegen.{client.number}")
        times, prompts, outputs = [], [], []
        for start, rate, cv, pattern, shape in client.windows:
            lo, hi = max(start, p.start), min(start + _WINDOW, p.start + p.duration)
            if hi <= lo or rate <= 0:
                continue
            rate *= p.scale
            if rate * (hi - lo) > _MOST:
                raise ConfigError("traffic.trace.settings.scale", p.scale, f"asks for more than {_MOST:,} requests in one window")
            at = _arrivals(rng, rate, cv, pattern, shape, hi - lo)
            table = client.lengths[max((t for t in client.lengths if t <= start), default=min(client.lengths))]
            times.append(lo - p.start + at)
            prompts.append(rng.choice(table[0], at.size, p=table[1]))
            outputs.append(rng.choice(table[2], at.size, p=table[3]))
        empty = np.zeros(0)
        joined = [np.concatenate(x) if x else empty for x in (times, prompts, outputs)]
        return (*joined, np.full(joined[0].size, client.number))


def _arrivals(rng: np.random.Generator, rate: float, cv: float, pattern: str, shape: float, span: float) -> NDArray[np.float64]:
    kind = pattern.lower()

    def gaps(n: int) -> NDArray[np.float64]:
        if kind.startswith("weibull") and shape > 0.05:
            return rng.weibull(shape, n) / math.gamma(1.0 + 1.0 / shape)
        if kind.startswith("expon") or cv <= 0:
            return rng.standard_exponential(n)
        k = shape if kind.startswith("gamma") and shape > 0 else 1.0 / cv**2
        return rng.standard_gamma(k, n) / k

    out, last, n = [], 0.0, max(16, int(rate * span * 1.2) + 8)
    while last < span:
        at = last + np.cumsum(gaps(n)) / rate
        out.append(at)
        last = float(at[-1])
    found = np.concatenate(out)
    return found[found < span]


def _client(file: Path) -> _Client | None:
    number = int("".join(c for c in file.name.removeprefix("chunk-").split("-")[0] if c.isdigit()) or 0)
    dataset = file.with_name(file.name.replace("-trace.csv", "-dataset.json"))
    if not dataset.is_file():
        return None
    windows = []
    for line, row in enumerate(table_lines(file, read_all(file, _LARGEST).decode()), 1):
        if not row:
            continue
        if len(row) < 4:
            raise DataError(
                str(file), f"line {line}: must have window start, rate, CV, pattern and parameters (got {len(row)} fields)"
            )
        values = [_float(file, line, i, row[i]) for i in (0, 1, 2)] + [_float(file, line, 4, row[4]) if len(row) > 4 else 0.0]
        windows.append((values[0], values[1], values[2], row[3].strip(), values[3]))
    return _Client(number, windows, _lengths(dataset))


def _float(file: Path, line: int, column: int, text: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not (0 <= value < 1e12):
        raise DataError(str(file), f"line {line}, field {column + 1}: must be a number of at least 0 (got {text!r})")
    return value


def _lengths(file: Path) -> dict[float, Any]:
    try:
        raw = loads(read_all(file, _LARGEST))
    except ValueError as error:
        raise DataError(str(file), f"is no readable JSON: {str(error)[:80]}") from None
    if not isinstance(raw, dict) or not raw:
        raise DataError(str(file), "must be an object of times")
    out = {}
    for start, tables in raw.items():
        try:
            at = float(start)
        except ValueError:
            raise DataError(str(file), f"key {start!r}: must be a time in s") from None
        if not isinstance(tables, dict):
            raise DataError(str(file), f"key {start!r}: must be an object")
        pair = [_table(file, f"{start}.{name}", tables.get(name)) for name in ("input_tokens", "output_tokens")]
        if all(p is not None for p in pair):
            out[at] = (*pair[0], *pair[1])  # type: ignore[misc]
    if not out:
        raise DataError(str(file), "has no table with input_tokens and output_tokens")
    return out


def _table(file: Path, name: str, value: Any) -> tuple[Any, Any] | None:
    """A table of probabilities by length; a dict within a string in the published files. None when it is empty."""
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
        if not found:
            return None
        lengths = np.array([int(float(k)) for k in found], np.int64)
        weights = np.array([float(v) for v in found.values()], np.float64)
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError, OverflowError) as error:
        raise DataError(str(file), f"key {name!r}: must be a table of probabilities by length ({str(error)[:60]})") from None
    keep = (lengths >= 1) & (weights > 0)
    if not np.isfinite(weights).all() or (weights < 0).any() or not keep.any():
        raise DataError(str(file), f"key {name!r}: must have probabilities of at least 0 for lengths of at least 1")
    return lengths[keep], weights[keep] / weights[keep].sum()
