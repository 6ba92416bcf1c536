"""The replicas of one pool as the fleet sees them: submit, advance, look. One compiled call each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.cost.step import copy_cost, cost_data, shared_data
from sim.engine.borrow import lend, view
from sim.engine.loop import accept, make_room, outlook
from sim.engine.order import advance
from sim.engine.recorder import recorder_view
from sim.engine.rows import copy_row, new_rows
from sim.engine.seam import F8, I4, I8, Columns, Rows, Spans, Watched
from sim.engine.token_times import record_tokens, token_times
from sim.jit import JIT, kernel, list_of
from sim.ledger import ENGINE_COLUMNS, GONE, IN_FLIGHT, SERIES, series_of

if TYPE_CHECKING:
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState
    from sim.engine.tiers.counts import TiersUse
    from sim.ledger import Series


@kernel
def _first(s):
    return list_of(s)


@kernel
def _append(states, s):
    states.append(s)


@kernel
def _make_room(states, replica, spans):
    make_room(states[replica], spans)


@kernel
def _submit(states, keys, replica_of, lo, hi, first_id, watch, columns, spans):
    """Rows [lo, hi) to the replicas named in ``replica_of`` (of length 1: all to that one). Returns the first row without room, or hi.

    A negative number is somebody else's row.
    """
    one = replica_of.size == 1
    columns, spans = lend(columns), lend(spans)
    for i in range(lo, hi):
        k = replica_of[0 if one else i]
        if k < 0:
            continue
        if not accept(view(states[k]), i, first_id, watch, columns, spans):
            return i
        keys[k] = min(keys[k], columns[0][i])
    return hi


@kernel
def _clear_watched(rec):
    rec.n_watched = 0


@kernel
def _outcomes(recorders, times, rows):
    """Move the watched outcomes of all pools out, if there is room for all; returns how many there are."""
    n = 0
    for g in range(len(recorders)):
        n += recorders[g].n_watched
    if n > times.size:
        return n
    n = 0
    for g in range(len(recorders)):
        rec = view(recorders[g])
        for i in range(rec.n_watched):
            times[n] = rec.watched_time[i]
            rows[n, 0] = rec.watched_id[i]
            rows[n, 1] = g
            rows[n, 2] = rec.watched_replica[i]
            rows[n, 3] = rec.watched_kind[i]
            rows[n, 4] = rec.watched_slot[i]
            rows[n, 5] = rec.watched_value[i]
            n += 1
        rec.n_watched = 0
    return n


@kernel
def _look_ahead(states, keys, k):
    keys[k] = outlook(states[k])


@kernel
def _drained(rec):
    rec.promised -= rec.n
    rec.n = 0


@kernel
def pools_view(rec):
    return rec.pool_use, rec.pool_series, rec.width


def widest(series: NDArray[np.float64], width: F8) -> tuple[NDArray[np.float64], float]:
    """f8[replica, bin, figure] sums over bins of f8[replica] ``width``: all brought to the widest, and that."""
    series, top, half = series.copy(), float(width.max()), series.shape[1] // 2
    for i, w in enumerate(width):
        while w < top:
            series[i, :half] = series[i, : 2 * half].reshape(half, 2, -1).sum(axis=1)
            series[i, half:] = 0.0
            w *= 2
    return series, top


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
        s = states[k]
        n += s.live
        idle = np.zeros(s.n_slots, np.int32)
        for i in range(s.n_free):
            idle[s.free[i]] = 1
        for slot in range(s.n_slots):
            if idle[slot] == 0 and s.r_watch[slot] & GONE:
                n -= 1
    rows = new_rows(n)
    j = 0
    for k in range(len(states)):
        s = states[k]
        idle = np.zeros(s.n_slots, np.int32)
        for i in range(s.n_free):
            idle[s.free[i]] = 1
        for slot in range(s.n_slots):
            if idle[slot] == 0 and not s.r_watch[slot] & GONE:
                copy_row(rows, j, s, slot, np.nan, IN_FLIGHT)
                j += 1
    return rows


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
def _own_cost(states):
    """The first state gets a cost of its own, which is returned."""
    s = states[0]
    s.cost = copy_cost(s.cost)
    return s.cost


@kernel
def _set_data(states, keys, data):
    """Other step times from now on: what was foreseen of the first engine beyond the step under way no longer holds."""
    s = states[0]
    s.cost.data = data
    s.hint = 0
    keys[0] = outlook(s)


@kernel
def _set_front(states, serial):
    for k in range(len(states)):
        states[k].front_serial = serial


def state_type(group: EngineGroup) -> type:
    """The struct of a group's states."""
    states = group._states
    if JIT:
        import numba

        found: type = numba.typeof(states).item_type
        return found
    return type(states[0])


class EngineGroup:
    """N replicas of one pool, all of one scheduler type, sharing one recorder.

    ``states`` are compiled states that were made with ``recorder``, replica numbers 0…N−1. ``columns`` of a block are the tuple (arrival f8,
    prompt i4, output i4, limit i4, priority i4, lora i4, out_content i8), ``spans`` the tuple (offsets i8[n+1], id, start, length i8).
    """

    ranks: int = 1
    """Schedulers of one replica; see `sim.fleet.ranks`."""

    def __init__(self, states: Sequence[EngineState], recorder: Recorder) -> None:
        self._recorder = recorder
        self._states = _first(states[0])
        for s in states[1:]:
            _append(self._states, s)
        self.n = len(states)
        self._keys = np.full(self.n, np.inf)
        self._one = np.zeros(1, np.int32)
        self._data: dict[int, F8] = {}
        self._gauge_rows: F8 = np.empty((5, self.n))
        view = recorder_view(recorder)
        self.outstanding: I8 = view.outstanding
        """i8[n], live: requests submitted to each replica and not yet finished."""
        self.parts: F8 = view.parts
        """f8[n, part], live: seconds of the steps begun so far, by part."""

    def submit(self, replica: int, columns: Columns, spans: Spans, lo: int, hi: int, first_id: int, watch: int = 0) -> None:
        """Rows [lo, hi) of a block to one replica. Their arrival times must not precede what the replica already has."""
        self._one[0] = replica
        self._submit(self._one, columns, spans, lo, hi, first_id, watch)

    def submit_routed(self, replica_of: I4, columns: Columns, spans: Spans, first_id: int, watch: int = 0) -> None:
        """A whole block, each row to its replica (i4 array); negative: not for this group."""
        self._submit(replica_of, columns, spans, 0, columns[0].size, first_id, watch)

    def _submit(self, replica_of: I4, columns: Columns, spans: Spans, lo: int, hi: int, first_id: int, watch: int) -> None:
        while True:
            lo = _submit(self._states, self._keys, replica_of, lo, hi, first_id, watch, columns, spans)
            if lo >= hi:
                return
            self._grow(replica_of, spans, lo)

    def _grow(self, replica_of: I4, spans: Spans, row: int) -> None:
        """Room for at least this row where it is to go."""
        pieces = int(spans[0][row + 1] - spans[0][row]) if spans[1].size else 0
        _make_room(self._states, int(replica_of[row if replica_of.size > 1 else 0]), pieces)

    def advance(self, until: float, watched: bool) -> bool:
        """Run to ``until``; with ``watched`` stop at the first watched outcome (True)."""
        return bool(advance(self._states, None, self._keys, float(until), watched))

    def catch_up(self, now: float, replica: int | None = None) -> None:
        """Bring one replica (None: all) up to ``now``: lazy ones may be behind, as nothing watched happens there before."""
        self._keys[slice(None) if replica is None or self.ranks > 1 else replica] = -np.inf
        self.advance(now, False)

    def next_event(self) -> float:
        """A time before which nothing that anyone could see happens here."""
        return float(self._keys.min())

    def take_watched(self) -> Watched:
        """Watched outcomes since the last call: (ids, times, replicas)."""
        view = recorder_view(self._recorder)
        n = view.n_watched
        _clear_watched(self._recorder)
        ids, times, replicas = (a[:n].copy() for a in view.watched)
        return ids, times, replicas

    def take_outcomes(self) -> tuple[list[float], list[Sequence[int]]]:
        """The same with all that is known: list of times, list of [id, replica, kind, slot, value] (`sim.engine.state`: ENDED …)."""
        alone = _first(self._recorder)
        n = _outcomes(alone, np.empty(0), np.empty((0, 6), np.int64))
        times, rows = np.empty(n), np.empty((n, 6), np.int64)
        _outcomes(alone, times, rows)
        return times.tolist(), rows[:, [0, 2, 3, 4, 5]].tolist()

    def record_tokens(self) -> None:
        """Write down when each chunk of tokens came; every step is taken by itself."""
        self.set_multi_step(False)
        record_tokens(self._recorder)

    def token_times(self) -> tuple[I8, F8]:
        """What `record_tokens` wrote down so far: ids of requests and times."""
        ids, at = token_times(self._recorder)
        return ids, at

    def kv_kinds(self) -> list[tuple[str, int, str]]:
        """What shares the KV memory of a replica, where it is told apart: (name, size of the whole, unit)."""
        return []

    def tiers(self) -> TiersUse | None:
        """What the tiers behind the KV caches did so far (`sim.engine.tiers.counts.tiers_use`); None: there are none."""
        return None

    def settle(self, now: float, replica: int) -> None:
        """All that a replica does up to ``now`` is done (`sim.engine.crash`)."""
        self.catch_up(now, replica)

    def anew(self, first: int, ranks: int = 1) -> None:
        """The states ``first`` … ``first + ranks − 1`` are new (`sim.engine.crash`)."""
        for k in range(first, first + ranks):
            _look_ahead(self._states, self._keys, k)

    def renewed(self, replica: int, fresh: EngineState) -> None:
        """State ``fresh`` is about to take a replica's place (`sim.engine.crash`)."""

    @property
    def recorder(self) -> Recorder:
        """The recorder of the replicas."""
        return self._recorder

    @property
    def finished(self) -> int:
        """Rows in the recorder, not yet drained."""
        return int(recorder_view(self._recorder).n)

    def drain(self) -> Rows:
        """Finished rows since the last drain, as a dict of columns (`sim.ledger.COLUMNS`)."""
        view = recorder_view(self._recorder)
        columns = {name: a[: view.n].copy() for name, a in zip(ENGINE_COLUMNS, view.rows, strict=True)}
        _drained(self._recorder)
        return columns

    def gauges(self) -> F8:
        """f8[5, n]: running, waiting, kv_used, kv_total, clock of each replica, as of its last decision."""
        _gauges(self._states, self._gauge_rows)
        return self._gauge_rows

    def capacity(self) -> F8:
        """f8[n]: KV blocks (or tokens) of each replica."""
        found: F8 = self.gauges()[3].copy()
        return found

    def kv_peak(self) -> F8:
        """f8[n]: most KV blocks (or tokens) that each replica had in use at once."""
        found: F8 = recorder_view(self._recorder).kv_peak.copy()
        return found

    def pool_use(self) -> tuple[F8, F8, F8]:
        """Of pools within a replica: f8[n, pool, 3] used × time, most used, time waited for; f8[n, bin, pool] used × time; bin widths."""
        use, series, width = pools_view(self._recorder)
        return use.copy(), series.copy(), width.copy()

    def finished_since(self, row: int) -> tuple[I8, I4]:
        """Ids and replicas of the rows in the recorder from ``row`` on."""
        view = recorder_view(self._recorder)
        return view.rows[0][row : view.n].copy(), view.rows[1][row : view.n].copy()

    def in_flight(self) -> Rows:
        """Columns of the requests that have not left, as `drain`, status 3."""
        return dict(zip(ENGINE_COLUMNS, _in_flight(self._states), strict=True))

    def totals(self) -> dict[str, float]:
        """Steps, preemptions, the last simulated time, and the sums of inter-token gaps."""
        steps, preempted, last = _totals(self._states)
        view = recorder_view(self._recorder)
        return {
            "steps": int(steps),
            "preemptions": int(preempted),
            "last_s": float(last),
            "itl_sum_s": view.itl_sum,
            "itl_count": view.itl_count,
            "itl_max_s": view.itl_max,
            "tokens_max": view.tokens_max,
        }

    def series(self) -> tuple[Series, F8, F8]:
        """Time series (dict of [replica, bin] integrals; all brought to the widest replica's bins), ITL histogram, parts [replica, part]."""
        view = recorder_view(self._recorder)
        series, top = widest(view.series, view.width)
        named = {name: series[:, :, k] for k, name in enumerate(SERIES)}
        return series_of(named, top), view.itl_hist.copy(), view.parts.copy()

    def set_front(self, serial: float) -> None:
        """Each engine's API server takes ``serial`` seconds for a request before the engine gets it (`loop.accept`)."""
        _set_front(self._states, float(serial))

    def share_device(self, processes: int, now: float) -> None:
        """The one engine's steps from ``now`` on run on a device that ``processes`` processes share evenly, this one included."""
        self._keys.fill(-np.inf)  # it may be behind; nothing watched can happen before
        self.advance(np.nextafter(now, -np.inf), False)
        if not self._data:
            self._cost = _own_cost(self._states)
            self._data[1] = cost_data(self._cost)
        if processes not in self._data:
            _set_data(self._states, self._keys, self._data[1])
            self._data[processes] = shared_data(self._cost, processes)
        _set_data(self._states, self._keys, self._data[processes])

    def set_multi_step(self, on: bool) -> None:
        """Switch the one-stroke advance of unchanged decode steps (for tests: the result is the same)."""
        _set_multi_step(self._states, on)
