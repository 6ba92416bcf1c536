"""The replicas of one pool as the fleet sees them: submit, advance, look. One compiled call each."""

from math import inf

import numpy as np

from sim.engine.loop import advance, outlook, submit
from sim.jit import kernel, list_of

_WATCH_ROOM = 1024


@kernel
def _first(s):
    return list_of(s)


@kernel
def _append(states, s):
    states.append(s)


@kernel
def _submit(states, keys, replica, lo, hi, first_id, watch, columns, spans):
    s = states[replica]
    arrival, prompt, output, limit, priority, lora, out_content = columns
    off, span_id, start, length = spans
    submit(s, lo, hi, first_id, arrival, prompt, output, limit, priority, lora, out_content, watch, off, span_id, start, length)
    keys[replica] = min(keys[replica], arrival[lo])


@kernel
def _submit_routed(states, keys, replica_of, first_id, watch, columns, spans):
    """Rows of a block to the replicas named in ``replica_of``."""
    arrival, prompt, output, limit, priority, lora, out_content = columns
    off, span_id, start, length = spans
    for i in range(replica_of.size):
        k = replica_of[i]
        submit(
            states[k], i, i + 1, first_id, arrival, prompt, output, limit, priority, lora, out_content, watch, off, span_id, start, length
        )
        keys[k] = min(keys[k], arrival[i])


@kernel
def _advance_all(states, keys, until):
    """Nobody watches: each replica that may finish something goes to ``until`` on its own."""
    for i in range(keys.size):
        if keys[i] <= until:
            advance(states[i], until)
            keys[i] = outlook(states[i])


@kernel
def _advance_watched(states, keys, until):
    """In order of time over all replicas; stops at the first watched outcome, with no replica past that time. True if it stopped."""
    n = keys.size
    while True:
        first, bound = 0, inf
        for i in range(1, n):
            if keys[i] < keys[first]:
                first = i
        t = keys[first]
        if t > until or t == inf:
            return False
        for i in range(n):
            if i != first and keys[i] < bound:
                bound = keys[i]
        if bound > t:  # nobody else can do anything before `bound`
            stopped = advance(states[first], min(until, bound))
            moved = keys[first]
            keys[first] = outlook(states[first])
            if stopped:
                return True
            if keys[first] == moved and t >= until:
                return False
            continue
        stopped = False  # several at the same time: first all completions at t, then all decisions at t
        for i in range(n):
            if keys[i] == t:
                stopped |= advance(states[i], t)
                keys[i] = outlook(states[i])
        if stopped:
            return True
        if t >= until:
            return False
        after = np.nextafter(t, inf)
        for i in range(n):
            if keys[i] == t:
                stopped |= advance(states[i], after)
                keys[i] = outlook(states[i])
        if stopped:
            return True


@kernel
def _take_watched(rec, ids, times, replicas):
    n = min(rec.n_watched, ids.size)
    for i in range(n):
        ids[i] = rec.watched_id[i]
        times[i] = rec.watched_time[i]
        replicas[i] = rec.watched_replica[i]
    for i in range(n, rec.n_watched):
        rec.watched_id[i - n] = rec.watched_id[i]
        rec.watched_time[i - n] = rec.watched_time[i]
        rec.watched_replica[i - n] = rec.watched_replica[i]
    rec.n_watched -= n
    return n


@kernel
def _drain(rec):
    n = rec.n
    rec.n = 0
    return (
        rec.id[:n].copy(),
        rec.replica[:n].copy(),
        rec.arrival[:n].copy(),
        rec.first_scheduled[:n].copy(),
        rec.first_token[:n].copy(),
        rec.finish[:n].copy(),
        rec.prompt[:n].copy(),
        rec.output[:n].copy(),
        rec.cached[:n].copy(),
        rec.preemptions[:n].copy(),
        rec.status[:n].copy(),
    )


@kernel
def _finished(rec):
    return rec.n


@kernel
def _outstanding(rec):
    return rec.outstanding


@kernel
def _gauges(states, out):
    """Rows of ``out``: running, waiting, kv_used, kv_total, now."""
    for i in range(out.shape[1]):
        s = states[i]
        out[0, i] = s.g_running
        out[1, i] = s.g_waiting
        out[2, i] = s.g_kv_used
        out[3, i] = s.g_kv_total
        out[4, i] = s.now


@kernel
def _in_flight(states):
    """Rows of requests that have not left: slot columns of every live request, replica by replica."""
    n = 0
    for k in range(len(states)):
        n += states[k].live
    ids = np.empty(n, np.int64)
    replica = np.empty(n, np.int32)
    times = np.empty((3, n))
    counts = np.empty((4, n), np.int32)
    j = 0
    for k in range(len(states)):
        s = states[k]
        taken = np.ones(s.n_slots, np.bool_)
        for i in range(s.n_free):
            taken[s.free[i]] = False
        for slot in range(s.n_slots):
            if taken[slot]:
                ids[j] = s.r_id[slot]
                replica[j] = k
                times[0, j] = s.r_arrival[slot]
                times[1, j] = s.r_first_scheduled[slot]
                times[2, j] = s.r_first_token[slot]
                counts[0, j] = s.r_prompt[slot]
                counts[1, j] = s.r_done[slot]
                counts[2, j] = s.r_cached[slot]
                counts[3, j] = s.r_preempt[slot]
                j += 1
    return ids, replica, times, counts


@kernel
def _totals(states):
    steps = 0
    preempted = 0
    last = 0.0
    for k in range(len(states)):
        steps += states[k].n_steps
        preempted += states[k].n_preempted
        last = max(last, states[k].t_gauge)
    return steps, preempted, last


@kernel
def _set_multi_step(states, on):
    for k in range(len(states)):
        states[k].multi_step = on


@kernel
def _recorder_arrays(rec):
    return (
        rec.width,
        rec.running,
        rec.waiting,
        rec.kv_used,
        rec.full,
        rec.covered,
        rec.busy,
        rec.steps,
        rec.decode_tokens,
        rec.prefill_tokens,
        rec.itl_hist,
        rec.parts,
    )


@kernel
def _itl_totals(rec):
    return rec.itl_sum, rec.itl_count, rec.itl_max


REQUEST_COLUMNS = (
    "id",
    "replica",
    "arrival_s",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "preemptions",
    "status",
)
_SERIES = ("running", "waiting", "kv_used", "kv_full", "time_s", "busy_s", "steps", "decode_tokens", "prefill_tokens")


class EngineGroup:
    """N replicas of one pool, all of one scheduler type, sharing one recorder.

    ``states`` are compiled states that were made with ``recorder``, replica numbers 0…N−1.
    """

    def __init__(self, states, recorder):
        self._recorder = recorder
        self._states = _first(states[0])
        for s in states[1:]:
            _append(self._states, s)
        self.n = len(states)
        self._keys = np.full(self.n, np.inf)
        self._ids = np.empty(_WATCH_ROOM, np.int64)
        self._times = np.empty(_WATCH_ROOM)
        self._replicas = np.empty(_WATCH_ROOM, np.int32)
        self._gauge_rows = np.empty((5, self.n))

    def submit(self, replica, columns, spans, lo, hi, first_id, watch=0):
        """Rows [lo, hi) of a block to one replica. Their arrival times must not precede what the replica already has."""
        _submit(self._states, self._keys, replica, lo, hi, first_id, watch, columns, spans)

    def submit_routed(self, replica_of, columns, spans, first_id, watch=0):
        """A whole block, each row to its replica (i4 array)."""
        _submit_routed(self._states, self._keys, replica_of, first_id, watch, columns, spans)

    def advance(self, until, watched):
        """Run to ``until``; with ``watched`` stop at the first watched outcome (True)."""
        if watched:
            return _advance_watched(self._states, self._keys, until)
        _advance_all(self._states, self._keys, until)
        return False

    def next_event(self):
        """A time before which nothing that anyone could see happens here."""
        return float(self._keys.min())

    def take_watched(self):
        """Watched outcomes since the last call: (ids, times, replicas), views valid until the next call."""
        n = _take_watched(self._recorder, self._ids, self._times, self._replicas)
        return self._ids[:n], self._times[:n], self._replicas[:n]

    @property
    def outstanding(self):
        """i8[n], live: requests submitted to each replica and not yet finished."""
        return _outstanding(self._recorder)

    @property
    def finished(self):
        """Rows in the recorder, not yet drained."""
        return _finished(self._recorder)

    def drain(self):
        """Finished rows since the last drain, as a dict of columns (see `REQUEST_COLUMNS`)."""
        return dict(zip(REQUEST_COLUMNS, _drain(self._recorder), strict=True))

    def gauges(self):
        """f8[5, n]: running, waiting, kv_used, kv_total, clock of each replica, as of its last decision."""
        _gauges(self._states, self._gauge_rows)
        return self._gauge_rows

    def in_flight(self):
        """Columns of the requests that have not left, as `drain`, status 3."""
        ids, replica, times, counts = _in_flight(self._states)
        nan = np.full(ids.size, np.nan)
        values = (ids, replica, times[0], times[1], times[2], nan, counts[0], counts[1], counts[2], counts[3])
        return dict(zip(REQUEST_COLUMNS, (*values, np.full(ids.size, 3, np.int8)), strict=True))

    def totals(self):
        """Steps, preemptions, the last simulated time, and the sums of inter-token gaps."""
        steps, preempted, last = _totals(self._states)
        itl_sum, itl_count, itl_max = _itl_totals(self._recorder)
        return {
            "steps": int(steps),
            "preemptions": int(preempted),
            "last_s": float(last),
            "itl_sum_s": float(itl_sum),
            "itl_count": float(itl_count),
            "itl_max_s": float(itl_max),
        }

    def series(self):
        """Time series [replica, bin] (integrals; all brought to the widest replica's bins), ITL histogram, parts."""
        arrays = _recorder_arrays(self._recorder)
        width, rows = arrays[0], [a.copy() for a in arrays[1:10]]
        top = width.max()
        for i in range(self.n):
            w = width[i]
            while w < top:
                for a in rows:
                    half = a.shape[1] // 2
                    a[i, :half] = a[i, : 2 * half].reshape(half, 2).sum(axis=1)
                    a[i, half:] = 0.0
                w *= 2
        return dict(zip(_SERIES, rows, strict=True)) | {"width_s": float(top)}, arrays[10].copy(), arrays[11].copy()

    def set_multi_step(self, on):
        """Switch the one-stroke advance of unchanged decode steps (for tests: the result is the same)."""
        _set_multi_step(self._states, on)
