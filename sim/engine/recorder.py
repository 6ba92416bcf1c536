"""What is written down of a pool while it runs: rows of requests that have left, time series, gaps between tokens, seconds by part."""

from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.engine.rows import RowColumns, fill_rows, grown, rows_of, widen_rows
from sim.engine.seam import F8, I4, I8
from sim.jit import b1, f8, f8s, f8ss, f8sss, i4s, i8, i8s, inline, kernel, new, struct
from sim.ledger import (
    N_PARTS,
    S_BUSY,
    S_COVERED,
    S_DECODE,
    S_KV_FULL,
    S_KV_USED,
    S_PREFILL,
    S_RUNNING,
    S_STEPS,
    S_WAITING,
    SERIES,
    Values,
)


@struct(viewed=True)
class Recorder(RowColumns):
    """Rows of finished requests and time series of one pool; shared by its replicas.

    ``n`` rows are filled; the owner drains them between calls. Series are [replica, bin] integrals over simulated time; when a run
    outgrows the bins, neighbours are merged and ``width`` doubles, so memory does not follow the length of the run.
    """

    n: i8
    promised: i8  # rows filled or sure to come: `reserve` keeps room for them, so that hot kernels never allocate
    # watched outcomes since the last call of the owner
    n_watched: i8
    watched_id: i8s
    watched_time: f8s
    watched_replica: i4s
    watched_slot: i4s
    watched_kind: i8s
    watched_value: i8s
    # time series [replica, bin, kind]: integrals over simulated time of S_RUNNING … S_COVERED, sums of the others
    series_on: b1
    width: f8s  # [replica] seconds per bin
    series: f8sss
    kv_peak: f8s  # [replica] most KV blocks (or tokens) in use at any time
    pool_use: (
        f8sss  # [replica, pool, figure] of engines with several pools (`add_pools`): used × time, most used, time waited for
    )
    pool_series: f8sss  # [replica, bin, pool] used × time
    # inter-token latency, token-weighted, log bins
    itl_lo: f8
    itl_scale: f8
    itl_hist: f8s
    itl_sum: f8
    itl_count: f8
    itl_max: f8
    tokens_max: f8  # most tokens in one step
    gap: f8  # held back: so many gaps of this length
    gap_weight: f8
    tok_on: b1  # write down when each chunk of tokens came: whose, when (`token_times`)
    tok_n: i8
    tok_id: i8s
    tok_at: f8s
    parts: f8ss  # [replica, part] seconds
    outstanding: i8s  # [replica] submitted − finished: what a gateway counts


@kernel
def new_recorder(replicas, bins, width, rows, itl_bins, itl_lo, itl_scale):
    """An empty recorder. ``bins`` = 0 switches the time series off."""
    r = new(Recorder)
    r.n = 0
    fill_rows(r, rows)
    r.promised = 0
    r.n_watched = 0
    r.watched_id = np.empty(2 * rows, np.int64)
    r.watched_time = np.empty(2 * rows)
    r.watched_replica = np.empty(2 * rows, np.int32)
    r.watched_slot = np.empty(2 * rows, np.int32)
    r.watched_kind = np.empty(2 * rows, np.int64)
    r.watched_value = np.empty(2 * rows, np.int64)
    r.series_on = bins > 0
    r.width = np.empty(replicas)
    r.width[:] = width
    r.series = np.zeros((replicas, max(bins, 1), len(SERIES)))
    r.kv_peak = np.zeros(replicas)
    r.pool_use = np.zeros((replicas, 0, 3))
    r.pool_series = np.zeros((replicas, 0, 0))
    r.itl_lo = itl_lo
    r.itl_scale = itl_scale
    r.itl_hist = np.zeros(itl_bins)
    r.itl_sum = 0.0
    r.itl_count = 0.0
    r.itl_max = 0.0
    r.tokens_max = 0.0
    r.gap = -1.0
    r.gap_weight = 0.0
    r.tok_on = False
    r.tok_n = 0
    r.tok_id = np.zeros(0, np.int64)
    r.tok_at = np.zeros(0)
    r.parts = np.zeros((replicas, N_PARTS))
    r.outstanding = np.zeros(replicas, np.int64)
    return r


@kernel
def add_pools(r, pools):
    """Record so many pools of each replica by themselves."""
    r.pool_use = np.zeros((r.series.shape[0], pools, 3))
    r.pool_series = np.zeros((r.series.shape[0], r.series.shape[1], pools))


@kernel
def reserve(r):
    """Double the rows of the recorder."""
    m = 2 * r.id.size
    widen_rows(r, m)
    r.watched_id = grown(r.watched_id, 2 * m)
    r.watched_time = grown(r.watched_time, 2 * m)
    r.watched_replica = grown(r.watched_replica, 2 * m)
    r.watched_slot = grown(r.watched_slot, 2 * m)
    r.watched_kind = grown(r.watched_kind, 2 * m)
    r.watched_value = grown(r.watched_value, 2 * m)


@inline
def flush_gaps(r):
    """Put the gaps that were held back into the histogram."""
    gap, weight = r.gap, r.gap_weight
    r.gap_weight = 0.0
    if weight > 0.0:
        r.itl_sum += gap * weight
        r.itl_count += weight
        if gap > r.itl_max:
            r.itl_max = gap
        k = 0
        if gap > r.itl_lo:
            k = min(int(log(gap / r.itl_lo) * r.itl_scale), r.itl_hist.size - 1)
        r.itl_hist[k] += weight


@inline
def record_gap(r, gap, weight):
    """Count ``weight`` inter-token gaps of ``gap``. The rows of a batch mostly have equal ones: these are counted first, binned later."""
    if gap != r.gap:
        flush_gaps(r)
        r.gap = gap
    r.gap_weight += weight


@inline
def bin_of(r, i, t):
    """Bin of time ``t``. When a run outgrows the bins, neighbours are merged: they now cover twice the time."""
    a = r.series
    m = a.shape[1]
    while t >= r.width[i] * m:
        for j in range(m):
            for k in range(a.shape[2]):
                a[i, j, k] = a[i, 2 * j, k] + a[i, 2 * j + 1, k] if 2 * j + 1 < m else 0.0
            for k in range(r.pool_series.shape[2]):
                b = r.pool_series
                b[i, j, k] = b[i, 2 * j, k] + b[i, 2 * j + 1, k] if 2 * j + 1 < m else 0.0
        r.width[i] *= 2.0
    return int(t / r.width[i])


@inline
def _record_pools(s, a, t):
    """Integrate the use of each pool from ``a`` to ``t``; nothing where the recorder does not watch them."""
    r = s.rec
    i = s.replica
    n = min(s.n_pools, r.pool_use.shape[1])
    for k in range(n):
        r.pool_use[i, k, 0] += s.g_pools[k] * (t - a)
        r.pool_use[i, k, 1] = max(r.pool_use[i, k, 1], s.g_pools[k])
        if s.g_blocked and s.g_short == k:
            r.pool_use[i, k, 2] += t - a
    if not r.series_on or n == 0:
        return
    last = bin_of(r, i, t)
    w = r.width[i]
    for j in range(int(a / w), last + 1):
        b = t if j == last else (j + 1) * w
        for k in range(n):
            r.pool_series[i, j, k] += s.g_pools[k] * (b - a)
        a = b


@inline
def record_gauges(s, t):
    """Integrate the gauges from the last call up to ``t``."""
    r = s.rec
    a = s.t_gauge
    if t <= a:
        return
    s.t_gauge = t
    i = s.replica
    if s.g_kv_used > r.kv_peak[i]:
        r.kv_peak[i] = s.g_kv_used
    if s.n_pools > 0:
        _record_pools(s, a, t)
    if not r.series_on:
        return
    last = bin_of(r, i, t)
    w = r.width[i]
    sums = r.series
    for j in range(int(a / w), last + 1):
        b = t if j == last else (j + 1) * w
        dt = b - a
        sums[i, j, S_RUNNING] += s.g_running * dt
        sums[i, j, S_WAITING] += s.g_waiting * dt
        sums[i, j, S_KV_USED] += s.g_kv_used * dt
        sums[i, j, S_COVERED] += dt
        if s.g_blocked:
            sums[i, j, S_KV_FULL] += dt
        a = b


@inline
def record_step(s, start, end, decode_tokens, prefill_tokens):
    """Count one executed step in the bin of its start."""
    r = s.rec
    s.n_steps += 1
    if r.series_on:
        i = s.replica
        j = bin_of(r, i, start)
        sums = r.series
        sums[i, j, S_BUSY] += end - start
        sums[i, j, S_STEPS] += 1.0
        sums[i, j, S_DECODE] += decode_tokens
        sums[i, j, S_PREFILL] += prefill_tokens


@inline
def record_unseen(s, wait):
    """Count the time a request has waited in the inbox, between its arrival and the decision that saw it first."""
    r = s.rec
    if r.series_on and wait > 0.0:
        i = s.replica
        j = bin_of(r, i, s.now)
        r.series[i, j, S_WAITING] += wait


class RecorderView(NamedTuple):
    """The arrays of a recorder; they are the recorder's own, longer than what is filled."""

    n: int
    n_watched: int
    rows: tuple[Values, ...]  # `sim.ledger.COLUMNS`
    watched: tuple[I8, F8, I4]  # ids, times, replicas
    itl_sum: float
    itl_count: float
    itl_max: float
    tokens_max: float
    outstanding: I8
    width: F8
    series: NDArray[np.float64]
    itl_hist: F8
    parts: F8
    kv_peak: F8


@kernel
def recorder_view(rec):
    """Of a recorder whose gaps are all counted."""
    flush_gaps(rec)
    watched = (rec.watched_id, rec.watched_time, rec.watched_replica)
    return RecorderView(
        rec.n,
        rec.n_watched,
        rows_of(rec),
        watched,
        rec.itl_sum,
        rec.itl_count,
        rec.itl_max,
        rec.tokens_max,
        rec.outstanding,
        rec.width,
        rec.series,
        rec.itl_hist,
        rec.parts,
        rec.kv_peak,
    )
