# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Looking into a vLLM-like engine and moving its running requests: see `sim.engine.inside`.

Moved-in blocks carry no hash: what a request brings along is not found by others until it has been preempted and computed again.
"""

from sim.engine.inside import hold, join, leave, list_running, look, resident_tokens, unhold  # noqa: F401
from sim.engine.kv.blocks import give_back_blocks, take_blocks
from sim.engine.rows import without
from sim.engine.schedulers.vllm.seam import release
from sim.engine.schedulers.vllm.state import (
    CACHED,
    CAP,
    COMP,
    KNOWN,
    LAZY,
    LIMIT,
    N_X,
    NEVER,
    NEXT,
    ROW,
    RUNNING,
    STATUS,
    STOP,
    VllmState,
)
from sim.jit import implement
from sim.ledger import (
    LOOK_DECODES,
    LOOK_FIRST_WAITING_BLOCKS,
    LOOK_LAST_RUNNING_BLOCKS,
    LOOK_PREEMPTED,
    LOOK_PREFILL_TOKENS,
    LOOK_RUNNING,
    LOOK_TOTAL_BLOCKS,
    LOOK_UNALLOCATED_TOKENS,
    LOOK_USED_BLOCKS,
    LOOK_WAITING,
    LOOK_WAITING_BLOCKS,
    LOOK_WAITING_TOKENS,
)


def _look(s, out):
    x = s.r_x
    size = s.block_size
    out[LOOK_TOTAL_BLOCKS] = s.kv.total
    out[LOOK_USED_BLOCKS] = s.kv.total - s.kv.free
    out[LOOK_RUNNING] = s.n_run
    out[LOOK_WAITING] = s.wq.len + s.kvq.len
    out[LOOK_PREEMPTED] = s.n_preempted
    for part in range(2):
        q = s.kvq if part == 0 else s.wq
        for i in range(q.len):
            slot = q.slot[(q.head + i) % q.slot.size]
            tokens = x[slot, KNOWN] - x[slot, COMP]
            blocks = max((x[slot, KNOWN] + size - 1) // size - x[slot, CAP] // size, 0)
            if out[LOOK_WAITING_BLOCKS] == 0.0:
                out[LOOK_FIRST_WAITING_BLOCKS] = blocks
            out[LOOK_WAITING_BLOCKS] += blocks
            out[LOOK_WAITING_TOKENS] += tokens
    for i in range(s.n_run):
        slot = s.run[i]
        left = x[slot, KNOWN] - x[slot, COMP]
        if s.r_done[slot] > 0:
            out[LOOK_DECODES] += 1
        if left > 1 or s.r_done[slot] == 0:
            out[LOOK_PREFILL_TOKENS] += max(left, 0)
        out[LOOK_UNALLOCATED_TOKENS] += max(x[slot, KNOWN] - x[slot, CAP], 0)
    if s.n_run > 0:
        out[LOOK_LAST_RUNNING_BLOCKS] = x[s.run[s.n_run - 1], CAP] // size


def _list_running(s, out):
    for i in range(s.n_run):
        out[i] = s.run[i]
    return s.n_run


def _resident_tokens(s, slot):
    return s.r_x[slot, COMP]


def _hold(s, blocks, slots):
    if s.kv.free - blocks < s.watermark or s.n_run + slots > s.max_run:
        return False
    take_blocks(s.kv, blocks)
    return True


def _unhold(s, blocks):
    give_back_blocks(s.kv, blocks, 0, s.held, -1, 0)
    s.stuck = False
    s.empties = 0


def _leave(s, slot):
    s.n_run = without(s.run, s.n_run, slot)
    release(s, slot)
    s.pure = False
    s.stuck = False
    s.empties = 0
    s.g_running = s.n_run
    s.g_kv_used = float(s.kv.total - s.kv.free)


def _join(s, slot, blocks):
    if s.n_run >= s.max_run:
        return False
    x = s.r_x
    for j in range(N_X):
        x[slot, j] = 0
    prompt = s.r_prompt[slot]
    x[slot, STATUS] = RUNNING
    x[slot, KNOWN] = prompt + s.r_done[slot]
    x[slot, COMP] = x[slot, KNOWN] - 1
    x[slot, LIMIT] = prompt + s.r_max[slot]
    x[slot, STOP] = min(prompt + min(s.r_output[slot], s.r_max[slot]), s.max_len)
    x[slot, ROW] = -1
    x[slot, LAZY] = 1
    x[slot, CACHED] = 0
    x[slot, NEXT] = s.block_size if s.kv.caching else NEVER
    x[slot, CAP] = blocks * s.block_size
    if s.key_slot == slot:
        s.key_slot = -1
    s.run[s.n_run] = slot
    s.n_run += 1
    s.pure = False
    s.empties = 0
    s.g_running = s.n_run
    s.g_kv_used = float(s.kv.total - s.kv.free)
    return True


implement(
    VllmState,
    look=_look,
    list_running=_list_running,
    resident_tokens=_resident_tokens,
    hold=_hold,
    unhold=_unhold,
    leave=_leave,
    join=_join,
)
