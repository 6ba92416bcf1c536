# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Blocks of a request: may it have more, take them, give them back, preempt, swap (``core/block_manager_v1.py``, ``block_manager_v2.py``)."""

from sim.engine.schedulers.vllm_v0.state import (
    BLOCKS,
    COMP,
    ENDED,
    IGNORED,
    LEN,
    PREFILL,
    RECOMPUTE,
    RUNNING,
    STATUS,
    SWAP_IN,
    SWAP_OUT,
    SWAPPED,
    WAITING,
)
from sim.engine.state import free_slot, log_event, record_end
from sim.jit import inline, kernel
from sim.ledger import FAILED, REJECTED

OK, LATER, NEVER = 0, 1, 2  # AllocStatus


@inline
def can_allocate(s, slot):
    """Whether the whole prompt fits above the watermark."""
    need = (s.r_x[slot, LEN] + s.block_size - 1) // s.block_size
    if s.gpu_total - need < s.watermark:
        return NEVER
    return OK if s.gpu_free - need >= s.watermark else LATER


@inline
def touched(s, slot):
    """Blocks that the manager wants to see free before a step of a running request, whether it takes them or not.

    v1: one (``can_append_slots``). v2: those that the next token and the lookahead slots lie in
    (``block_table.get_num_blocks_touched_by_append_slots``).
    """
    x = s.r_x
    if not s.manager_v2:
        return 1
    size = s.block_size
    if x[slot, PREFILL] == 1:  # its blocks are all there
        return 1 if x[slot, LEN] % size > 0 else 0
    first = size - (x[slot, LEN] - 1) % size
    return 1 + (1 + s.lookahead - first + size - 1) // size


@inline
def append_slots(s, slot):
    """Blocks for the token to be computed and the lookahead slots; `touched` has seen to it that they are there."""
    x = s.r_x
    if x[slot, PREFILL] == 1:
        return
    short = x[slot, LEN] + s.lookahead - x[slot, BLOCKS] * s.block_size
    if short > 0:
        n = (short + s.block_size - 1) // s.block_size
        x[slot, BLOCKS] += n
        s.gpu_free -= n


@inline
def release(s, slot):
    """Give the blocks of a running request back."""
    s.gpu_free += s.r_x[slot, BLOCKS]
    s.r_x[slot, BLOCKS] = 0
    s.stuck = False


@kernel
def ignore(s, slot):
    """It can never fit (``FINISHED_IGNORED``): turned away, or ended where it stands if it had run before."""
    x = s.r_x
    if x[slot, STATUS] == SWAPPED:
        s.host_free += x[slot, BLOCKS]
    log_event(s, IGNORED, s.r_id[slot], s.r_done[slot])
    record_end(s, slot, s.now, REJECTED if s.r_done[slot] == 0 else FAILED)
    free_slot(s, slot)


@inline
def can_swap_in(s, slot):
    """Whether its blocks and those of its next token fit above the watermark."""
    x = s.r_x
    if s.manager_v2:
        full = x[slot, LEN] if x[slot, PREFILL] == 1 else x[slot, LEN] - 1
        need = full // s.block_size + touched(s, slot)
    else:
        need = x[slot, BLOCKS] + 1
    if s.never_swaps and s.gpu_total < need:
        return NEVER
    return OK if s.gpu_free - need >= s.watermark else LATER


@inline
def swap_in(s, slot):
    """Back to the accelerator."""
    x = s.r_x
    n = x[slot, BLOCKS]
    s.host_free += n
    s.gpu_free -= n
    s.copied += n
    x[slot, STATUS] = RUNNING
    append_slots(s, slot)
    log_event(s, SWAP_IN, s.r_id[slot], n)


@kernel
def preempt(s, slot):
    """Take its blocks away (``_preempt``). True: it is to be computed again; the caller puts it into the queue.

    Where the host has no room, upstream's engine dies of it; here the request fails.
    """
    x = s.r_x
    s.stuck = False
    n = x[slot, BLOCKS]
    s.gpu_free += n
    s.r_preempt[slot] += 1
    s.n_preempted += 1
    s.preempted = True
    if not s.swap:
        x[slot, BLOCKS] = 0
        x[slot, STATUS] = WAITING
        x[slot, PREFILL] = 1
        x[slot, COMP] = 0
        log_event(s, RECOMPUTE, s.r_id[slot], n)
        return True
    full = x[slot, LEN] if x[slot, PREFILL] == 1 else x[slot, LEN] - 1
    need = full // s.block_size + 1 if s.manager_v2 else n
    if need > s.host_free or n > s.host_free:
        x[slot, BLOCKS] = 0
        x[slot, STATUS] = WAITING
        ignore(s, slot)
        return False
    s.host_free -= n
    s.copied += n
    x[slot, STATUS] = SWAPPED
    s.swapped[s.n_swapped] = slot
    s.n_swapped += 1
    log_event(s, SWAP_OUT, s.r_id[slot], n)
    return False


@inline
def drop_victim(s, slot):
    """A victim leaves the running requests: freed if it had ended without the scheduler's knowledge, else preempted."""
    if s.r_x[slot, STATUS] == ENDED:
        s.n_ended -= 1
        release(s, slot)
        free_slot(s, slot)
    elif preempt(s, slot):
        s.victims[s.n_victims] = slot
        s.n_victims += 1
