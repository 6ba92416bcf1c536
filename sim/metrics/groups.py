"""Tables per request class and per replica: the same few numbers for each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Required, TypedDict, TypeVar

import numpy as np

from sim.ledger import FINISHED, Series
from sim.ledger import Values as Array
from sim.metrics.definitions import SLO_METRICS
from sim.metrics.latency import number
from sim.metrics.section import ABSENT, Section, keyed

if TYPE_CHECKING:
    from sim.metrics.facts import Facts

R = TypeVar("R", bound="Row")


@dataclass(frozen=True)
class Row(Section):
    """The figures of a group of requests."""

    index: int
    name: str
    requests: int
    finished: int
    output_tokens: int
    attainment: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None

    def of(self, row: type[R], index: int, name: str, **more: Any) -> R:
        """The same figures as those of a named member of another kind of group, with what such a row says beside."""
        return row(**{**self, "index": index, "name": name}, **more)


@dataclass(frozen=True)
class ClassRow(Row):
    """The requests of a class of traffic; of one with targets of its own also what share must meet them and whether all its demands are met."""

    index: int = field(metadata=keyed("klass"))
    required: float | None = field(default=None, metadata=ABSENT)
    met: bool | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class ReplicaRow(Row):
    """A replica (or a data-parallel rank): its requests, and averages over the time in which it existed; without a time series, fewer."""

    index: int = field(metadata=keyed("replica"))
    busy: float = field()
    running_mean: float | None = field(default=None, metadata=ABSENT)
    waiting_mean: float | None = field(default=None, metadata=ABSENT)
    kv_mean: float | None = field(default=None, metadata=ABSENT)
    kv_peak: float | None = field(default=None, metadata=ABSENT)


class LoadFigures(TypedDict, total=False):
    """What a `ReplicaRow` says beside: shares of the time and means over it, as far as they are known."""

    busy: Required[float]
    running_mean: float
    waiting_mean: float
    kv_mean: float | None
    kv_peak: float | None


def group_rows(columns: Mapping[str, Array], label: Array, ok: Array, counted: Array, groups: int) -> list[Row]:
    """One row per group 0…groups−1: requests, finished, tokens, joint attainment, p50 and p99 of TTFT, TPOT and E2E.

    ``label``: group of every request; ``ok``: it met its targets; ``counted``: it takes part (finished, rejected or failed).
    """
    finished = counted & (columns["status"] == FINISHED)
    count = np.bincount(label, minlength=groups)
    n_counted = np.bincount(label[counted], minlength=groups)
    n_ok = np.bincount(label[ok & counted], minlength=groups)
    n_finished = np.bincount(label[finished], minlength=groups)
    tokens = np.bincount(label[finished], columns["output_tokens"][finished], groups)
    rows: list[dict[str, Any]] = [
        {
            "index": g,
            "name": str(g),
            "requests": int(count[g]),
            "finished": int(n_finished[g]),
            "output_tokens": int(tokens[g]),
            "attainment": float(n_ok[g] / n_counted[g]) if n_counted[g] else None,
        }
        for g in range(groups)
    ]
    members = np.flatnonzero(finished)
    if groups > 1:
        members = members[np.argsort(label[members], kind="stable")]
    cuts = np.cumsum(n_finished)[:-1]
    for key in SLO_METRICS:
        for row, values in zip(rows, np.split(columns[key][members], cuts), strict=True):
            values = values[~np.isnan(values)]
            found = np.percentile(values, (50.0, 99.0), overwrite_input=True) if values.size else (np.nan, np.nan)
            name = key.removesuffix("_s")
            row |= {f"{name}_p50_s": number(found[0]), f"{name}_p99_s": number(found[1])}
    return [Row(**row) for row in rows]


def replica_load(
    series: Series,
    kv_total: Array | None,
    parts: Array,
    horizon: float,
    alive: Array | None = None,
    kv_peak: Array | None = None,
) -> list[LoadFigures]:
    """One row per replica: busy share, KV use (mean, peak), running, waiting; averages over ``horizon`` seconds.

    ``kv_peak``: most blocks in use at once; None: the peak of the bins' averages. ``alive``: seconds in which each replica existed, where that is
    not the horizon.
    """
    replicas = parts.shape[0]
    span: float | Array = horizon if horizon > 0 else 1.0
    if alive is not None:
        span = np.where(alive > 0, alive, 1.0)
    if not series:
        busy = np.minimum(parts.sum(axis=1) / span, 1.0)
        rows: list[LoadFigures] = [{"busy": float(busy[i])} for i in range(replicas)]
        if kv_total is not None and kv_peak is not None:
            for row, peak in zip(rows, kv_peak / kv_total, strict=True):
                row["kv_peak"] = number(peak)
        return rows
    busy = np.minimum(series["busy_s"].sum(axis=1) / span, 1.0)
    running, waiting = series["running"].sum(axis=1) / span, series["waiting"].sum(axis=1) / span
    rows = [
        {"busy": float(busy[i]), "running_mean": float(running[i]), "waiting_mean": float(waiting[i])} for i in range(replicas)
    ]
    if kv_total is not None:
        mean = series["kv_used"].sum(axis=1) / span / kv_total
        time = series["time_s"]
        level = np.divide(series["kv_used"], time, out=np.zeros_like(time), where=time > 0)
        peak = (level.max(axis=1) if kv_peak is None else kv_peak) / kv_total
        for i, row in enumerate(rows):
            row["kv_mean"], row["kv_peak"] = number(mean[i]), number(peak[i])
    return rows


def class_rows(facts: Facts) -> tuple[ClassRow, ...]:
    """``classes`` of a summary."""
    klass, names = facts.columns["klass"], facts.record.class_names
    classes = max(int(klass.max()) + 1 if klass.size else 1, len(names))
    rows = group_rows(facts.columns, klass, facts.ok, facts.counted, classes)
    judged: dict[str | None, list[bool]] = {}
    for d in facts.demands if facts.record.class_slo else ():
        if d.met is not None:
            judged.setdefault(d.klass, []).append(d.met)
    out = []
    for g, row in enumerate(rows):
        name, own = _name(names, g), facts.record.class_slo.get(g)
        met = judged.get(name) if own is not None else None
        required = None if own is None else own.attainment
        out.append(row.of(ClassRow, g, name, required=required, met=None if met is None else all(met)))
    return tuple(out)


def replica_rows(facts: Facts) -> tuple[ReplicaRow, ...]:
    """``replicas`` of a summary."""
    columns, record = facts.columns, facts.record
    replicas = record.parts.shape[0]
    rows = _of_replicas(facts, "replica", replicas)  # a request that the gateway turned away has no replica
    if "prefill_replica" in columns:  # a prefill replica has the requests whose prompts it computed
        prefilled = _of_replicas(facts, "prefill_replica", replicas)
        rows = [p if p.requests else r for p, r in zip(prefilled, rows, strict=True)]
    names = record.replica_names
    found = enumerate(zip(rows, facts.load, strict=True))
    return tuple(row.of(ReplicaRow, g, _name(names, g), **load) for g, (row, load) in found)


def _of_replicas(facts: Facts, column: str, replicas: int) -> list[Row]:
    at = facts.columns[column]
    here = at >= 0
    if here.all():
        return group_rows(facts.columns, at, facts.ok, facts.counted, replicas)
    kept = {k: facts.columns[k][here] for k in ("status", "output_tokens", "ttft_s", "tpot_s", "e2e_s")}
    return group_rows(kept, at[here], facts.ok[here], facts.counted[here], replicas)


def _name(names: Sequence[str], g: int) -> str:
    return names[g] if g < len(names) else str(g)
