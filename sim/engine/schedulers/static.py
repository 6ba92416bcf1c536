"""Request-level batching as before continuous batching: a batch is formed, runs until its last member is done, then the next is formed.

With ``max_queue_delay`` this is the dynamic batcher of Triton (`max_batch_size`, `max_queue_delay_microseconds` of its model configuration);
without it, FasterTransformer fed by a client that batches. Padding: all rows of a batch compute until the longest output ends.
"""

from typing import Literal

import numpy as np
from pydantic import Field

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
from sim.cost.step import StepCost
from sim.engine.contract import BATCH, NOTHING, EngineParams, Scheduler, Site, clear_place, next_place
from sim.engine.queue import queue_drop, queue_head, queue_pop, queue_push
from sim.engine.recorder import Recorder
from sim.engine.state import EngineState, emit, first_scheduled, free_slot, init_engine, record_end
from sim.engine.withdraw import LEFT, STAYS, withdraw  # noqa: F401 - declares it
from sim.jit import f8, i4s, i8, implement, inline, kernel, new, struct
from sim.ledger import FAILED, FINISHED
from sim.registry import register
from sim.units import Seconds


@struct(viewed=True)
class StaticState(EngineState):
    """A FIFO queue and the one batch that runs."""

    w_slot: i4s
    w_head: i8
    w_len: i8
    max_batch: i8
    delay: f8
    early: i8  # 1: a finished row is answered at once, 0: with the batch
    batch: i4s
    n_batch: i8
    steps_left: i8  # decode steps until the longest output ends
    steps_done: i8
    alive: i8  # rows not yet answered


def _enqueue(s, slot):
    queue_push(s, slot)
    s.g_waiting = s.w_len


@inline
def _plan_prefill(s):
    p = next_place(s)
    clear_place(s, p)
    f = s.q_feat[p]
    n = min(s.w_len, s.max_batch)
    longest = 0
    for i in range(n):
        slot = queue_pop(s)
        s.batch[i] = slot
        first_scheduled(s, slot)
        c = s.r_prompt[slot]
        f[PREFILL_TOKENS] += c
        f[PREFILL_WORK] += 0.5 * c * c
        f[PREFILL_CTX] += c
        longest = max(longest, s.r_output[slot])
    f[TOKENS] = f[PREFILL_TOKENS]
    f[ROWS] = f[PREFILL_ROWS] = f[SAMPLED] = n
    s.n_batch = n
    s.alive = n
    s.q_rows[p] = n
    s.steps_left = longest
    s.steps_done = 0
    s.g_running = n
    s.g_waiting = s.w_len
    return BATCH


def _plan(s):
    if s.n_batch == 0:
        if s.w_len == 0:
            return NOTHING
        due = s.r_arrival[queue_head(s)] + s.delay
        if s.w_len < s.max_batch and s.now < due:
            s.wake = due
            return NOTHING
        return _plan_prefill(s)
    p = next_place(s)
    f = s.q_feat[p]
    clear_place(s, p)
    n = s.n_batch
    s.q_rows[p] = n
    f[TOKENS] = f[ROWS] = f[DECODE_ROWS] = f[DECODE_TOKENS] = f[SAMPLED] = n
    for i in range(n):
        f[DECODE_CTX] += s.r_prompt[s.batch[i]] + s.steps_done  # as many outputs, the newest of which is computed now
    return BATCH


def _complete(s, p):
    s.steps_left -= 1
    s.steps_done += 1
    for i in range(s.n_batch):
        slot = s.batch[i]
        if s.r_done[slot] < s.r_output[slot]:
            emit(s, slot, s.now, 1)
            if s.r_done[slot] == s.r_output[slot] and s.early == 1:
                record_end(s, slot, s.now, FINISHED)
                s.alive -= 1
    if s.steps_left == 0:
        for i in range(s.n_batch):
            slot = s.batch[i]
            if s.early == 0:
                record_end(s, slot, s.now, FINISHED)
            free_slot(s, slot)
        s.n_batch = 0
        s.alive = 0
    s.g_running = s.alive


def _steady_steps(s):
    if s.n_batch == 0 or s.steps_done < 2:  # the last batch must have been a decode
        return 0
    k = s.steps_left - 1
    for i in range(s.n_batch):
        slot = s.batch[i]
        left = s.r_output[slot] - s.r_done[slot]
        if left <= 0:
            return 0
        k = min(k, left - 1)
    return k


def _apply_steady(s, k):
    s.steps_left -= k
    s.steps_done += k
    for i in range(s.n_batch):
        slot = s.batch[i]
        s.r_done[slot] += k
        s.r_last_token[slot] = s.now


def _grow(s, n):
    pass


def _withdraw(s, slot):
    """Out of the queue; a batch that runs is computed to its end for all its rows."""
    if not queue_drop(s, slot):
        return STAYS
    record_end(s, slot, s.now, FAILED)
    free_slot(s, slot)
    s.g_waiting = s.w_len
    return LEFT


implement(
    StaticState,
    withdraw=_withdraw,
    enqueue=_enqueue,
    plan=_plan,
    complete=_complete,
    steady_steps=_steady_steps,
    apply_steady=_apply_steady,
    grow=_grow,
)


@kernel
def _new_state(replica, rec, cost, max_batch, delay, early):
    s = new(StaticState)
    init_engine(s, replica, rec, cost, 1, max_batch, 1, 64)
    s.w_slot = np.empty(64, np.int32)
    s.w_head = 0
    s.w_len = 0
    s.max_batch = max_batch
    s.delay = delay
    s.early = early
    s.batch = np.empty(max_batch, np.int32)
    s.n_batch = 0
    s.steps_left = 0
    s.steps_done = 0
    s.alive = 0
    return s


class StaticParams(EngineParams):
    """Settings of request-level batching."""

    max_batch_size: int = Field(8, ge=1, le=65536, description="most requests in one batch")
    max_queue_delay: Seconds = Field(0.0, description="how long the first request of a batch may wait for others")
    response: Literal["with_batch", "when_done"] = Field("with_batch", description="when a finished row is answered")


@register("engine")
class Static(Scheduler[StaticParams]):
    """Static and dynamic request-level batching, the baseline that continuous batching is explained by."""

    name = "static"
    Params = StaticParams
    version = "1"
    models = (
        "Triton Inference Server dynamic batcher (max_batch_size, max_queue_delay_microseconds); FasterTransformer fixed batches"
    )

    @classmethod
    def resolve(cls, params: StaticParams, site: Site) -> StaticParams:
        """Nothing is left open."""
        return params

    @classmethod
    def new_state(
        cls, params: StaticParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> EngineState:
        """One replica; memory is not modelled, as a static server sizes its buffers for the largest batch."""
        early = 1 if params.response == "when_done" else 0
        return _new_state(replica, recorder, cost, params.max_batch_size, float(params.max_queue_delay), early)

    @classmethod
    def max_batch_tokens(cls, params: StaticParams, site: Site) -> int:
        """The longest prefill: every row at the model's longest context."""
        return min(params.max_batch_size * (site.model.max_position if site.model else 4096), 65536)
