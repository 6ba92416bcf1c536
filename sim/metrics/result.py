"""The answer of a run: request table, time series, summary; saved to and loaded from a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.ledger import ATTEMPT_COLUMNS, HAND_OVER_COLUMNS, IN_FLIGHT, LABEL_COLUMNS, REQUEST_COLUMNS
from sim.ledger import Values as Array
from sim.metrics.latency import derive
from sim.metrics.on_disk import DiskTable, put
from sim.metrics.record import RunRecord
from sim.metrics.series import table
from sim.metrics.slo import demand_text
from sim.metrics.summary import Summary, summarise_run
from sim.metrics.token_times import TokenTimes, by_request

if TYPE_CHECKING:
    import pandas as pd

    from sim.document import Json

RENDERER: Final = "sim.report.html:render"


@dataclass
class Result:
    """One run.

    ``columns``: the request table as arrays, by id (of more than two million requests on disk, `on_disk.DiskTable`):
    `sim.ledger.REQUEST_COLUMNS`, disaggregated also
    `sim.ledger.HAND_OVER_COLUMNS`, of traffic with tenants and sessions `sim.ledger.LABEL_COLUMNS`, of clients that do
    more than wait `sim.ledger.ATTEMPT_COLUMNS`, and ``ttft_s, tpot_s, e2e_s, ingress_s,
    queue_s, slo_met``.
    ``series``: the time series as arrays (`series.COLUMNS`). ``itl_hist``: see `histogram`. ``scenario``: resolved YAML.
    ``token_times``: when each token came, where `record.token_times` asked for it.
    ``renderer``: makes the HTML report that `save` writes beside the tables (None: none). It is named, not imported, because
    reports lie above metrics.
    """

    summary: Summary
    columns: MutableMapping[str, Array]
    series: dict[str, Array]
    itl_hist: Array
    scenario: str = ""
    token_times: TokenTimes | None = field(default=None, repr=False, compare=False)
    renderer: Callable[[Result], str] | str | None = field(default=RENDERER, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the scenario."""
        return self.summary.name

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before he trusts the numbers."""
        return list(self.summary.warnings)

    @property
    def notes(self) -> list[str]:
        """What else the run answers: what an autoscaler did."""
        return list(self.summary.notes)

    @property
    def evidence(self) -> list[Mapping[str, Json]]:
        """What the numbers rest on, and how good that is."""
        return list(self.summary.evidence)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row per request (shares memory with ``columns``)."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns), copy=False)

    @cached_property
    def classes(self) -> pd.DataFrame:
        """One row per class of clients (or model): its figures in the summary."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.summary.classes])

    @cached_property
    def tenants(self) -> pd.DataFrame:
        """One row per tenant, the largest first; empty for traffic without tenants."""
        import pandas as pd

        found = self.summary.extras.get("tenants")
        return pd.DataFrame([dict(row) for row in found["rows"]] if found is not None else [])

    @cached_property
    def sessions(self) -> pd.DataFrame:
        """One row per session, in order of its first request (`sections.sessions.session_table`); empty without sessions."""
        import pandas as pd

        if "session" not in self.columns:
            return pd.DataFrame()
        from sim.metrics.sections.sessions import session_table

        return pd.DataFrame(session_table(self.columns, self.columns["status"] != IN_FLIGHT))

    @cached_property
    def timeseries(self) -> pd.DataFrame:
        """One row per replica and time bin."""
        import pandas as pd

        return pd.DataFrame(self.series, copy=False)

    def save(self, folder: str | Path, also: Callable[[Path], object] | None = None) -> Path:
        """Write everything to ``folder``, all or nothing; an earlier result there is replaced, what is not ours there stays.

        ``also`` writes further files into the folder that it gets. Raises ConfigError, OSError.
        """
        from sim.metrics.store import save

        return save(self, Path(folder), also)

    def html(self) -> str:
        """The HTML report; empty without a renderer."""
        render = self.renderer
        if isinstance(render, str):
            module, _, name = render.partition(":")
            render = getattr(import_module(module), name)
        return render(self) if callable(render) else ""

    def __str__(self) -> str:
        s = self.summary
        slo = s.slo
        verdict = ""
        if slo.met is not None:
            share = f"{100 * (slo.attainment['joint'] or 0.0):.4g}% of requests meet its SLO, {100 * (slo.required or 0.0):.6g}% required"
            missed = "; ".join(demand_text(d) for d in slo.demands if d.met is False)
            share = f"{missed}" if missed and len(slo.demands) > 1 else share
            verdict = f" {'Holds' if slo.met else 'Misses'}: {share}."
        counts = f"{s.requests.finished:,} of {s.requests.injected:,} requests."
        return f"{s.name}: {counts}{verdict} {s.bottleneck.sentence}"


def summarise(record: RunRecord, warmup_s: float = 0.0, renderer: Callable[[Result], str] | str | None = RENDERER) -> Result:
    """The result of a run. ``warmup_s``: leave out requests that arrive within so many seconds of the first one."""
    if record.series and not np.any(record.series["time_s"]):  # the recorder had its time series switched off
        record = replace(record, series={})
    columns = _sorted(record.requests)
    put(columns, derive)
    summary, ok = summarise_run(record, columns, warmup_s)
    columns["slo_met"] = ok
    times = by_request(record.token_times, np.asarray(columns["id"]))
    series = table(record.series, record.kv_total)
    return Result(summary, columns, series, np.asarray(record.itl_hist), record.scenario, times, renderer)


def _sorted(raw: Mapping[str, Array]) -> MutableMapping[str, Array]:
    if isinstance(raw, DiskTable):
        put(raw, _filled)
        raw.arrange((*REQUEST_COLUMNS, *HAND_OVER_COLUMNS, *LABEL_COLUMNS, *ATTEMPT_COLUMNS))
        return raw
    ids = raw["id"]
    columns = {k: np.asarray(raw[k]) for k in REQUEST_COLUMNS if k in raw}
    columns |= _filled(columns)
    columns = {k: columns[k] for k in REQUEST_COLUMNS}
    columns |= {k: np.asarray(raw[k]) for k in (*HAND_OVER_COLUMNS, *LABEL_COLUMNS, *ATTEMPT_COLUMNS) if k in raw}
    if ids.size > 1 and not bool((ids[1:] > ids[:-1]).all()):
        order = np.argsort(ids, kind="stable")
        columns = {k: v[order] for k, v in columns.items()}
    return columns


def _filled(columns: Mapping[str, Array]) -> dict[str, Array]:
    """The columns that may be absent."""
    n = columns["id"].size
    missing = {k: np.zeros(n, np.int32) for k in ("klass", "cached_tokens", "preemptions") if k not in columns}
    return missing if "taken_s" in columns else missing | {"taken_s": columns["arrival_s"].astype(float)}


def load_result(folder: str | Path) -> Result:
    """A result that `Result.save` wrote. Raises DataError."""
    from sim.metrics.store import load

    return load(Path(folder))
