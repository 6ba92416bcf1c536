# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""What a fleet may do with the inside of an engine: look closely, hold memory, take a running request out and put it into another.

The functions below belong to the contract (`contract.py`) but are optional: a scheduler that has them attaches them with
``sim.jit.implement`` beside its other functions; asking another for them raises `NotModelledError`. They are compiled only where used.

``look(s, out)``
    Fill ``out`` (f8[len(LOOK)], zeroed) with the queue and memory of the engine as it would report them at its last decision.
``list_running(s, out)``
    Slots of the running requests in the order of the batch, into ``out``; returns how many.
``resident_tokens(s, slot)``
    Tokens of a request whose KV is in memory.
``hold(s, blocks, slots)``
    Take ``blocks`` KV blocks for requests to come, if they are free (watermark respected) and ``slots`` more may run; True if so.
``unhold(s, blocks)``
    Give them back.
``leave(s, slot)``
    A running request that is in no batch in flight leaves the batch, its blocks are freed.
``join(s, slot, blocks)``
    A request whose KV is in ``blocks`` held blocks joins the batch, to decode on; False if the batch is full.
"""

from typing import TypeAlias

import numpy as np

from sim.engine.group import EngineGroup, state_type
from sim.engine.loop import make_room
from sim.engine.rows import Passenger as Columns
from sim.engine.rows import put_passenger, take_passenger
from sim.engine.seam import F8, I8
from sim.engine.state import EngineState, record_gauges
from sim.errors import NotModelledError
from sim.jit import _METHODS, generic, inline, kernel
from sim.ledger import (
    LOOK,
    LOOK_DECODES,
    LOOK_FIRST_WAITING_BLOCKS,
    LOOK_PREEMPTED,
    LOOK_PREFILL_TOKENS,
    LOOK_RUNNING,
    LOOK_SEEN_UNTIL,
    LOOK_TOTAL_BLOCKS,
    LOOK_USED_BLOCKS,
    LOOK_WAITING,
    LOOK_WAITING_BLOCKS,
    LOOK_WAITING_TOKENS,
)

Passenger: TypeAlias = tuple[Columns, I8]
"""A request between two engines: its columns by name, its spans."""


@generic
def look(s: EngineState, out: F8) -> None:
    """Queue and memory."""


@generic
def list_running(s: EngineState, out: F8) -> None:
    """Running requests."""


@generic
def resident_tokens(s: EngineState, slot: int) -> int:
    """Tokens with KV in memory."""
    raise NotImplementedError


@generic
def hold(s: EngineState, blocks: int, slots: int) -> None:
    """Take blocks for a request to come."""


@generic
def unhold(s: EngineState, blocks: int) -> None:
    """Give them back."""


@generic
def leave(s: EngineState, slot: int) -> None:
    """Out of the batch."""


@generic
def join(s: EngineState, slot: int, blocks: int) -> None:
    """Into the batch."""


@inline
def _seen_until(s):
    """Requests that came up to then have been taken in; the rest is in the inbox and in no counter."""
    return np.nextafter(s.r_sent[s.in_slot[s.in_head]], -np.inf) if s.in_len > 0 else np.inf


@kernel
def _look(states, out):
    for k in range(len(states)):
        look(states[k], out[k])
        out[k, LOOK_SEEN_UNTIL] = _seen_until(states[k])


@kernel
def _look_common(states, block, out):
    """For engines without a `look` of their own, from what all have: gauges, and requests that never ran as the queue."""
    for k in range(len(states)):
        s = states[k]
        out[k, LOOK_TOTAL_BLOCKS] = s.g_kv_total
        out[k, LOOK_USED_BLOCKS] = s.g_kv_used
        out[k, LOOK_RUNNING] = s.g_running
        out[k, LOOK_WAITING] = s.g_waiting
        out[k, LOOK_PREEMPTED] = s.n_preempted
        out[k, LOOK_SEEN_UNTIL] = _seen_until(s)
        idle = np.zeros(s.n_slots, np.int32)
        for i in range(s.n_free):
            idle[s.free[i]] = 1
        for i in range(s.in_len):
            idle[s.in_slot[(s.in_head + i) % s.in_slot.size]] = 1
        first = np.inf
        for slot in range(s.n_slots):
            if idle[slot] == 1:
                continue
            if np.isnan(s.r_first_scheduled[slot]):
                n = np.ceil(s.r_prompt[slot] / block)
                out[k, LOOK_WAITING_BLOCKS] += n
                out[k, LOOK_WAITING_TOKENS] += s.r_prompt[slot]
                if s.r_arrival[slot] < first:
                    first = s.r_arrival[slot]
                    out[k, LOOK_FIRST_WAITING_BLOCKS] = n
            elif s.r_done[slot] == 0:
                out[k, LOOK_PREFILL_TOKENS] += s.r_prompt[slot]
            else:
                out[k, LOOK_DECODES] += 1


@kernel
def _requests(states, k):
    """Running requests of one engine in the order of the batch: id, slot, tokens with KV, delivered, of the prompt; and arrival."""
    s = states[k]
    slots = np.empty(s.n_slots, np.int64)
    n = list_running(s, slots)
    out = np.empty((n, 5), np.int64)
    came = np.empty(n)
    for i in range(n):
        slot = slots[i]
        out[i, 0] = s.r_id[slot]
        out[i, 1] = slot
        out[i, 2] = resident_tokens(s, slot)
        out[i, 3] = s.r_done[slot]
        out[i, 4] = s.r_prompt[slot]
        came[i] = s.r_arrival[slot]
    return out, came


@kernel
def _boundary(states, k):
    s = states[k]
    return s.q_end[s.q_head] if s.q_len > 0 else s.now


@kernel
def _in_step(states, k):
    return states[k].q_len > 0


@kernel
def _depth(states):
    return states[0].depth


@kernel
def _hold(states, k, blocks, slots):
    return hold(states[k], blocks, slots)


@kernel
def _unhold(states, k, blocks, t):
    s = states[k]
    unhold(s, blocks)
    if s.q_len == 0 and not s.at_plan:
        s.wake = min(s.wake, t)


@kernel
def _take_out(states, k, slot, t):
    s = states[k]
    record_gauges(s, t)
    n = s.r_spans[slot]
    spans = np.empty((n, 3), np.int64)
    for j in range(n):
        spans[j, 0] = s.sp_id[s.r_span[slot] + j]
        spans[j, 1] = s.sp_start[s.r_span[slot] + j]
        spans[j, 2] = s.sp_len[s.r_span[slot] + j]
    passenger = take_passenger(s, slot)
    leave(s, slot)
    s.sp_live -= n
    s.r_spans[slot] = 0
    s.free[s.n_free] = slot
    s.n_free += 1
    s.live -= 1
    s.rec.outstanding[s.replica] -= 1
    s.rec.promised -= 1
    if s.q_len == 0 and not s.at_plan:
        s.wake = min(s.wake, t)
    return passenger, spans


@kernel
def _put_in(states, k, passenger, spans, blocks, t):
    """False, and nothing done, if the batch is full."""
    s = states[k]
    n = spans.shape[0]
    if s.n_free == 0 or s.rec.promised == s.rec.id.size or s.sp_n + n > s.sp_id.size:
        make_room(s, n)
    slot = s.free[s.n_free - 1]
    put_passenger(s, slot, passenger)
    s.r_arrival[slot] = passenger.r_sent
    if passenger.r_lora > 0:
        s.any_lora = True
    record_gauges(s, t)
    if not join(s, slot, blocks):
        return False
    s.n_free -= 1
    s.live += 1
    s.r_span[slot] = s.sp_n
    s.r_spans[slot] = n
    for j in range(n):
        s.sp_id[s.sp_n + j] = spans[j, 0]
        s.sp_start[s.sp_n + j] = spans[j, 1]
        s.sp_len[s.sp_n + j] = spans[j, 2]
    s.sp_n += n
    s.sp_live += n
    s.rec.outstanding[s.replica] += 1
    s.rec.promised += 1
    if s.q_len == 0 and not s.at_plan:
        s.wake = min(s.wake, t)
    return True


def _of_replicas(rows: F8, ranks: int) -> F8:
    """Rows of `LOOK` by replica from rows by rank: sums, the least of what concerns the head of a queue."""
    parts = rows.reshape(-1, ranks, len(LOOK))
    out: F8 = parts.sum(axis=1)
    heads = np.where(parts[:, :, LOOK_FIRST_WAITING_BLOCKS] > 0.0, parts[:, :, LOOK_FIRST_WAITING_BLOCKS], np.inf).min(axis=1)
    out[:, LOOK_FIRST_WAITING_BLOCKS] = np.where(np.isfinite(heads), heads, 0.0)
    out[:, LOOK_SEEN_UNTIL] = parts[:, :, LOOK_SEEN_UNTIL].min(axis=1)
    return out


class Inside:
    """The inside of the engines of one `sim.engine.group.EngineGroup`. ``block_size``: tokens per KV block, for engines without a ``look``."""

    def __init__(self, group: EngineGroup, block_size: int = 16) -> None:
        self._group = group
        self._kind = state_type(group)
        self._block = float(block_size)
        self._own_look = self._kind in _METHODS["look"]
        self._ranks = group.ranks
        self._rows: F8 = np.zeros((group.n * group.ranks, len(LOOK)))

    def movable(self, engine: str) -> None:
        """Raise `NotModelledError` where running requests cannot be taken out of the engine."""
        if self._ranks > 1:
            raise NotModelledError(
                "deployment.dp", self._ranks, "moving requests of engines with data-parallel ranks is not modelled", "1"
            )
        if self._kind not in _METHODS["join"]:
            raise NotModelledError(
                "router", engine, "migration of running requests is not modelled for this engine", "vllm, bladellm"
            )
        if _depth(self._group._states) > 1:
            raise NotModelledError(
                "router", engine, "migration with steps scheduled ahead is not modelled", "engine.async_scheduling=false, pp 1"
            )

    def sync(self, now: float) -> None:
        """Bring every engine up to ``now``: lazy ones may be behind. Nothing watched can happen before."""
        self._group.catch_up(now)

    def look(self) -> F8:
        """f8[n, len(LOOK)], valid until the next call."""
        self._rows.fill(0.0)
        if self._own_look:
            _look(self._group._states, self._rows)
        else:
            _look_common(self._group._states, self._block, self._rows)
        return self._rows if self._ranks == 1 else _of_replicas(self._rows, self._ranks)

    def requests(self, replica: int) -> tuple[I8, F8]:
        """i8[m, 5]: id, slot, tokens with KV, delivered, of the prompt of the running requests, in order of the batch; f8[m]: when they came."""
        if self._ranks > 1:
            raise NotModelledError("deployment.dp", self._ranks, "running requests of data-parallel ranks are not listed", "1")
        rows, came = _requests(self._group._states, replica)
        return rows, came

    def boundary(self, replica: int) -> float | None:
        """When the step under way ends; None between two steps."""
        states = self._group._states
        return float(_boundary(states, replica)) if _in_step(states, replica) else None

    def hold(self, replica: int, blocks: int, slots: int = 0) -> bool:
        """Take KV blocks for a request to come."""
        return bool(_hold(self._group._states, replica, blocks, slots))

    def unhold(self, replica: int, blocks: int, now: float) -> None:
        """Give held blocks back."""
        _unhold(self._group._states, replica, blocks, now)
        self._group._keys[replica] = -np.inf

    def take_out(self, replica: int, slot: int, now: float) -> Passenger:
        """A running request leaves, between two steps; returns what `put_in` wants."""
        passenger: Passenger = _take_out(self._group._states, replica, slot, now)
        self._group._keys[replica] = -np.inf
        return passenger

    def put_in(self, replica: int, passenger: Passenger, blocks: int, now: float) -> bool:
        """It joins another batch, its KV in ``blocks`` held blocks."""
        columns, spans = passenger
        if not _put_in(self._group._states, replica, columns, spans, blocks, now):
            return False
        self._group._keys[replica] = -np.inf
        return True
