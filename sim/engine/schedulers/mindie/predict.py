# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Predicted durations of batches (``src/scheduler/latency_predictor``) and the batch size that follows them (``dynamic_batch_size.cpp``)."""

import numpy as np

from sim.engine.outline import outlined
from sim.engine.schedulers.mindie.state import DECODE, PREFILL, MindieState
from sim.jit import inline

F = np.float32
_REFIT = 400  # decodes between two fits
_STORED = 1000  # decodes that a fit uses
_TINY = 1e-9


@inline
def predict_prefill(s, tokens):
    """Milliseconds of a prefill, a straight line in 32-bit numbers."""
    return np.float64(F(F(F(s.slope) * F(tokens)) + F(s.intercept)))


@inline
def predict_decode(s, rows, blocks):
    """Milliseconds of a decode."""
    c = s.d_coef
    return np.float64(F(c[0] * rows + c[1] * blocks + c[2]))


@inline
def _learn_prefill(s, tokens, ms):
    """One more point of the line; kept only if slope and intercept stay positive (``PrefillRegression``)."""
    t = F(tokens)
    y = F(ms)
    a = s.p_sums
    s.p_count += 1
    if s.p_count == 1:
        a[0] = F(F(a[0]) + t)
        a[1] = F(F(a[1]) + y)
        a[2] = F(t * t)
        a[3] = F(t * y)
        return
    n = F(s.p_count)
    sx = F(F(a[0]) + t)
    sy = F(F(a[1]) + y)
    sxx = F(F(a[2]) + F(t * t))
    sxy = F(F(a[3]) + F(t * y))
    below = F(F(n * sxx) - F(sx * sx))
    if abs(below) <= _TINY:
        return
    slope = F(F(F(n * sxy) - F(sx * sy)) / below)
    intercept = F(F(F(sy * sxx) - F(sx * sxy)) / below)
    if slope > 0 and intercept > 0:
        s.slope = slope
        s.intercept = intercept
        a[0] = sx
        a[1] = sy
        a[2] = sxx
        a[3] = sxy
    elif s.p_count == 2:
        s.p_count = 0
        for i in range(4):
            a[i] = 0.0
    else:
        s.p_count -= 1


@inline
def _fit_decode(s):
    """Least squares of milliseconds over rows and blocks; taken only if all coefficients are positive (``DecodeRegression::Train``)."""
    n = min(s.d_count, _STORED)
    rr = rb = r1 = bb = b1 = 0.0
    for i in range(n):
        r = float(s.d_rows[i])
        b = float(s.d_blocks[i])
        rr += r * r
        rb += r * b
        r1 += r
        bb += b * b
        b1 += b
    n1 = float(n)
    det = rr * (bb * n1 - b1 * b1) - rb * (rb * n1 - b1 * r1) + r1 * (rb * b1 - bb * r1)
    if abs(det) <= _TINY:
        return
    i00 = (bb * n1 - b1 * b1) / det
    i01 = (r1 * b1 - rb * n1) / det
    i02 = (rb * b1 - r1 * bb) / det
    i10 = (b1 * r1 - rb * n1) / det
    i11 = (rr * n1 - r1 * r1) / det
    i12 = (r1 * rb - rr * b1) / det
    i20 = (rb * b1 - bb * r1) / det
    i21 = (rb * r1 - rr * b1) / det
    i22 = (rr * bb - rb * rb) / det
    c0 = c1 = c2 = 0.0
    for i in range(n):
        r = float(s.d_rows[i])
        b = float(s.d_blocks[i])
        y = s.d_time[i]
        c0 += (i00 * r + i01 * b + i02) * y
        c1 += (i10 * r + i11 * b + i12) * y
        c2 += (i20 * r + i21 * b + i22) * y
    if c0 > 0 and c1 > 0 and c2 > 0:
        s.d_coef[0] = c0
        s.d_coef[1] = c1
        s.d_coef[2] = c2


@outlined(MindieState)
def learn(s, ms):
    """A batch has taken ``ms`` whole milliseconds (``LatencyPredictor::UpdateBatchStats``)."""
    if s.mode == PREFILL:
        _learn_prefill(s, s.stat_tokens, ms)
    elif s.mode == DECODE:
        if s.d_count > 0 and s.d_count % _REFIT == 0:
            _fit_decode(s)
        i = s.d_count % _STORED
        s.d_rows[i] = s.stat_tokens
        s.d_blocks[i] = s.stat_blocks
        s.d_time[i] = float(ms)
        s.d_count += 1
        if s.dynamic:
            note_latency(s, ms)
    return 0


@inline
def note_latency(s, ms):
    """One more decode latency into the window."""
    if s.lat_n == s.lat.size:
        s.lat_sum -= s.lat[s.lat_at]
    else:
        s.lat_n += 1
    s.lat[s.lat_at] = ms
    s.lat_sum += ms
    s.lat_at = (s.lat_at + 1) % s.lat.size


@inline
def _mean_latency(s):
    """0 until a tenth of the window is filled."""
    return s.lat_sum / s.lat_n if s.lat_n > 0 and s.lat_n >= 0.1 * s.lat.size else 0.0


@inline
def _note_batch(s, rows):
    """One more decode batch; the window keeps the latest that make up so many rows."""
    size = s.bat.size
    window = size - 1
    s.bat[s.bat_at] = rows
    s.bat_at = (s.bat_at + 1) % size
    s.bat_n += 1
    s.bat_sum += rows
    s.bat_square += rows * rows
    while True:
        oldest = s.bat[(s.bat_at - s.bat_n + size) % size]
        if s.bat_sum - oldest < window:
            break
        s.bat_n -= 1
        s.bat_sum -= oldest
        s.bat_square -= oldest * oldest


@inline
def _mean_batch(s):
    """Mean batch size in the window, each batch weighted by itself, the oldest by what it exceeds the window."""
    if s.bat_n == 0:
        return np.int64(0)
    over = s.bat_sum - (s.bat.size - 1)
    if over <= 0:
        return s.bat_square // s.bat_sum
    oldest = s.bat[(s.bat_at - s.bat_n + s.bat.size) % s.bat.size]
    return (s.bat_square - oldest * oldest + oldest * over) // (s.bat_sum - oldest + over)


@inline
def _clamp(v, lo, hi):
    return lo if v < lo else hi if v > hi else v


_LOWEST = 3
_TOLERANCE = 5.0  # ms
_WRAP = 1 << 62  # what an unsigned difference below zero becomes: more than any bound


@inline
def _less(a, b):
    """Unsigned ``a - b``."""
    return a - b if a >= b else np.int64(_WRAP)


@inline
def _search(s, running, latency, batch):
    """``BinarySearchBatchSize``."""
    target = s.decode_target
    top = s.dyn_bound
    if latency > target + _TOLERANCE:
        s.dyn_upper = max(batch, s.dyn_lower + 3)
        s.dyn_lower = max(_less(s.dyn_lower, 2), _LOWEST)
    elif latency < target - _TOLERANCE:
        s.dyn_lower = min(batch, _less(s.dyn_upper, 3))
        s.dyn_upper = min(s.dyn_upper + 2, top)
    else:
        s.dyn_upper = min(batch + 3, top)
        s.dyn_lower = max(_less(batch, 2), _LOWEST)
    s.dyn_upper = _clamp(s.dyn_upper, _LOWEST, top)
    s.dyn_lower = _clamp(s.dyn_lower, _LOWEST, top)
    size = _clamp((s.dyn_upper + s.dyn_lower) // 2, _less(s.mb, 2), s.mb + 2)
    size = _clamp(size, running, top)
    s.mb = size
    s.mpb = size - running if size > running else 0


@outlined(MindieState)
def adjust(s, mode, rows):
    """After a round (``DynamicBatchSize::ApplyDynamicBatchSize``): batch sizes that keep the decode latency near its target."""
    if rows == 0 and s.mpb != 0:
        return 0
    # an empty round counts as a decode of nobody
    decoded = rows if mode == DECODE or rows == 0 else 0
    if mode == DECODE or rows == 0:
        s.dyn_decoded = 1
    if decoded > 0:
        _note_batch(s, decoded)
    running = s.n_run + s.n_swap
    if s.w_len == 0 and running == 0:
        return 0
    latency = _mean_latency(s)
    batch = _mean_batch(s)
    if batch == 0 or abs(latency) < 1e-6 or s.dyn_decoded != 1:
        s.mb = _LOWEST
        s.dyn_lower = batch
        s.dyn_upper = batch
    s.dyn_stage = (s.dyn_stage + 1) % 2
    if s.dyn_stage == 0:
        _search(s, running, latency, batch)
    elif running != 0 and latency > s.decode_target + _TOLERANCE:
        s.mb = running
        s.mpb = 0
    return 0
