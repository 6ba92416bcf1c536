"""What a traffic file is like: counts, rates, burstiness, lengths, sessions, sharing; and a synthetic section that resembles it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.workload.sharing import Sharing
from sim.workload.table import RequestBlock
from sim.workload.traces._auto import reader

if TYPE_CHECKING:
    from sim.document import Json

PERCENTILES = (1, 10, 25, 50, 75, 90, 95, 99)
_LONGEST = 1 << 22
_SAMPLE = 200_000
_BINS = 24
_QUANTILES = (0.0, 0.01, 0.05, *(round(0.1 * i, 1) for i in range(1, 10)), 0.95, 0.99, 0.999, 1.0)


@dataclass
class _Lengths:
    """Counts by length, exact up to some four million tokens."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    total: int = 0
    largest: int = 0

    def add(self, tokens: NDArray[np.int32]) -> None:
        found = np.bincount(np.minimum(tokens, _LONGEST))
        if found.size > self.counts.size:
            found[: self.counts.size] += self.counts
            self.counts = found.astype(np.int64)
        else:
            self.counts[: found.size] += found
        self.total += int(tokens.astype(np.int64).sum())
        self.largest = max(self.largest, int(tokens.max()))

    def as_dict(self) -> dict[str, Json]:
        below = np.cumsum(self.counts)
        n = int(below[-1])
        at = {f"p{p}": int(np.searchsorted(below, p / 100 * n)) for p in PERCENTILES}
        least = int(np.flatnonzero(self.counts)[0])
        return {"mean": self.total / n, "min": least, **at, "max": self.largest, "total": self.total}


@dataclass(frozen=True)
class Description:
    """A traffic file in figures. ``data``: plain data for a file; ``notes``: what the reader said."""

    name: str
    format: str
    data: dict[str, Any]
    notes: tuple[str, ...]
    synthetic: dict[str, Any]

    def as_dict(self) -> dict[str, Json]:
        """For JSON."""
        return {"file": self.name, "format": self.format, **self.data, "notes": list(self.notes), "synthetic": self.synthetic}


def describe(path: str | Path, form: str = "auto", settings: dict[str, Any] | None = None) -> Description:
    """Read a traffic file once, in pieces, and describe it. Raises `DataError`, `ConfigError`."""
    path = Path(path)
    made = reader(path, form, settings, "settings")
    found = _Found()
    for block in made.pieces(path):
        if len(block):
            found.add(block)
    timed = made.timed
    data, synthetic = found.figures(timed)
    return Description(path.name, made.name, data, tuple(made.notes), synthetic)


@dataclass
class _Found:
    requests: int = 0
    prompt: _Lengths = field(default_factory=_Lengths)
    output: _Lengths = field(default_factory=_Lengths)
    sharing: Sharing = field(default_factory=Sharing)
    seconds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    first: float = 0.0
    last: float = 0.0
    gaps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turns: dict[int, int] = field(default_factory=dict)
    adapters: int = 0
    priorities: set[int] = field(default_factory=set)
    sample: list[NDArray[np.int32]] = field(default_factory=list)
    stride: int = 1

    def add(self, block: RequestBlock) -> None:
        at = block.arrival_s
        if self.requests == 0:
            self.first = self.last = float(at[0])
        gaps = np.diff(at, prepend=self.last)[0 if self.requests else 1 :]
        n, total, squares = self.gaps
        self.gaps = n + gaps.size, total + float(gaps.sum()), squares + float((gaps**2).sum())
        self.last = float(at[-1])
        if self.last - self.first < 1e8:
            counts = np.bincount((at - self.first).astype(np.int64))
            if counts.size > self.seconds.size:
                self.seconds = np.pad(self.seconds, (0, counts.size - self.seconds.size))
            self.seconds[: counts.size] += counts
        self.prompt.add(block.prompt_tokens)
        self.output.add(block.output_tokens)
        if len(block.span_id):
            self.sharing.add(block)
        for session, count in zip(*np.unique(block.session[block.session >= 0], return_counts=True), strict=True):
            self.turns[int(session)] = self.turns.get(int(session), 0) + int(count)
        self.adapters = max(self.adapters, int(block.lora.max()))
        self.priorities |= set(np.unique(block.priority)[:100].tolist())
        self.requests += len(block)
        self.sample.append(np.column_stack([block.prompt_tokens, block.output_tokens])[:: self.stride])
        if sum(len(s) for s in self.sample) > 2 * _SAMPLE:
            self.sample, self.stride = [np.concatenate(self.sample)[::2]], self.stride * 2

    def figures(self, timed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        data: dict[str, Any] = {"requests": self.requests}
        span = self.last - self.first
        if timed and span > 0:
            data |= {"span_s": span, **self._rates(span)}
        data |= {"prompt_tokens": self.prompt.as_dict(), "output_tokens": self.output.as_dict()}
        if self.turns:
            counts = np.array(list(self.turns.values()))
            data["sessions"] = {"count": len(counts), "turns_mean": float(counts.mean()), "turns_max": int(counts.max())}
        if self.adapters:
            data["adapters"] = self.adapters
        if len(self.priorities) > 1:
            data["priorities"] = sorted(self.priorities)[:10]
        rates = self.sharing.hit_rates()
        if rates:
            data["sharing"] = {"best_hit_rate": rates[-1][1], "by_cache_tokens": rates, "whole": self.sharing.whole}
        return data, self._synthetic(timed, span)

    def _rates(self, span: float) -> dict[str, Any]:
        n, total, squares = self.gaps
        mean = total / n if n else 0.0
        variance = max(squares / n - mean**2, 0.0) if n else 0.0
        seconds = self.seconds
        minutes = np.add.reduceat(seconds, np.arange(0, seconds.size, 60)) / 60.0
        edges = np.linspace(0, seconds.size, min(_BINS, seconds.size) + 1).astype(int)
        over_time = [float(seconds[a:b].sum() / (b - a)) for a, b in pairwise(edges) if b > a]
        return {
            "rate_per_s": n / span, "peak_minute_per_s": float(minutes.max()) if seconds.size >= 60 else None, "peak_second": int(seconds.max()),
            "cv": float(np.sqrt(variance) / mean) if mean > 0 else None,
            "dispersion_1s": float(seconds.var() / seconds.mean()) if seconds.mean() > 0 else None, "rate_over_time": over_time,
        }  # fmt: skip

    def _synthetic(self, timed: bool, span: float) -> dict[str, Any]:
        """A ``traffic.synthetic`` section: the rate as it changes or bursts, and quantile tables of the lengths."""
        from scipy.stats import spearmanr

        pairs = np.concatenate(self.sample)[: 2 * _SAMPLE]
        rank = 0.0
        if len(pairs) > 2 and (pairs.min(axis=0) < pairs.max(axis=0)).all():
            rank = round(float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic), 3)
        tables = {
            name: [int(x) for x in np.quantile(pairs[:, k], _QUANTILES, method="inverted_cdf")]
            for k, name in enumerate(("prompt_tokens", "output_tokens"))
        }
        quantiles = {"p": list(_QUANTILES), **tables, "rank_correlation": rank}
        section: dict[str, Any] = {"arrival": self._arrival(timed, span)}
        section["lengths"] = {"kind": "empirical", "quantiles": quantiles}
        if section["arrival"]["process"] != "stages":
            section["requests"] = self.requests
        return section

    def _arrival(self, timed: bool, span: float) -> dict[str, Any]:
        if not timed or span <= 0:
            return {"process": "burst"}
        r = self._rates(span)
        over = np.array(r["rate_over_time"])
        if over.size >= 8 and over.mean() > 0 and over.std() / over.mean() > 0.3 and span > 60:
            width = span / over.size
            return {"process": "stages", "stages": [{"rate": round(float(x), 4), "duration": round(width, 3)} for x in over]}
        cv = r["cv"] or 0.0
        rate = float(f"{r['rate_per_s']:.5g}")
        if cv < 0.05:
            return {"process": "constant", "rate": rate}
        if abs(cv - 1.0) < 0.08:
            return {"process": "poisson", "rate": rate}
        return {"process": "gamma", "rate": rate, "cv": round(float(np.clip(cv, 0.001, 1000)), 3)}


def describe_all(paths: Iterable[str | Path], form: str = "auto", settings: dict[str, Any] | None = None) -> list[Description]:
    """Descriptions of several files."""
    return [describe(p, form, settings) for p in paths]
