# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Steps in which every running request decodes one token and nothing else can happen, in one stroke."""

import numpy as np

from sim.engine.kv.blocks import take_blocks
from sim.engine.schedulers.vllm.state import CACHED, CAP, COMP, KNOWN, LAST_SEQ, LAZY, NEXT
from sim.jit import inline


@inline
def settled(s):
    """Whether the next steps can only be those of running requests that decode, apart from their blocks."""
    if not s.pure or s.got != s.n_run or s.t_got != s.now or s.q_len != s.depth - 1 or s.n_run == 0:
        return False
    if s.least < 3 or s.interval > 1 or s.pp > 1 or s.finished_pending or s.n_run > s.max_tokens:
        return False
    if s.role > 0 and (s.n_send > 0 or s.df_len > 0 or s.horizon <= s.now):
        return False
    return s.wq.len + s.kvq.len == 0 or s.stuck


@inline
def count_steps(s, k):
    """``k`` steps are over, and their blocks taken."""
    s.least -= k
    s.step_no += k
    s.n_exec += k
    s.t_got = s.now
    s.g_kv_used = float(s.kv.total - s.kv.free)


def steady_vllm(s):
    """See the contract. Blocks: each request crosses at most k / block_size + 1 borders in k steps."""
    if not settled(s):
        return 0
    k = s.least - 1
    fits = s.kv.free // s.n_run
    if k // s.block_size + 1 > fits:
        k = (fits - 1) * s.block_size
    return max(k, 0)


def apply_vllm(s, k):
    """``k`` such steps are done."""
    x = s.r_x
    run, r_last, r_done = s.run, s.r_last_token, s.r_done
    size = s.block_size
    need = np.int64(0)
    if s.defer_free:
        s.seq_s += k
        s.seq_p += k
    for i in range(s.n_run):
        slot = run[i]
        known = x[slot, KNOWN] + k
        comp = x[slot, COMP] + k
        x[slot, KNOWN] = known
        x[slot, COMP] = comp
        r_done[slot] += k
        r_last[slot] = s.now
        while x[slot, CAP] < comp:
            x[slot, CAP] += size
            need += 1
        if x[slot, LAZY] == 1:
            while known - 1 >= x[slot, NEXT]:
                x[slot, NEXT] += size
                x[slot, CACHED] += 1
        if s.defer_free:
            x[slot, LAST_SEQ] = s.seq_s
    take_blocks(s.kv, need)
    count_steps(s, k)
