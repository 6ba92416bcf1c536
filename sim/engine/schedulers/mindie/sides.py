# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Roles P and D of a disaggregated deployment (`sim.engine.hand_over`; ``policy/pdds_policy.cpp``, ``Scheduler::ScheduleTransfer``).

P computes prompts only. A sequence whose first token is out waits in ``transferringMap`` with its blocks until D has pulled them. D decodes
only: each turn it gives waiting requests blocks for their prompt and first token, leaving 5 % of all and one token per row of a full batch
free, and has their keys and values pulled; then they run. A request that D would compute again goes back to be prefilled once more.
Upstream's thread looks at transfers every millisecond, here it does between two batches.
"""

import numpy as np

from sim.engine.hand_over import tell_at
from sim.engine.outline import outlined
from sim.engine.rows import without
from sim.engine.schedulers.mindie.blocks import allocate, blocks_for, free_row
from sim.engine.schedulers.mindie.prefill import more_run, turn_away
from sim.engine.schedulers.mindie.state import CAP, CHUNK, HOLD, LIMIT, PROMPT, ROLE_P, ROW, MindieState
from sim.engine.state import INF, first_scheduled, free_slot, note_allocated, record_end
from sim.jit import inline
from sim.ledger import FAILED, FINISHED


def release_kept_mindie(s, slot, t):
    """See `sim.engine.hand_over`."""
    s.told[slot] = t
    tell_at(s, t)


def kv_arrived_mindie(s, slot, t, delivered):
    """See `sim.engine.hand_over`; the client has what P sampled."""
    s.told[slot] = t
    tell_at(s, t)


@inline
def give_blocks_back(s, slot):
    """All blocks of a request are free."""
    if s.caching:
        free_row(s, s.x[slot, ROW])
    else:
        s.free_blocks += s.x[slot, CAP] // s.block_size


def drop_remote_mindie(s, slot, t):
    """See `sim.engine.hand_over`: out of ``transferringMap``, its blocks are free. What MindIE does is not published."""
    s.n_pull = without(s.pull, s.n_pull, slot)
    record_end(s, slot, t, FAILED)
    give_blocks_back(s, slot)
    free_slot(s, slot)
    s.pure = -1.0
    tell_at(s, t)


@inline
def transfer(s, slot):
    """The request enters ``transferringMap``: it holds its blocks and waits for its keys and values to be moved."""
    s.told[slot] = INF
    s.pull[s.n_pull] = slot
    s.n_pull += 1


@outlined(MindieState)
def settle(s):
    """Called when ``s.horizon`` has passed: what has been pulled leaves P (``ReleaseKvPulledBlocks``), or runs on D."""
    s.horizon = INF
    s.pure = -1.0
    n = 0
    for i in range(s.n_pull):
        slot = s.pull[i]
        if s.told[slot] > s.now:
            tell_at(s, s.told[slot])
            s.pull[n] = slot
            n += 1
        elif s.role == ROLE_P:
            give_blocks_back(s, slot)
            free_slot(s, slot)
        elif s.r_done[slot] >= s.x[slot, LIMIT]:
            record_end(s, slot, s.now, FINISHED)
            give_blocks_back(s, slot)
            free_slot(s, slot)
        else:
            more_run(s, 1)
            s.run[s.n_run] = slot
            s.n_run += 1
    s.n_pull = n
    s.g_running = s.live - s.in_len - s.g_waiting
    s.g_kv_used = float(s.total - s.free_blocks)
    return 0


@outlined(MindieState)
def take_remote(s):
    """D gives blocks to waiting requests, first come first served (``KVTransferSchedulePolicy::PickPullSeqGroup``)."""
    x = s.x
    s.remote_more = False
    budget = s.free_blocks * s.block_size - s.mb
    n = min(s.w_len, 2 * s.mpb)
    used = 0
    rows = 0
    at = 0
    s.g_blocked = budget <= 0
    while at < n and not s.g_blocked:
        slot = s.w_slot[(s.w_head + at) % s.w_slot.size]
        tokens = np.int64(s.r_prompt[slot]) + 1  # the token that P has sampled counts as prompt
        need = blocks_for(s, tokens)
        if need > s.total:
            turn_away(s, slot, FAILED)  # the real engine stops with an error
            at += 1
            continue
        if s.free_blocks < s.reserve or need > s.free_blocks or used + tokens > budget:
            s.g_blocked = True
            break
        if rows == s.mpb:
            break
        allocate(s, slot, tokens)
        at += 1
        rows += 1
        used += tokens
        x[slot, PROMPT] = 0
        x[slot, CHUNK] = 1
        x[slot, HOLD] = 1 + s.gamma if s.gamma > 0 else 0
        first_scheduled(s, slot)
        transfer(s, slot)
        note_allocated(s, slot, s.now, tokens - 1)
    s.w_head = (s.w_head + at) % s.w_slot.size
    s.w_len -= at
    s.remote_more = s.w_len > 0 and not s.g_blocked  # the next turn takes more
    return rows
