"""What a run leaves behind: raw arrays from the recorder, before any statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np

from sim.ledger import PARTS, SERIES, Series, by_name, series_of
from sim.ledger import Values as Array
from sim.metrics.slo import Slo

if TYPE_CHECKING:
    from sim.document import Json, Table
    from sim.metrics.scaling import Scaling


@dataclass
class RunRecord:
    """Raw arrays of one run.

    ``requests``: columns `sim.ledger.REQUEST_COLUMNS`, any order of rows; times in seconds, NaN where it did not happen; status 0 finished,
    1 rejected, 2 failed, 3 in flight; ``klass``, ``cached_tokens`` and ``taken_s`` may be absent; `sim.ledger.HAND_OVER_COLUMNS` in disaggregated deployments.
    ``series``: `sim.ledger.SERIES`, each f8[replica, bin], integrals over the bin (``running`` … ``kv_full`` × seconds), and ``width_s``;
    empty when the scenario switched it off. ``kv_total``: f8[replica], the unit of ``kv_used``; ``kv_peak``: f8[replica], the most in
    use at once (None: taken from the series).
    ``itl_hist``: see `histogram`. ``parts``: f8[replica, part] seconds, columns `part_names`.
    ``totals``: ``steps, preemptions, last_s, itl_sum_s, itl_count, itl_max_s`` and optionally ``injected``.
    ``evidence``: rows ``{"name": …, "part": …, "grade": …, "source": …, "share": …}``, share of the time of that part.
    ``context``: facts for the head of a report (``model``,
    ``accelerator``, ``engine``, ``deployment``, ``traffic`` …) in the order in which they are printed.
    ``scaling``: what an autoscaler did, and ``alive_s``: f8[replica], seconds in which each replica existed (None: all the time).
    ``replicas``: engines, where rows by replica are data-parallel ranks; None: as many as rows.
    ``class_slo``: targets of classes that have their own, by number; ``tenant_names``: of tenants 1, 2, …
    ``stations``: what the stations of the fleet left for sections of the summary (`sim.metrics.sections`), by name of the section.
    ``complete``: False when the run was interrupted. ``token_times``: of each pool ids and times of the chunks of tokens that requests got, by the
    engines' clocks; empty unless the scenario asked for them.
    """

    requests: Mapping[str, Array]
    totals: Mapping[str, float]
    itl_hist: Array
    parts: Array
    series: Series = field(default_factory=Series)
    kv_total: Array | None = None
    kv_peak: Array | None = None
    part_names: Sequence[str] = PARTS
    name: str = ""
    seed: int = 0
    slo: Slo = field(default_factory=Slo)
    class_slo: Mapping[int, Slo] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    tenant_names: Sequence[str] = ()
    replica_names: Sequence[str] = ()
    accelerators: float = 1
    replicas: int | None = None
    context: Table = field(default_factory=dict)
    scenario: str = ""
    evidence: Sequence[Mapping[str, Json]] = ()
    warnings: Sequence[str] = ()
    complete: bool = True
    scaling: Scaling | None = None
    alive_s: Array | None = None
    stations: Mapping[str, object] = field(default_factory=dict)
    token_times: Sequence[tuple[Array, Array]] = ()

    def class_name(self, k: int) -> str:
        """The name of class ``k``, else its number."""
        return str(self.class_names[k]) if k < len(self.class_names) else str(k)

    def tenant_name(self, k: int) -> str:
        """The name of tenant ``k``, else its number; 0 is nobody."""
        return "–" if k == 0 else str(self.tenant_names[k - 1]) if k <= len(self.tenant_names) else str(k)


def fold(a: Array, times: int = 1) -> Array:
    """Merge neighbouring bins ``times`` times: [replica, bin] → [replica, ⌈bin / 2^times⌉]."""
    for _ in range(times):
        if a.shape[1] % 2:
            a = np.concatenate([a, np.zeros((a.shape[0], 1))], axis=1)
        a = a[:, 0::2] + a[:, 1::2]
    return a


def join_series(pools: Sequence[Series]) -> Series:
    """Series of several pools as one, replicas in the order given; bin widths must be powers of two of one width."""
    pools = [p for p in pools if p]
    if not pools:
        return Series()
    width = max(float(p["width_s"]) for p in pools)
    folded = []
    for p in pools:
        times = round(np.log2(width / float(p["width_s"])))
        folded.append({k: fold(np.asarray(values), times) for k, values in by_name(p).items()})
    bins = max(p["time_s"].shape[1] for p in folded)
    joined = {k: np.concatenate([np.pad(p[k], ((0, 0), (0, bins - p[k].shape[1]))) for p in folded]) for k in SERIES}
    return series_of(joined, width)


def join_totals(pools: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Totals of several pools as one: times and extremes by their maximum, everything else summed."""
    out: dict[str, float] = {}
    for totals in pools:
        for key, value in totals.items():
            out[key] = (
                max(out.get(key, value), value) if key in ("last_s", "itl_max_s", "tokens_max") else out.get(key, 0) + value
            )
    return out


class Counted(Protocol):
    """An engine group of a run (`sim.engine.seam.Group`), as far as it says what happened."""

    def series(self) -> tuple[Series, Array, Array]:
        """Time series, histogram of inter-token gaps, seconds by part."""

    def totals(self) -> dict[str, float]:
        """Sums and extremes."""

    def capacity(self) -> Array:
        """f8[n]: KV blocks (or tokens)."""

    def kv_peak(self) -> Array:
        """f8[n]: most of them in use at once."""


class Collected(TypedDict):
    """Fields of a `RunRecord` that come from the engines."""

    series: Series
    itl_hist: Array
    parts: Array
    totals: dict[str, float]
    kv_total: Array
    kv_peak: Array


def collect(groups: Sequence[Counted]) -> Collected:
    """``series, itl_hist, parts, totals, kv_total`` of a `RunRecord` from the engine groups of a run, in that order."""
    found = [g.series() for g in groups]
    return {
        "series": join_series([series for series, _, _ in found]),
        "itl_hist": np.sum([hist for _, hist, _ in found], axis=0),
        "parts": np.concatenate([parts for _, _, parts in found]),
        "totals": join_totals([g.totals() for g in groups]),
        "kv_total": np.concatenate([g.capacity() for g in groups]),
        "kv_peak": np.concatenate([g.kv_peak() for g in groups]),
    }
