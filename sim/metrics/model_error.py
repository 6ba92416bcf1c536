"""How far the model may be off: an interval for a predicted figure, learned from the accuracy record of deployments like this one.

The record (`profiles/accuracy.yaml`, rebuilt by ``servesim accuracy PATH… --record FILE``) holds the spread of measured / predicted of every
measured deployment and what kind of deployment it was. An interval comes from all of them, each with a weight that says how much it is like
the one in question: the same engine, version line, class of accelerator, kind of model, precision, measured kernels or those of another card.
Where nothing is like it, everything counts alike: the interval is wide, and says so. How wide it must be to hold `LEVEL` of what was not seen
is learned from deployments judged by other sources of measurements (`sim.metrics.conformal`). An accelerator of which there is no record takes
the errors of those that were simulated as if nobody had measured them (`UNMEASURED`), where the record has such.

The prediction lies in its interval, even where all that is alike was measured on one side of it: moving the figure itself would tear it from
the requests, steps and throughput that it follows from, and a band beside its own figure says less than one that begins there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from sim.ledger import Values as Array
from sim.metrics.conformal import LEVEL as LEVEL
from sim.metrics.conformal import ends
from sim.metrics.section import Section, keyed
from sim.resources import path, read_yaml

FEWEST_OWN: Final = 3
"""Measurements of one's own from which on they say how far predictions are off."""
OWN: Final = "your own measurements"
FEWEST: Final = 5
"""Deployments from which on a class is named."""
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_UNLIKE: Final[Mapping[str, float]] = {
    "engine": 0.1, "accelerator": 0.25, "line": 0.3, "kind": 0.4, "precision": 0.7, "kernels": 0.6, "load": 0.2,
}  # fmt: skip
"""Weight of a deployment that differs in one property; several multiply."""
_UNLIKE_ANYTHING: Final = 0.02
"""Least weight: all are predicted by one model."""
UNMEASURED: Final = "unmeasured"
"""Class of accelerators that were simulated as if nobody had ever measured them."""
METRICS: Final = {
    "ttft_s.mean": "ttft_s.mean",
    "ttft_s.p50": "ttft_s.mean",
    "ttft_s.p99": "ttft_s.p99",
    "tpot_s.mean": "tpot_s.mean",
    "tpot_s.p50": "tpot_s.mean",
    "tpot_s.p99": "tpot_s.mean",
    "e2e_s.mean": "e2e_s.mean",
    "e2e_s.p50": "e2e_s.mean",
    "output_tokens_per_s": "output_tokens_per_s",
}
"""Figure of a run → figure of the record whose errors it takes: statistics in the middle are as good as the mean."""


class Kind(NamedTuple):
    """What kind of deployment: ``line`` is that of the engine profile, ``accelerator`` its name, ``kind`` dense, experts or recurrent,
    ``precision`` the bits of a weight (16, 8, 4), ``kernels`` measured on this accelerator (``own``) or standing in (``other``), ``load``
    a ``burst`` of requests that all come at once, or ``steady``.
    """

    engine: str
    accelerator: str
    line: str = ""
    kind: str = "dense"
    precision: int = 16
    kernels: str = "own"
    load: str = "steady"

    def properties(self) -> dict[str, object]:
        """What is compared."""
        return self._asdict() | {"accelerator": family(self.accelerator)}


class Entry(NamedTuple):
    """Spread of one metric in one deployment: logarithms of measured / predicted at `_QUANTILES`; who measured it, where that is known."""

    kind: Kind
    metric: str
    logs: tuple[float, ...]
    source: str = ""


class Interval(NamedTuple):
    """Ends of measured / predicted, deployments of the class that is named, and the class in words."""

    low: float
    high: float
    deployments: int
    words: str


Row = tuple[Kind, str, str, float]
"""Kind, deployment, metric, measured / predicted."""


def family(accelerator: str) -> str:
    """``h100_sxm`` and ``h100-nvl`` → ``h100``, ``ascend-910b4`` → ``ascend-910b``: the class of an accelerator."""
    parts = accelerator.lower().replace("_", "-").split("-")
    if parts[0] in ("rtx", "apple", "ascend") and len(parts) > 1:
        return f"{parts[0]}-{parts[1].rstrip('0123456789') if parts[0] == 'ascend' else parts[1]}"
    return parts[0]


def spread(rows: Iterable[Row], sources: Mapping[str, str] = MappingProxyType({})) -> list[Entry]:
    """One entry per deployment and metric: a deployment counts once, however many points it has. ``sources``: deployment → who measured it."""
    found: dict[tuple[str, Kind, str], list[float]] = {}
    for kind, deployment, metric, ratio in rows:
        found.setdefault((deployment, kind, metric), []).append(ratio)
    return [
        Entry(
            kind, metric, tuple(round(float(x), 4) for x in np.quantile(np.log(ratios), _QUANTILES)), sources.get(deployment, "")
        )
        for (deployment, kind, metric), ratios in sorted(found.items())
    ]


def _likeness(some: Sequence[Kind], others: Sequence[Kind]) -> Array:
    """[some, others]: weight of one kind of deployment for another."""
    out = np.ones((len(some), len(others)))
    told = [[k.properties() for k in kinds] for kinds in (some, others)]
    for name, unlike in _UNLIKE.items():
        mine, theirs = (np.array([str(p[name]) for p in kinds]) for kinds in told)
        out[mine[:, None] != theirs[None, :]] *= unlike
    return np.maximum(out, _UNLIKE_ANYTHING)


def interval(entries: Iterable[Entry], kind: Kind, metric: str) -> Interval | None:
    """Where measured / predicted of ``metric`` lies, 1 included; None where the record has no such metric at all."""
    there = tuple(e for e in entries if e.metric == metric)
    measured = tuple(e for e in there if e.kind.accelerator != UNMEASURED)
    if family(kind.accelerator) not in {family(e.kind.accelerator) for e in measured}:
        left_out = tuple(e for e in there if e.kind.accelerator == UNMEASURED)
        if len(left_out) >= FEWEST:
            return _interval(left_out, kind._replace(accelerator=UNMEASURED, kernels="other"))
    return _interval(measured, kind) if measured else None


@lru_cache(256)
def _interval(there: tuple[Entry, ...], kind: Kind) -> Interval:
    kinds = [e.kind for e in there]
    sources = np.array([e.source or f"{i}" for i, e in enumerate(there)])
    apart = np.where(sources[:, None] == sources[None, :], 0.0, _likeness(kinds, kinds))
    low, high = ends(np.array([e.logs for e in there]), apart, _likeness([kind], kinds)[0])
    return Interval(float(np.exp(low)), float(np.exp(high)), *_named(there, kind))


def known(kind: Kind, metric: str, own: Mapping[str, Sequence[float]] | None = None) -> Interval | None:
    """Where measured / predicted of ``metric`` lies: by one's own measurements where they tell, else by the record.

    ``own``: metric → ends of measured / predicted and number of measurements, as a calibrated engine profile has them.
    """
    mine = (own or {}).get(metric)
    return Interval(mine[0], mine[1], int(mine[2]), OWN) if mine else interval(record(), kind, metric)


def whose(deployments: int, words: str, apart: str = " ({})") -> str:
    """``21 measured deployments (vllm on h100)``, ``12 points of your own measurements``; ``apart``: how the class is set off."""
    counted = f"{deployments:,} {'point' if words == OWN else 'measured deployment'}{'s' * (deployments != 1)}"
    return f"{counted} of {OWN}" if words == OWN else counted + apart.format(words)


def sentence(ends: str, deployments: int, words: str, level: float = LEVEL) -> str:
    """What the error of the model makes of an answer; begins with a space."""
    return f" Model error: {ends}, as {level:.0%} of {whose(deployments, words)} would have it."


def band(logs: Sequence[float]) -> tuple[float, float] | None:
    """Ends of measured / predicted where `LEVEL` of further measurements will lie, after measurements off by ``logs``; None: too few.

    The prediction interval of Student's t: with few measurements it is wide, whatever they say.
    """
    from scipy.special import stdtrit

    n = len(logs)
    if n < FEWEST_OWN:
        return None
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2.0)) * float(np.std(logs, ddof=1)) * (1.0 + 1.0 / n) ** 0.5
    return float(np.exp(np.mean(logs) - half)), float(np.exp(np.mean(logs) + half))


def inside_of_others(logs: Sequence[float]) -> float | None:
    """Share of measurements that lie in the band of all others; None where those are too few."""
    found = [(band([*logs[:i], *logs[i + 1 :]]), x) for i, x in enumerate(logs)]
    known = [(b, x) for b, x in found if b is not None]
    return float(np.mean([b[0] <= np.exp(x) <= b[1] for b, x in known])) if known else None


def _named(there: Sequence[Entry], kind: Kind) -> tuple[int, str]:
    """The narrowest class with enough deployments, for people."""
    here = family(kind.accelerator)
    same = [e.kind for e in there if e.kind.engine == kind.engine]
    if here == UNMEASURED:
        words, members = (kind.engine, len(same)) if len(same) >= FEWEST else ("all engines", len(there))
        return members, f"{words}, as if their accelerators had not been measured"
    for words, members in (
        (f"{kind.engine} on {here}", sum(family(k.accelerator) == here for k in same)),
        (kind.engine, len(same)),
    ):
        if members >= FEWEST:
            return members, words
    return len(there), "all engines"


def coverage(
    rows: Iterable[Row], sources: Mapping[str, str] = MappingProxyType({}), whole: bool = False
) -> dict[str, tuple[float, float, int]]:
    """Metric → (share of deployments' points inside the interval that all other deployments give, median half width, deployments).

    ``sources``: deployment → who measured it; ``whole``: all other sources give it.
    """
    rows = list(rows)
    inside: dict[str, dict[str, list[bool]]] = {}
    widths: dict[str, list[float]] = {}
    groups = {d: sources.get(d, d) if whole else d for d in dict.fromkeys(r[1] for r in rows)}
    entries = {d: spread([r for r in rows if r[1] == d], sources) for d in groups}
    for out in sorted(entries):
        others = [e for d, es in entries.items() if groups[d] != groups[out] for e in es]
        known: dict[tuple[Kind, str], Interval | None] = {}
        for kind, _, metric, ratio in (r for r in rows if r[1] == out):
            if (kind, metric) not in known:
                known[kind, metric] = interval(others, kind, metric)
            found = known[kind, metric]
            if found is not None:
                inside.setdefault(metric, {}).setdefault(out, []).append(found.low <= ratio <= found.high)
                widths.setdefault(metric, []).append((found.high - found.low) / 2.0)
    return {
        metric: (float(np.mean([np.mean(v) for v in by.values()])), float(np.median(widths[metric])), len(by))
        for metric, by in inside.items()
    }


@cache
def record() -> tuple[Entry, ...]:
    """The record that ships with the package; empty where there is none."""
    file = path("profiles", "accuracy.yaml")
    if not file.is_file():
        return ()
    found = read_yaml(file)["deployments"]
    return tuple(
        Entry(Kind(*(d[name] for name in Kind._fields)), metric, tuple(logs), d.get("source", ""))
        for d in found
        for metric, logs in d["spread"].items()
    )


def as_yaml(entries: Iterable[Entry], source: str, errors: Mapping[str, Mapping[str, Sequence[float]]] | None = None) -> str:
    """The file of a record. ``errors``: of groups of points, by figure, what documents tell of them."""
    rows: list[dict[str, Any]] = []
    for kind, metric, logs, measured_by in entries:
        row = kind._asdict() | {"accelerator": family(kind.accelerator)} | ({"source": measured_by} if measured_by else {})
        if not rows or {k: v for k, v in rows[-1].items() if k != "spread"} != row or metric in rows[-1]["spread"]:
            rows.append({**row, "spread": {}})
        rows[-1]["spread"][metric] = list(logs)
    head = (
        "# Spread of measured / predicted in every measured deployment, by what kind of deployment it was: logarithms at the quantiles\n"
        f"# {', '.join(f'{q:.0%}' for q in _QUANTILES)} of its operating points.\n"
        f"# {source}\n"
    )
    lines = (yaml.safe_dump(row, sort_keys=False, width=1000, default_flow_style=True) for row in rows)
    told = "".join(
        f"  {name}: {yaml.safe_dump(dict(row), width=1000, default_flow_style=True)}" for name, row in (errors or {}).items()
    )
    head += f"errors:  # absolute: median, 90th percentile, points\n{told}" if told else ""
    return head + "deployments:\n" + "".join(f"- {line}" for line in lines)


@dataclass(frozen=True)
class Spread(Section):
    """80 % of real deployments like this one lie between ``low`` and ``high``; of what class, and how many there are on record."""

    low: float
    high: float
    deployed: str = field(metadata=keyed("class"))
    deployments: int


def section(
    kind: Kind, latency: Mapping[str, Any], throughput: Mapping[str, Any], own: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Spread]:
    """``model_error`` of a summary, by figure; ``own``: see `known`."""
    out: dict[str, Spread] = {}
    for figure, metric in METRICS.items():
        name, _, statistic = figure.partition(".")
        value = latency[name][statistic] if statistic else throughput.get(name)
        found = known(kind, metric, own)
        if value is not None and found is not None:
            out[figure] = Spread(value * found.low, value * found.high, found.words, found.deployments)
    return out
