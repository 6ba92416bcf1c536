# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Outputs of a step (``engine/llm_engine.py: _process_model_outputs``), and runs of unchanged decode steps."""

import numpy as np

from sim.engine.schedulers.vllm_v0.memory import release
from sim.engine.schedulers.vllm_v0.state import BLOCKS, CHUNK, ENDED, FINISH, GHOST, LEN, STATUS, STOP
from sim.engine.state import emit, free_slot, log_event, record_end, record_gap
from sim.ledger import FINISHED

_MANY = 1 << 30


def complete_v0(s, p):
    """Tokens out; who has its last one ends: at once, or (asynchronous output processing) one step later for the scheduler."""
    x = s.r_x
    q_slot, q_aux = s.q_slot, s.q_aux
    r_last, r_done = s.r_last_token, s.r_done
    now, gap_from = s.now, s.t_got
    got = regular = 0
    least = _MANY
    ended = False
    for j in range(s.q_rows[p]):
        slot = q_slot[p, j]
        u = np.uintp(slot)
        aux = q_aux[p, j]
        if aux == CHUNK:
            continue
        if aux == GHOST:
            free_slot(s, slot)
            continue
        x[u, LEN] += 1
        if r_last[u] == gap_from:
            regular += 1
            r_last[u] = now
            r_done[u] += 1
        else:
            emit(s, slot, now, np.int64(1))
        got += 1
        left = x[u, STOP] - x[u, LEN]
        least = min(least, left)
        if left == 0:
            ended = True
            x[u, STATUS] = ENDED
            record_end(s, slot, now, FINISHED)
            log_event(s, FINISH, s.r_id[slot], np.int64(r_done[u]))
    if regular > 0:
        record_gap(s.rec, now - gap_from, float(regular))
    if ended:
        n = ghosts = 0
        run = s.run
        for j in range(s.n_run):
            slot = run[j]
            if x[slot, STATUS] != ENDED:
                run[n] = slot
                n += 1
            elif s.is_async:
                run[n] = slot
                n += 1
                ghosts += 1
            else:
                release(s, slot)
                free_slot(s, slot)
        s.n_run = n
        s.n_ended = ghosts
    s.got = got
    s.least = least
    s.t_got = now
    s.g_running = s.n_run
    s.g_kv_used = float(s.gpu_total - s.gpu_free)


def steady_v0(s):
    """See the contract. A step needs a block to spare for every row; each row crosses at most k / block_size + 1 borders in k steps."""
    n = s.n_run
    if not s.pure or s.got != n or s.t_got != s.now or n == 0 or s.n_ended > 0 or s.least < 3:
        return 0
    if s.w_len + s.n_swapped > 0 and not s.stuck:
        return 0
    if s.chunked and n > s.max_tokens:
        return 0
    spare = s.gpu_free - 2 - (s.lookahead + s.block_size) // s.block_size
    fits = spare // n
    k = s.least - 1
    if k // s.block_size + 1 > fits:
        k = (fits - 1) * s.block_size
    return max(k, 0)


def apply_v0(s, k):
    """``k`` such steps are done."""
    x = s.r_x
    run, r_last, r_done = s.run, s.r_last_token, s.r_done
    size = s.block_size
    for i in range(s.n_run):
        slot = run[i]
        length = x[slot, LEN] + k
        x[slot, LEN] = length
        r_done[slot] += k
        r_last[slot] = s.now
        short = length - 1 + s.lookahead - x[slot, BLOCKS] * size
        if short > 0:
            n = (short + size - 1) // size
            x[slot, BLOCKS] += n
            s.gpu_free -= n
    s.least -= k
    s.t_got = s.now
    s.step_no += k
    s.g_kv_used = float(s.gpu_total - s.gpu_free)
