"""Numbers and sentences as every view prints them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from sim.metrics.definitions import LATENCIES, SLO_METRICS, definition
from sim.metrics.model_error import LEVEL, whose
from sim.metrics.section import Extra
from sim.units import show_number, show_seconds, show_share, significant, unit_for

if TYPE_CHECKING:
    from sim.metrics.latency import Distribution
    from sim.metrics.load import Load
    from sim.metrics.sections.kv_pools import KvPools
    from sim.metrics.slo import Demand, SloFigures
    from sim.metrics.summary import Summary
    from sim.study.figures import Figures
    from sim.study.statistics.worth import Worth

E = TypeVar("E", bound=Extra)

DASH: Final = "–"
_POOL: Final = re.compile(r" \((.+)\)$")
_FEW: Final = 4  # demands that a sentence names
_MANY: Final = 0.03  # of the requests of a bad stretch: a queue that is worth a word
_NEVER_IDLE: Final = 0.9  # of the time
_PEAK: Final = 1.3  # times the mean: a peak of the load, not its scatter
STAR: Final = "*"
"""Behind a percentile that nothing bounds from above."""
PERCENTILE_TITLES: Final = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}

number: Final = significant

STAGES: Final = {
    "prefill_queue": "P queue",
    "prefill": "prefill",
    "decode_queue": "D queue",
    "transfer": "KV transfer",
    "decode": "decode",
}
"""Stages of a request in a disaggregated deployment (`sim.metrics.hand_over`)."""


def extra(summary: Summary, section: type[E]) -> E | None:
    """A section beside the summary's own; None where it has nothing to say."""
    found = summary.extras.get(section.name)
    return found if isinstance(found, section) else None


def pools(section: KvPools) -> str:
    """Pools within the replicas, or what shares one, how full they were."""
    return "; ".join(f"{p.name} {percent(p.mean, 0)}, peak {percent(p.peak, 0)}" for p in section.pools)


def percent(value: float | None, places: int = 1) -> str:
    """``0.1234`` → ``12.3%``; never rounds up to 100% what is below it."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{100 * value:.{places}f}"
    if value < 1 and float(text) >= 100:
        text = f"{100 - 10.0**-places:.{places}f}"
    return f"{text}%"


def seconds(value: float | None) -> str:
    """A time in the unit that a person would use."""
    return show_seconds(value) if value is not None else DASH


class Ends(Protocol):
    """Of an interval, in seconds."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


def between(ends: Ends, unit: tuple[str, float] | None = None) -> str:
    """``300 to 900 ms``, rounded outwards: what lies at an end is seen to lie inside. ``unit``: as of `unit_of`; without, as in `course`."""
    first, last = _units(ends.low, ends.high, unit)
    return _from_to(_rounded(ends.low / first[1], math.floor), first[0], _rounded(ends.high / last[1], math.ceil), last[0])


def course(start: float, end: float) -> str:
    """``1.67 to 2.27 min``; ``30 ms to 2 min``, where one unit does not suit both."""
    first, last = _units(start, end)
    return _from_to(start / first[1], first[0], end / last[1], last[0])


def _units(low: float, high: float, unit: tuple[str, float] | None = None) -> tuple[tuple[str, float], tuple[str, float]]:
    """(name, seconds) of the unit of either end: that of the higher one, unless the lower is less than a tenth of it."""
    last = unit or unit_for(high)
    return (unit_for(low) if unit is None and 0 < low < last[1] / 10 else last), last


def _from_to(low: float, first: str, high: float, last: str) -> str:
    return f"{show_number(low)}{'' if first == last else f' {first}'} to {show_number(high)} {last}"


def _rounded(value: float, to: Callable[[float], float]) -> float:
    """To three digits."""
    if not (value > 0.0 and math.isfinite(value)):
        return value
    places = 2 - math.floor(math.log10(value))
    return to(round(value * 10.0**places, 6)) / 10.0**places


def in_row(value: float, unit: tuple[str, float]) -> str:
    """A time in the unit of its row of the table."""
    return f"{show_number(value / unit[1])} {unit[0]}"


def unit_of(stats: Distribution) -> tuple[str, float]:
    """(unit, seconds per unit) in which one row of statistics is printed: ms, or s where its median is a second or more, or its p99 ten."""
    middle, high = stats.p50, stats.p99
    return ("s", 1.0) if (middle is not None and middle >= 1.0) or (high is not None and high >= 10.0) else ("ms", 1e-3)


def required(value: float) -> str:
    """``0.99`` → ``99%``."""
    return f"{100 * value:.6g}%"


def in_unit(value: float | None, scale: float, places: int) -> str:
    """A cell of such a row; all cells of a row have the same decimals, but nothing at all is 0."""
    if value == 0:
        return "0"
    return f"{value / scale:,.{places}f}" if value is not None and math.isfinite(value) else DASH


def latency_rows(summary: Summary, sure: Worth | None = None) -> list[dict[str, str]]:
    """One row per latency metric: ``title, unit, mean … p999, slo, met``, all text.

    ``sure``: the intervals of one run (`sim.study.statistics.worth`); a percentile that too few requests bound has a star.
    """
    slo = summary.slo
    intervals = {} if sure is None else sure.shown()
    rows = []
    for key in LATENCIES:
        stats: Distribution = summary.latency[key]
        unit, scale = unit_of(stats)
        row = {"key": key, "title": definition(key).title, "unit": unit}
        places = 1 if (stats.p99 or 0.0) / scale >= 100 else 2
        row |= {p: in_unit(stats[p], scale, places) for p in PERCENTILE_TITLES}
        for p in PERCENTILE_TITLES:
            interval = intervals.get(f"latency.{key}.{p}")
            if interval is not None and not math.isfinite(interval.high) and row[p] != DASH:
                row[p] += STAR
        target = slo.targets.get(key)
        row["slo"] = f"≤ {seconds(target)}" if target is not None else ""
        row["met"] = met_cell(slo.attainment.get(key)) if target is not None else ""
        rows.append(row)
    return rows


def targets(slo: SloFigures) -> str:
    """``TTFT ≤ 1 s and TPOT ≤ 50 ms``; empty without targets."""
    found = slo.targets
    texts = [f"{definition(k).title} ≤ {seconds(found[k])}" for k in SLO_METRICS if k in found]
    if slo.class_targets:
        texts.append("the targets of each class")
    return join(texts)


def join(texts: Iterable[str]) -> str:
    """``a, b and c``."""
    texts = list(texts)
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def verdict(summary: Summary) -> tuple[str, str]:
    """(``holds`` | ``misses`` | ``none``, the headline sentence)."""
    slo, required_share = summary.slo, summary.slo.required
    if slo.met is None or required_share is None:
        if not summary.requests.finished:
            return "none", "No request finished."
        ttft, tpot = summary.latency.ttft, summary.latency.tpot
        rate = number(rates(summary).requests_per_s)
        return (
            "none",
            f"Median TTFT {seconds(ttft.p50)}, median TPOT {seconds(tpot.p50)} at {rate} requests/s. No SLO was set.",
        )
    if len(slo.demands) > 1 or any(d.percentile for d in slo.demands):
        return _several(slo.demands)
    joint = slo.attainment["joint"]
    need = f"{targets(slo)} ({required(required_share)} required)."
    if not joint:
        return "misses", f"Misses its SLO: no request meets {need}"
    text = f"of requests meet {need}"
    if slo.met:
        return "holds", f"Holds its SLO: {met_share(joint)} {text}"
    single = {k: v for k, v in slo.attainment.items() if k != "joint" and v is not None}
    lost = summary.requests.rejected + summary.requests.failed
    if lost and all(v == joint for v in single.values()):  # whoever is served is served in time
        return "misses", f"Misses its SLO: only {met_share(joint)} {text} {lost:,} got no answer."
    worst = min(single, key=lambda k: single[k]) if len(single) > 1 else None
    more = f" {definition(worst).title} is missed most: {met_share(single[worst])} meet it." if worst else ""
    return "misses", f"Misses its SLO: only {met_share(joint)} {text}{more}"


def _several(demands: Sequence[Demand]) -> tuple[str, str]:
    """The verdict where more than one thing is asked: of classes, of percentiles."""
    missed = [d for d in demands if d.met is False]
    if not missed:
        asked = join(_demand(d) for d in demands) if len(demands) <= _FEW else f"all {len(demands)} demands are met"
        return "holds", f"Holds its SLO: {asked}."
    shown = [_demand(d) for d in sorted(missed, key=lambda d: d.attainment or 0.0)]
    if len(shown) > _FEW:
        shown = [*shown[:_FEW], f"{len(shown) - _FEW} more demands are missed"]
    kept = len(demands) - len(missed)
    rest = f" {kept} of {len(demands)} demands {'is' if kept == 1 else 'are'} met." if kept else ""
    return "misses", f"Misses its SLO: {'; '.join(shown)}.{rest}"


def _demand(d: Demand) -> str:
    who = "" if d.klass is None else f"class {d.klass}, "
    found = met_share(d.attainment)
    if d.percentile is None:
        return f"{who}{found} of requests meet their targets ({required(d.required)} required)"
    limit = f"{definition(d.target).title} {d.percentile} ≤ {seconds(d.limit_s)}"
    return f"{who}{limit} (within it: {found}, {required(d.required)} required)"


def met_share(value: float | None) -> str:
    """``97.40%`` of requests that meet something; ``none`` and ``less than 0.01%`` where a rounded zero would say less."""
    if value == 0:
        return "none"
    return "less than 0.01%" if value is not None and value < 5e-5 else met_cell(value)


def met_cell(value: float | None) -> str:
    """The same in a table, where nothing is ``0.00%``."""
    return DASH if value is None or not math.isfinite(value) else show_share(value)


def spell(summary: Summary) -> str:
    """When it was bad and for how long; empty where the whole run was, or nothing."""
    s = summary.spell
    if s is None:
        return ""
    span = f"from {course(s.start_s, s.end_s)} ({seconds(s.end_s - s.start_s)})"
    head = f"Bad {span}"
    if s.stretches > 1:
        head = f"Bad in {s.stretches} stretches, {seconds(s.bad_s)} together; worst {span}"
    text = f"{head}: {met_share(s.met)} of the {s.requests:,} requests that came then met the SLO, {met_share(s.met_outside)} of all others"
    text += f"; up to {s.waiting_peak:,} waited." if s.waiting_peak > _MANY * s.requests else "."
    if not s.recovered:
        return f"{text} It was still bad when the last request came."
    if s.recovery_s is None:
        return text
    if s.recovery_s <= s.width_s:
        return f"{text} It was good again as soon as the load had fallen."
    return f"{text} It took {seconds(s.recovery_s)} from the fall of the load to recover."


def load(summary: Summary) -> str:
    """The load as a share of what could be served; empty where that is not known."""
    found = summary.load
    if found is None:
        return ""
    text = f"{found.share:.0%} of the {number(found.could_serve_requests_per_s)} requests/s that could be served, whatever the latency"
    text += f" ({number(found.offered_requests_per_s)} offered)"
    return f"{text}; at its peak {found.peak_share:.0%}" if has_peak(found) else text


def has_peak(load: Load) -> bool:
    """Whether the load had a peak, and not only its scatter."""
    return load.peak_share > _PEAK * load.share


_ERRORS: Final = {"ttft_s.p50": "TTFT p50", "ttft_s.p99": "TTFT p99", "tpot_s.p50": "TPOT p50", "e2e_s.p50": "E2E p50"}


def model_error(summary: Summary) -> str:
    """Intervals in which 4 of 5 real deployments like this one would be; empty where there is no record."""
    found = summary.model_error or {}
    units = {key: unit_of(summary.latency[key]) for key in ("ttft_s", "tpot_s", "e2e_s")}  # those of the table
    shown = [f"{title} {between(r, units[key.partition('.')[0]])}" for key, title in _ERRORS.items() if (r := found.get(key))]
    if not shown:
        return ""
    rate = found.get("output_tokens_per_s")
    whole, printed = summary.throughput.output_tokens_per_s, rates(summary).output_tokens_per_s
    if rate is not None and whole and printed and _decides_itself(summary):
        low, high = (end * printed / whole for end in (rate.low, rate.high))  # about the rate that is printed, without the drain
        shown.append(f"output tokens/s {number(_rounded(low, math.floor))} to {number(_rounded(high, math.ceil))}")
    row = found[next(k for k in _ERRORS if k in found)]
    return f"{', '.join(shown)} ({LEVEL:.0%} of {whose(row.deployments, row.deployed, ': {}')})"


def _decides_itself(summary: Summary) -> bool:
    """Whether the engines decide how many tokens come out, and not the clients: as much arrives as can be served, or nothing is ever idle."""
    if summary.load is not None:
        return summary.load.share >= 1.0
    busy = summary.utilisation.busy
    return busy is not None and busy > _NEVER_IDLE


class Rates(NamedTuple):
    """Rates to print; None: not known, or no SLO."""

    requests_per_s: float | None
    output_tokens_per_s: float | None
    total_tokens_per_s: float | None
    goodput_requests_per_s: float | None
    goodput_output_tokens_per_s: float | None


def rates(summary: Summary | Figures) -> Rates:
    """Without start and drain where the run is long enough, else over the whole run."""
    inner, whole, slo = summary.steady, summary.throughput, summary.slo
    if inner.requests_per_s is not None:
        good = (inner.goodput_requests_per_s, inner.goodput_output_tokens_per_s)
        return Rates(inner.requests_per_s, inner.output_tokens_per_s, inner.total_tokens_per_s, *good)
    good = (slo.goodput_requests_per_s, slo.goodput_output_tokens_per_s)
    return Rates(whole.requests_per_s, whole.output_tokens_per_s, whole.total_tokens_per_s, *good)


def counted(n: int, what: str) -> str:
    """``1 replica``, ``2 replicas``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def subtitle(summary: Summary) -> str:
    """What was simulated, on one line: the facts of the context, and how many requests in how much time."""
    context = summary.context
    facts = _facts({k: str(v) for k, v in context.items() if k not in ("replicas", "accelerators") and v not in (None, "")})
    count = context.get("accelerators", 1)
    if context.get("replicas", 1) > 1 and "deployment" not in context:
        facts.append(f"{counted(context['replicas'], 'replica')}, {counted(count, 'accelerator')}")
    facts.append(f"{counted(summary.requests.injected, 'request')} in {seconds(summary.duration_s)}")
    return " · ".join(facts)


def _facts(context: Mapping[str, str]) -> list[str]:
    """The facts in their order; those of pools, ``deployment (NAME)``, behind the pool's name, and once where pools are alike."""
    whole, pools = [], dict[str, list[str]]()
    for key, value in context.items():
        pool = _POOL.search(key)
        if pool is None:
            whole.append((key, value))
        else:
            pools.setdefault(pool[1], []).append(value)
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, facts in pools.items():
        alike.setdefault(tuple(facts), []).append(name)
    told = [f"{', '.join(names)}{' each' if len(names) > 1 else ''}: {' · '.join(facts)}" for facts, names in alike.items()]
    at = next((i for i, (key, _) in enumerate(whole) if key != "model"), len(whole))
    values = [value for _, value in whole]
    return [*values[:at], *told, *values[at:]]


def evidence_line(summary: Summary) -> str:
    """``62% measured, 30% fitted, 8% estimated of the step time``; counts of figures where shares are unknown."""
    order = ("measured", "fitted", "datasheet", "estimated")
    shares = summary.evidence_shares
    if shares:
        return ", ".join(f"{shares[g]:.0%} {g}" for g in order if shares.get(g, 0.0) >= 0.005) + " of the step time"
    grades = [str(row.get("grade", "unknown")) for row in summary.evidence]
    return ", ".join(f"{grades.count(g)} {g}" for g in (*order, "unknown") if g in grades)
