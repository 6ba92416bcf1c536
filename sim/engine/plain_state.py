# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The compiled half of a scheduler in plain Python: it asks Python for each batch and does everything else.

Clock, inbox, completion, recording and step time are those of every engine (`loop`). Where a decision is due, `plan` calls Python by address
(a callback of ctypes, which takes the interpreter's lock); decision and state pass through arrays that both sides see.
"""

from math import inf

import numpy as np

from sim.cost.features import (
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    PREFILL_CTX,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    ROWS,
    SAMPLED,
    TOKENS,
)
from sim.engine.contract import BATCH, NOTHING, clear_place, next_place
from sim.engine.state import EngineState, emit, first_scheduled, free_slot, grown, init_engine, record_end
from sim.engine.withdraw import LEFT, STAYS, withdraw  # noqa: F401 - declares it
from sim.jit import JIT, b1, f8s, i4s, i8, implement, inline, kernel, new, struct
from sim.ledger import FAILED, FINISHED, REJECTED

MOST_ROWS = 4096
"""Requests in one batch."""
# places of `box`, which both sides read and write
NOW, BATCHED, FREE, RUNNING, WAITING, BLOCKED, WAKE, NEW, ENDED, EVICTED, VERSION = range(11)
N_BOX = 11


@struct
class PlainState(EngineState):
    """What the engine tells Python and is told. Memory in blocks of ``size`` tokens; ``total`` is infinite (−1) without a memory rule."""

    handle: i8  # of the Python half
    address: i8  # of the function to call
    together: b1  # the requests of a batch leave together
    size: i8
    total: i8
    computed: i4s  # [slot] tokens with KV
    held: i4s  # [slot] blocks
    came: i4s  # slots that have arrived since the last decision
    gone: i4s  # slots that have left since then
    b_slot: i4s  # the batch decided
    b_tok: i4s
    box: f8s


if JIT:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def _call(typingctx, address, handle):
        """Call the C function at ``address`` with an integer."""

        def codegen(context, builder, signature, values):
            function = ir.FunctionType(ir.IntType(64), [ir.IntType(64)]).as_pointer()
            return builder.call(builder.inttoptr(values[0], function), [values[1]])

        return types.int64(types.int64, types.int64), codegen

else:

    def _call(address, handle):
        from sim.engine.plain_half import decide

        return decide(handle)


def _enqueue(s, slot):
    # a request that could never be completed is turned away, as a server with a length limit does
    if s.total >= 0 and (s.r_prompt[slot] + s.r_output[slot] + s.size - 1) // s.size > s.total:
        record_end(s, slot, s.now, REJECTED)
        free_slot(s, slot)
        return
    s.computed[slot] = 0
    s.held[slot] = 0
    box = s.box
    s.came[int(box[NEW])] = slot
    box[NEW] += 1.0
    box[WAITING] += 1.0
    _tell_gauges(s)


@inline
def _tell_gauges(s):
    s.g_running = int(s.box[RUNNING])
    s.g_waiting = int(s.box[WAITING])
    s.g_blocked = s.box[BLOCKED] > 0.0
    if s.total >= 0:
        s.g_kv_used = s.total - s.box[FREE]


def _plan(s):
    box = s.box
    if box[RUNNING] == 0.0 and box[WAITING] == 0.0:
        return NOTHING
    box[NOW] = s.now
    box[WAKE] = inf
    box[BATCHED] = 0.0
    _call(s.address, s.handle)
    s.n_preempted += int(box[EVICTED])
    box[EVICTED] = 0.0
    s.wake = box[WAKE]
    _tell_gauges(s)
    rows = int(box[BATCHED])
    if rows == 0:
        return NOTHING
    p = next_place(s)
    clear_place(s, p)
    f = s.q_feat[p]
    for j in range(rows):
        slot = s.b_slot[j]
        n = s.b_tok[j]
        c = s.computed[slot]
        s.q_slot[p, j] = slot
        s.q_tok[p, j] = n
        first_scheduled(s, slot)
        if c >= s.r_prompt[slot] and n == 1:
            f[DECODE_ROWS] += 1.0
            f[DECODE_TOKENS] += 1.0
            f[DECODE_CTX] += c + 1.0
        else:
            f[PREFILL_ROWS] += 1.0
            f[PREFILL_TOKENS] += n
            f[PREFILL_CTX] += c + n
            f[PREFILL_WORK] += float(n) * (c + 0.5 * n)
        if c + n >= s.r_prompt[slot] + s.r_done[slot]:
            f[SAMPLED] += 1.0
    f[TOKENS] = f[DECODE_TOKENS] + f[PREFILL_TOKENS]
    f[ROWS] = rows
    s.q_rows[p] = rows
    return BATCH


@inline
def _leave(s, slot):
    """It has its last token: its memory is free, Python is told."""
    box = s.box
    record_end(s, slot, s.now, FINISHED)
    box[FREE] += s.held[slot]
    box[RUNNING] -= 1.0
    s.gone[int(box[ENDED])] = slot
    box[ENDED] += 1.0
    free_slot(s, slot)


def _complete(s, p):
    rows = s.q_rows[p]
    done = 0
    for j in range(rows):
        slot = s.q_slot[p, j]
        known = s.r_prompt[slot] + s.r_done[slot]
        s.computed[slot] += s.q_tok[p, j]
        if s.computed[slot] >= known and s.r_done[slot] < s.r_output[slot]:
            emit(s, slot, s.now, 1)
        if s.r_done[slot] == s.r_output[slot]:
            done += 1
            if not s.together:
                _leave(s, slot)
    if s.together and done == rows:
        for j in range(rows):
            _leave(s, s.q_slot[p, j])
    _tell_gauges(s)


def _steady_steps(s):
    return 0


def _apply_steady(s, k):
    pass


def _grow(s, n):
    s.computed = grown(s.computed, n)
    s.held = grown(s.held, n)
    s.came = grown(s.came, n)
    s.gone = grown(s.gone, n)
    s.box[VERSION] += 1.0


def _withdraw(s, slot):
    """Gone between two steps; who is in a batch ends with its next token."""
    box = s.box
    for k in range(s.q_len):
        p = (s.q_head + k) % s.q_rows.size
        for j in range(s.q_rows[p]):
            if s.q_slot[p, j] == slot:
                s.r_output[slot] = min(s.r_output[slot], s.r_done[slot] + 1)
                return STAYS
    if s.together and s.computed[slot] > 0:
        return STAYS
    new = int(box[NEW])
    for j in range(new):
        if s.came[j] == slot:  # Python has not seen it
            for i in range(j, new - 1):
                s.came[i] = s.came[i + 1]
            box[NEW] -= 1.0
            box[WAITING] -= 1.0
            break
    else:
        s.gone[int(box[ENDED])] = slot
        box[ENDED] += 1.0
        box[RUNNING if s.computed[slot] > 0 else WAITING] -= 1.0
        box[FREE] += s.held[slot]
        s.held[slot] = 0
    record_end(s, slot, s.now, FAILED)
    free_slot(s, slot)
    _tell_gauges(s)
    return LEFT


implement(
    PlainState,
    withdraw=_withdraw,
    enqueue=_enqueue,
    plan=_plan,
    complete=_complete,
    steady_steps=_steady_steps,
    apply_steady=_apply_steady,
    grow=_grow,
)


@kernel
def new_plain(replica, rec, cost, handle, address, together, size, total):
    """A state without requests. ``total``: blocks of ``size`` tokens, −1 without limit."""
    s = new(PlainState)
    slots = 64
    init_engine(s, replica, rec, cost, 1, MOST_ROWS, 1, slots)
    s.handle = handle
    s.address = address
    s.together = together
    s.size = size
    s.total = total
    s.computed = np.zeros(slots, np.int32)
    s.held = np.zeros(slots, np.int32)
    s.came = np.zeros(slots, np.int32)
    s.gone = np.zeros(slots, np.int32)
    s.b_slot = np.zeros(MOST_ROWS, np.int32)
    s.b_tok = np.zeros(MOST_ROWS, np.int32)
    s.box = np.zeros(N_BOX)
    s.box[FREE] = total if total >= 0 else inf
    if total >= 0:
        s.g_kv_total = total
    return s


@kernel
def shared_arrays(s):
    """What Python sees: columns of the requests, its own ones, what passes to and fro."""
    theirs = (s.r_id, s.r_arrival, s.r_prompt, s.r_max, s.r_priority, s.r_lora, s.r_done, s.r_output, s.r_preempt)
    return theirs, (s.computed, s.held, s.came, s.gone, s.b_slot, s.b_tok, s.box)


@kernel
def handle_of(s):
    """Number of the Python half."""
    return s.handle
