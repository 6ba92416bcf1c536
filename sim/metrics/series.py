"""Time series as columns of a table, one row per replica and bin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from sim.ledger import Series, by_name
from sim.ledger import Values as Array
from sim.metrics.record import fold

MAX_ROWS: Final = 400_000
"""Rows of the exported table: many replicas get coarser bins."""

COLUMNS: Final = (
    "time_s",
    "width_s",
    "replica",
    "running",
    "waiting",
    "kv_used",
    "kv_use",
    "kv_blocked",
    "busy",
    "steps_per_s",
    "step_time_s",
    "batch_tokens",
    "decode_tokens_per_s",
    "prefill_tokens_per_s",
)


def _over(a: Array, b: Array) -> Array:
    return np.asarray(np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0))


def table(series: Series, kv_total: Array | None = None, max_rows: int = MAX_ROWS) -> dict[str, Array]:
    """`COLUMNS`, sorted by replica and time; bins that no replica lived in are left out.

    ``running, waiting, kv_used`` (blocks) are time averages; ``kv_use, kv_blocked, busy`` shares; ``step_time_s, batch_tokens``
    per step, NaN where no step ran. A step counts in the bin it starts in, so ``busy`` is capped at 1.
    """
    if not series:
        return {k: np.empty(0, np.int32 if k == "replica" else np.float64) for k in COLUMNS}
    times = 0
    rows = int(np.count_nonzero(series["time_s"]))
    while rows >> times > max_rows:
        times += 1
    a = {k: fold(np.asarray(values), times) for k, values in by_name(series).items()}
    width = float(series["width_s"]) * 2**times
    replica, index = np.nonzero(a["time_s"] > 0)
    a = {k: v[replica, index] for k, v in a.items()}
    time = a["time_s"]
    total = np.asarray(kv_total)[replica] if kv_total is not None else np.full(time.size, np.nan)
    kv_used = a["kv_used"] / time
    return {
        "time_s": index * width,
        "width_s": time,
        "replica": replica.astype(np.int32),
        "running": a["running"] / time,
        "waiting": a["waiting"] / time,
        "kv_used": kv_used,
        "kv_use": _over(kv_used, total),
        "kv_blocked": a["kv_full"] / time,
        "busy": np.minimum(a["busy_s"] / time, 1.0),
        "steps_per_s": a["steps"] / time,
        "step_time_s": _over(a["busy_s"], a["steps"]),
        "batch_tokens": _over(a["decode_tokens"] + a["prefill_tokens"], a["steps"]),
        "decode_tokens_per_s": a["decode_tokens"] / time,
        "prefill_tokens_per_s": a["prefill_tokens"] / time,
    }


def fleet(columns: Mapping[str, Array], points: int = 400) -> dict[str, Array]:
    """The table over all replicas in at most ``points`` bins: sums of ``running``, ``waiting`` and rates, means of shares.

    ``replicas``: how many the mean is over. A replica counts where it has a row, weighted with the time it covers.
    """
    keys = ("running", "waiting", "kv_use", "kv_blocked", "busy", "decode_tokens_per_s", "prefill_tokens_per_s", "steps_per_s")
    if columns["time_s"].size == 0:
        return {k: np.empty(0) for k in ("time_s", "replicas", *keys, "step_time_s")}
    end = float((columns["time_s"] + columns["width_s"]).max())
    pitch = np.unique(columns["time_s"])
    step = float(np.diff(pitch).min()) if pitch.size > 1 else end
    step *= max(1, int(np.ceil(end / step / points)))
    n = max(1, int(np.ceil(end / step - 1e-9)))
    at = np.minimum((columns["time_s"] / step + 1e-9).astype(np.int64), n - 1)
    covered = np.bincount(at, columns["width_s"], n)
    lengths = np.minimum(step, end - np.arange(n) * step)
    out = {"time_s": np.arange(n) * step, "replicas": covered / lengths}
    for k in keys:
        total = np.bincount(at, np.nan_to_num(columns[k]) * columns["width_s"], n)
        out[k] = _over(total, covered) if k in ("kv_use", "kv_blocked", "busy") else total / lengths
    if np.isnan(columns["kv_use"]).all():
        out["kv_use"][:] = np.nan
    busy = np.bincount(at, np.nan_to_num(columns["step_time_s"]) * columns["steps_per_s"] * columns["width_s"], n)
    out["step_time_s"] = _over(busy, np.bincount(at, columns["steps_per_s"] * columns["width_s"], n))
    return out
