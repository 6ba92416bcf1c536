"""Targets that a request must meet, and who met them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.config.slo import EACH, share_of
from sim.ledger import FINISHED
from sim.ledger import Values as Array
from sim.metrics.definitions import SLO_METRICS, definition
from sim.metrics.section import Section
from sim.units import show_seconds

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.metrics.facts import Facts
    from sim.metrics.record import RunRecord
    from sim.metrics.steady import Steady


@dataclass(frozen=True)
class Percentile:
    """``ttft: {p95: 2s}``: a share ``required`` (0.95) of all requests must have a ``target`` of at most ``limit`` seconds."""

    target: str
    name: str
    required: float
    limit: float


@dataclass(frozen=True)
class Slo:
    """Targets in seconds (None: no target) and the share of requests that must meet all of them; targets of percentiles besides.

    Where a metric has targets of percentiles alone, a request meets it within the highest one's limit; that is what goodput counts.
    """

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None
    attainment: float = 0.99
    percentiles: tuple[Percentile, ...] = ()
    each: frozenset[str] | None = None
    """Metrics whose target is one of every request; None: all that are set."""

    @classmethod
    def of(cls, source: Any, default: Slo | None = None) -> Slo:
        """From anything with these names, a mapping or an object (the scenario's ``slo`` section); None gives no targets.

        ``default``: its targets where ``source`` has none, its attainment where that is not given.
        """
        if source is None:
            return default or cls()
        default = default or cls()
        names = ("ttft", "tpot", "e2e", "attainment")
        found = {k: source.get(k) if isinstance(source, Mapping) else getattr(source, k, None) for k in names}
        share = found["attainment"]
        attainment = default.attainment if share is None else float(share)
        given = {k: v for k, v in found.items() if k != "attainment" and v is not None}
        if not given:
            return replace(default, attainment=attainment)
        limits: dict[str, float] = {}
        each, percentiles = set(), []
        for name, value in given.items():
            parts = dict(value) if isinstance(value, Mapping) else {EACH: float(value)}
            if EACH in parts:
                each.add(f"{name}_s")
                limits[name] = float(parts.pop(EACH))
            own = sorted((share_of(p), p, float(v)) for p, v in parts.items())
            percentiles += [Percentile(f"{name}_s", p, q, v) for q, p, v in own]
            if own:
                limits.setdefault(name, own[-1][2])
        return cls(**limits, attainment=attainment, percentiles=tuple(percentiles), each=frozenset(each))

    def targets(self) -> dict[str, float]:
        """``{"ttft_s": 1.0, …}``: the targets that are set, of every request."""
        values = zip(SLO_METRICS, (self.ttft, self.tpot, self.e2e), strict=True)
        return {key: v for key, v in values if v is not None}

    @property
    def required(self) -> float:
        """The share that the verdict on all requests is about; of percentiles alone the highest of them."""
        return self.attainment if self.strict() or not self.percentiles else max(p.required for p in self.percentiles)

    def strict(self) -> dict[str, float]:
        """Those of them that a share `attainment` of the requests must meet together."""
        return {k: v for k, v in self.targets().items() if self.each is None or k in self.each}


def met(columns: Mapping[str, Array], targets: Mapping[str, float]) -> dict[str, Array]:
    """b1[n] for every target and ``joint``. A request of one token meets any TPOT; one that did not finish meets nothing."""
    finished = columns["status"] == FINISHED
    out: dict[str, Array] = {}
    joint = finished.copy()
    for key, limit in targets.items():
        ok = columns[key] <= limit
        if key == "tpot_s":
            ok |= columns["output_tokens"] <= 1
        ok &= finished
        out[key] = ok
        joint &= ok
    out["joint"] = joint
    return out


def share(ok: Array, counted: Array) -> float | None:
    """Share of ``counted`` that are ``ok``; None when nobody counts."""
    n = int(np.count_nonzero(counted))
    return int(np.count_nonzero(ok & counted)) / n if n else None


@dataclass(frozen=True)
class Demand(Section):
    """One thing that is asked: of the requests of class ``klass`` (None: of all without targets of their own) a share ``required`` must be within it.

    ``target``: ``joint`` (all targets of every request) or the one metric whose ``percentile`` has the limit ``limit_s``.
    """

    klass: str | None
    target: str
    percentile: str | None
    limit_s: float | None
    required: float
    attainment: float | None
    met: bool | None


@dataclass(frozen=True)
class SloFigures(Section):
    """Targets, and how far they were met: ``attainment`` by target and ``joint``; ``met``: every one of the ``demands`` is.

    ``effective``: attainment against all demands at once, 1 − (1 − required) · (the most that any demand has of the misses it allows): the joint one
    where that is the only demand, below ``required`` exactly where one is missed. Goodput is that of `Steady`, without start and drain; over the whole
    run only where that is too short. Without targets ``required``, ``met`` and the goodput are None.
    """

    targets: Mapping[str, float]
    class_targets: Mapping[str, Mapping[str, float]]
    required: float | None
    attainment: Mapping[str, float | None]
    demands: tuple[Demand, ...]
    effective: float | None
    met: bool | None
    goodput_requests_per_s: float | None
    goodput_output_tokens_per_s: float | None
    unserved: float | None


def slo_figures(facts: Facts, inner: Steady) -> SloFigures:
    """``slo`` of a summary. ``inner``: rates without start and drain, where the run is long enough."""
    record, duration = facts.record, facts.duration
    demands = facts.demands
    wanted = bool(record.slo.targets() or record.class_slo)
    good = facts.ok & facts.finished
    timed = wanted and duration > 0
    served, ended = int(np.count_nonzero(facts.finished)), int(np.count_nonzero(facts.counted))
    required = record.slo.required if wanted else None
    judged = [d.met for d in demands if d.met is not None]
    goodput, tokens = inner.goodput_requests_per_s, inner.goodput_output_tokens_per_s
    if goodput is None and timed:  # too short to have anything but a start and a drain
        goodput = float(np.count_nonzero(good)) / duration
        tokens = float(facts.columns["output_tokens"][good].sum()) / duration
    return SloFigures(
        targets=record.slo.targets(),
        class_targets={record.class_name(k): s.targets() for k, s in sorted(record.class_slo.items())},
        required=required,
        attainment={k: share(v, facts.counted) for k, v in facts.verdicts.items()} if wanted else {},
        demands=demands,
        effective=None if required is None else _effective(demands, required),
        met=all(judged) if judged else None,
        goodput_requests_per_s=goodput,
        goodput_output_tokens_per_s=tokens,
        unserved=(ended - served) / ended if ended else None,
    )


def demands_of(record: RunRecord, columns: Mapping[str, Array], counted: Array) -> tuple[Demand, ...]:
    """What is asked of all requests, then of each class with targets of its own."""
    out: list[Demand] = []
    rest = counted
    if record.class_slo:
        rest = counted & ~np.isin(columns["klass"], list(record.class_slo))
    for klass, slo in ((None, record.slo), *sorted(record.class_slo.items())):
        rows = rest if klass is None else counted & (columns["klass"] == klass)
        name = None if klass is None else record.class_name(klass)
        if klass is None and record.class_slo and not rows.any():
            continue
        if slo.strict():
            found = share(met(columns, slo.strict())["joint"], rows)
            out.append(_demand(name, "joint", None, None, slo.attainment, found))
        for p in slo.percentiles:
            found = share(met(columns, {p.target: p.limit})["joint"], rows)
            out.append(_demand(name, p.target, p.name, p.limit, p.required, found))
    return tuple(out)


def _demand(
    klass: str | None, target: str, percentile: str | None, limit: float | None, required: float, found: float | None
) -> Demand:
    return Demand(klass, target, percentile, limit, required, found, None if found is None else found >= required)


def _effective(demands: Sequence[Demand], required: float) -> float | None:
    known = [d for d in demands if d.attainment is not None]
    if not known:
        return None
    if len(known) == 1 and known[0].required == required:
        return known[0].attainment
    allowed = max(1.0 - required, 1e-9)
    worst = max((1.0 - (d.attainment or 0.0)) / max(1.0 - d.required, 1e-9) for d in known)
    found = max(1.0 - allowed * worst, 0.0)
    return (
        found
        if (found >= required) == all(d.met for d in known)
        else required
        if all(d.met for d in known)
        else min(found, required - 1e-12)
    )


def asked(scenario: Scenario) -> bool:
    """Whether a scenario has any target, of all requests or of a class."""
    classes = getattr(scenario.traffic, "classes", None) or {}
    own = any(c.slo is not None and Slo.of(c.slo).targets() for c in classes.values())
    return own or bool(Slo.of(scenario.slo).targets())


def several(scenario: Scenario) -> bool:
    """Whether a scenario demands several things apart (percentiles, classes): one share of requests does not tell then how far they are met."""
    whole = Slo.of(scenario.slo)
    classes = getattr(scenario.traffic, "classes", None) or {}
    own = [Slo.of(c.slo, whole) for c in classes.values() if c.slo is not None]
    rest = [whole] if len(own) < len(classes) or not classes else []
    return sum(bool(s.strict()) + len(s.percentiles) for s in (*rest, *own)) > 1


def attained(share: str, apart: bool, whom: str = "it") -> str:
    """``99.12% of requests meet it``; of several demands ``its effective attainment is 99.12%`` (`SloFigures.effective`)."""
    its = "its" if whom == "it" else f"the {whom.removeprefix('the ')}'s"
    return f"{its} effective attainment is {share}" if apart else f"{share} of requests meet {whom}"


def loosest(scenario: Scenario) -> tuple[Slo, float]:
    """Targets that hold for every request, whatever its class, and the smallest share that must meet any of them: what no deployment may miss."""
    whole = Slo.of(scenario.slo)
    classes = getattr(scenario.traffic, "classes", None) or {}
    every = [Slo.of(c.slo, whole) for c in classes.values()] or [whole]

    def most(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return max(known) if len(known) == len(values) else None

    shares = [x for s in every for x in (*([s.attainment] if s.strict() else []), *(p.required for p in s.percentiles))]
    least = min(shares, default=whole.attainment)
    ttft, tpot, e2e = (most([getattr(s, name) for s in every]) for name in ("ttft", "tpot", "e2e"))
    return Slo(ttft, tpot, e2e, least), least


def demand_text(d: Demand) -> str:
    """``class code: 81.2% meet the SLO, 99% required``; ``TTFT p95 ≤ 2 s: met by 91%``."""
    who = "" if d.klass is None else f"class {d.klass}: "
    found = "none" if not d.attainment else f"{100 * d.attainment:.4g}%"
    if d.percentile is None:
        return f"{who}{found} of requests meet the SLO, {100 * d.required:.6g}% required"
    return (
        f"{who}{definition(d.target).title} {d.percentile} ≤ {show_seconds(d.limit_s or 0.0)} ({found} of requests are within it)"
    )
