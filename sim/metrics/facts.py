"""What the sections of a summary are made from: the raw arrays of a run, and who counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from sim.ledger import FAILED, FINISHED, IN_FLIGHT, REJECTED
from sim.ledger import Values as Array
from sim.metrics.definitions import SLO_METRICS
from sim.metrics.groups import LoadFigures, replica_load
from sim.metrics.record import RunRecord
from sim.metrics.slo import Demand, demands_of, met
from sim.metrics.storm import Storm, storm

if TYPE_CHECKING:
    from sim.metrics.clients import ClientRecord


@dataclass(frozen=True)
class Facts:
    """One run.

    ``columns``: the request table with the derived latencies, by id. b1[n]: ``counted`` (finished, rejected or failed, after the warm-up),
    ``finished``, ``ok`` (all targets met); ``verdicts``: the same for each target. Seconds: ``start`` and ``last`` of what is counted,
    ``duration`` between them, ``horizon`` the end of the simulated time. ``load``: rows by replica (`groups.replica_load`).
    """

    record: RunRecord
    columns: Mapping[str, Array]
    counted: Array
    finished: Array
    verdicts: Mapping[str, Array]
    start: float
    last: float
    duration: float
    horizon: float
    load: list[LoadFigures]

    @property
    def ok(self) -> Array:
        """b1[n]: finished within all its targets."""
        return self.verdicts["joint"]

    @cached_property
    def demands(self) -> tuple[Demand, ...]:
        """What is asked, and how far it is met."""
        return demands_of(self.record, self.columns, self.counted)

    @cached_property
    def storm(self) -> Storm | None:
        """The longest storm of retries."""
        clients = cast("ClientRecord | None", self.record.stations.get("clients"))
        return None if clients is None else storm(self.columns["arrival_s"], clients.after_failures_s, self.ok)

    def of_finished(self, column: str) -> Array:
        """A column of the finished requests that count."""
        values = self.columns[column]
        return values if bool(self.finished.all()) else values[self.finished]

    def number_of(self, status: int) -> int:
        """Requests that count and ended so."""
        return int(np.count_nonzero(self.counted & (self.columns["status"] == status)))


def facts_of(record: RunRecord, columns: Mapping[str, Array], warmup_s: float) -> Facts:
    """``warmup_s``: requests that arrive within so many seconds of the first one do not count."""
    status, arrival = columns["status"], columns["arrival_s"]
    start = (float(arrival.min()) if status.size else 0.0) + warmup_s
    counted = status != IN_FLIGHT
    if warmup_s > 0:
        counted &= arrival >= start
    last = float(np.fmax.reduce(columns["finish_s"][counted], initial=start))
    if bool((status == IN_FLIGHT).any()):
        last = max(last, float(record.totals.get("last_s", last)))
    horizon = float(record.totals.get("last_s", last))
    return Facts(
        record,
        columns,
        counted,
        counted & (status == FINISHED),
        _verdicts(record, columns),
        start,
        last,
        max(last - start, 0.0),
        horizon,
        replica_load(record.series, record.kv_total, record.parts, horizon, record.alive_s, record.kv_peak),
    )


def _verdicts(record: RunRecord, columns: Mapping[str, Array]) -> dict[str, Array]:
    verdicts = met(columns, record.slo.targets())
    for klass, slo in record.class_slo.items():  # a class with targets of its own
        rows = columns["klass"] == klass
        own = met({k: columns[k][rows] for k in ("status", "output_tokens", "ttft_s", "tpot_s", "e2e_s")}, slo.targets())
        finished = columns["status"][rows] == FINISHED
        for key in verdicts.keys() | own.keys():
            verdicts.setdefault(key, columns["status"] == FINISHED)[rows] = own.get(key, finished)
    return {k: verdicts[k] for k in (*(k for k in SLO_METRICS if k in verdicts), "joint")}


__all__ = ["FAILED", "FINISHED", "IN_FLIGHT", "REJECTED", "Facts", "facts_of"]
