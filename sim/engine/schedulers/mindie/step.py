# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""One turn of the scheduler thread (``LlmEngine::SchedulerThreadEntry``, ``Scheduler::Schedule``) and what a finished batch means."""

import numpy as np

from sim.cost.features import COPIED_BLOCKS
from sim.engine.contract import BATCH, NOTHING, clear_place, next_place
from sim.engine.outline import outlined
from sim.engine.queue import queue_push
from sim.engine.schedulers.mindie.blocks import holdings
from sim.engine.schedulers.mindie.decode import decode_round, plain_decode
from sim.engine.schedulers.mindie.mixed import mixed_round
from sim.engine.schedulers.mindie.predict import adjust, learn, note_latency
from sim.engine.schedulers.mindie.prefill import prefill_round
from sim.engine.schedulers.mindie.sides import settle, take_remote, transfer
from sim.engine.schedulers.mindie.stage import choose, next_look
from sim.engine.schedulers.mindie.state import (
    CAP,
    CHUNK,
    COMP,
    DECODE,
    HASHED,
    HIT,
    HOLD,
    HOST,
    LATENCY,
    LIMIT,
    MIXED,
    PND,
    PREFILL,
    PROMPT,
    ROLE_D,
    ROLE_P,
    ROW,
    SEQ,
    TABLE,
    MindieState,
)
from sim.engine.schedulers.mindie.timeouts import end_late_requests, note_deadline
from sim.engine.state import emit, free_slot, record_end, record_gap
from sim.jit import inline
from sim.ledger import FINISHED, HAND_OVER, REJECTED, REMOTE_KV


def enqueue_mindie(s, slot):
    """A request arrives: too long a prompt is refused, the output is cut where the server cuts it."""
    prompt = np.int64(s.r_prompt[slot])
    elsewhere = s.role != PND and not s.r_watch[slot] & (HAND_OVER if s.role == ROLE_P else REMOTE_KV)
    if prompt > s.max_input or prompt >= s.max_seq or elsewhere:
        record_end(s, slot, s.now, REJECTED)
        free_slot(s, slot)
        return
    x = s.x
    x[slot, SEQ] = s.next_seq
    s.next_seq += 1
    x[slot, CAP] = 0
    x[slot, LIMIT] = max(min(np.int64(s.r_output[slot]), s.max_iter, s.max_seq - prompt), 1)
    x[slot, HOLD] = 0
    x[slot, TABLE] = 0
    x[slot, COMP] = 0
    x[slot, PROMPT] = 1
    x[slot, CHUNK] = 0
    x[slot, HIT] = 0
    x[slot, HOST] = 0
    x[slot, ROW] = -1
    x[slot, HASHED] = 0
    queue_push(s, slot)
    note_deadline(s, slot)
    s.remote_more = True
    s.g_waiting = s.w_len + s.n_swap


@outlined(MindieState)
def _hold_places(s, rows):
    """Speculation: placeholders for what this round may bring (``AddNextTokenPlaceHolder``), at most those of two rounds."""
    x = s.x
    width = 1 + s.gamma
    for i in range(s.n_run - rows, s.n_run):
        slot = s.run[i]
        if s.mode == MIXED and x[slot, PROMPT] == 1:
            if x[slot, COMP] + x[slot, CHUNK] < np.int64(s.r_prompt[slot]) + s.r_done[slot]:
                continue
        x[slot, HOLD] += min(width, 2 * width - x[slot, HOLD])
    return 0


@inline
def _note_before(s):
    b = s.before
    b[0] = s.w_len
    b[1] = s.n_run
    b[2] = s.n_swap
    b[3] = s.free_blocks
    b[4] = s.mb
    b[5] = s.mpb
    b[6] = s.empties


def plan_mindie(s):
    """One round, unless the thread sleeps."""
    if s.now >= s.deadline:
        end_late_requests(s)
    if s.now >= s.horizon:
        settle(s)
    if s.now < s.resume:
        s.wake = s.resume
        return NOTHING
    if s.given >= 0:
        if not s.joined:
            return NOTHING
    elif s.empty and next_look(s) == 0:
        return NOTHING
    if s.log_on:
        _note_before(s)
    p = next_place(s)
    clear_place(s, p)
    if s.role == ROLE_D:
        take_remote(s)
    free = s.free_blocks
    mode = s.given if s.given >= 0 else choose(s)
    preempted = s.n_preempted
    swapped = s.n_swap
    if mode == DECODE:
        rows = plain_decode(s, p)
        if rows < 0:
            rows = decode_round(s, p)
    elif mode == PREFILL:
        rows = prefill_round(s, p)
    else:
        rows = mixed_round(s, p)
    if s.role == ROLE_D and s.free_blocks > free:  # requests that ended are dequeued after `take_remote`
        s.remote_more = s.w_len > 0
    s.mode = mode
    s.q_rows[p] = rows
    if s.dynamic:
        adjust(s, mode, rows)
    s.g_waiting = s.w_len + s.n_swap
    s.g_running = s.live - s.in_len - s.g_waiting
    s.g_kv_used = float(s.total - s.free_blocks)
    if rows > 0 or s.n_preempted > preempted:
        s.n_rounds += 1
    if rows == 0 and s.n_swap > swapped:
        # a batch that only moves blocks to host memory: nothing to wait for but the thread's own sleep
        s.empty = False
        s.empties = 0
        s.resume = s.now + s.swap_time
        s.wake = s.resume
        return NOTHING
    if rows == 0:
        if not s.empty:
            s.empty = True
            s.poll_base = s.now
            s.poll = 0
        s.empties += 1
        s.wake = s.poll_base + (s.poll + 1) * s.ms
        return NOTHING
    s.empty = False
    s.empties = 0
    if s.gamma > 0:
        _hold_places(s, rows)
    return BATCH


@inline
def _finish(s, at, slot):
    """The request has ended; the scheduler learns of it when it dequeues it the next time. On P it waits until it has been pulled."""
    record_end(s, slot, s.now, FINISHED)
    if s.role == ROLE_P:
        transfer(s, slot)
    else:
        s.run[at] = holdings(s, slot)
        free_slot(s, slot)


@outlined(MindieState)
def _complete_any(s, rows):
    """Tokens of prompts, of mixed rounds and of speculation."""
    x = s.x
    pure = s.mode != PREFILL
    least = np.int64(1 << 30)
    room = np.int64(1 << 30)
    for at in range(s.n_run - rows, s.n_run):
        slot = s.run[at]
        decoding = s.mode == DECODE or (s.mode == MIXED and x[slot, PROMPT] == 0)
        if s.mode == MIXED and not decoding:
            pure = False
            x[slot, COMP] += x[slot, CHUNK]
            if x[slot, COMP] < np.int64(s.r_prompt[slot]) + s.r_done[slot]:
                continue
            x[slot, PROMPT] = 0
        tokens = 1
        if s.gamma > 0 and decoding:
            tokens += s.accepted[s.n_drawn]
            s.n_drawn = (s.n_drawn + 1) % s.accepted.size
        left = np.int64(x[slot, LIMIT]) - s.r_done[slot]
        tokens = min(tokens, left)
        if s.dynamic and decoding:
            note_latency(s, int((s.now - s.r_last_token[slot]) / s.ms + 1e-6))
        emit(s, slot, s.now, tokens)
        if s.gamma > 0:
            x[slot, HOLD] -= tokens
        if tokens == left:
            pure = False
            _finish(s, at, slot)
        else:
            least = min(least, left - tokens)
            if s.caching:
                tokens = np.int64(s.r_prompt[slot]) + s.r_done[slot]
                room = min(room, 0 if tokens > x[slot, CAP] else -tokens % s.block_size)
    if s.role == ROLE_P:
        s.n_run = 0
    s.least = least
    s.room = room
    s.pure = s.now if pure and rows == s.n_run and s.gamma == 0 else -1.0
    return 0


@inline
def _complete_plain(s, rows):
    """One token for each row of a decode."""
    run, done, last, x = s.run, s.r_done, s.r_last_token, s.x
    now = s.now
    least = np.int64(1 << 30)
    ended = False
    gap = other = 0.0  # the two latest different gaps and how many rows had them
    same = others = 0.0
    for at in range(s.n_run - rows, s.n_run):
        slot = run[at]
        waited = now - last[slot]
        if waited != gap:
            if others > 0.0 and waited != other:
                record_gap(s.rec, other, others)
                others = 0.0
            gap, other = waited, gap
            same, others = others, same
        same += 1.0
        last[slot] = now
        done[slot] += 1
        left = np.int64(x[slot, LIMIT]) - done[slot]
        if left == 0:
            ended = True
            _finish(s, at, slot)
        elif left < least:
            least = left
    if same > 0.0:
        record_gap(s.rec, gap, same)
    if others > 0.0:
        record_gap(s.rec, other, others)
    s.least = least
    s.pure = -1.0 if ended or rows != s.n_run else now


def complete_mindie(s, p):
    """The batch in place ``p`` is done: it is the last ``q_rows[p]`` entries of ``run``."""
    rows = s.q_rows[p]
    if s.mode == DECODE and s.gamma == 0 and not s.caching and not s.dynamic:
        _complete_plain(s, rows)
    else:
        _complete_any(s, rows)
    if s.q_feat[p, COPIED_BLOCKS] > 0.0:
        s.pure = -1.0  # the next round is shorter
    if s.policy == LATENCY:
        learn(s, int((s.now - s.q_start[p]) / s.ms + 1e-6))
    s.g_running = s.live - s.in_len - s.g_waiting
