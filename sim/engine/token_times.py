"""When each chunk of tokens reached its client, for those who want every one of them: written down after each step, read off what the step changed.

Schedulers know nothing of it. Runs that record it take every step by itself (`EngineGroup.set_multi_step`); the others pay one look at a flag per step.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.rows import grown
from sim.jit import inline, kernel


@kernel
def record_tokens(rec):
    """From now on."""
    rec.tok_on = True
    rec.tok_id = np.zeros(1024, np.int64)
    rec.tok_at = np.zeros(1024)


@inline
def note_tokens(s):
    """Write down who has got tokens in the step that has just ended."""
    r = s.rec
    old = s.tok_told.size
    if old < s.n_slots:
        keep(s).tok_told = grown(s.tok_told, s.n_slots)
        keep(s).tok_of = grown(s.tok_of, s.n_slots)
        for slot in range(old, s.n_slots):
            s.tok_of[slot] = -1
    for slot in range(s.n_slots):
        if s.r_id[slot] != s.tok_of[slot]:
            s.tok_of[slot] = s.r_id[slot]
            s.tok_told[slot] = 0
        if s.r_done[slot] > s.tok_told[slot]:
            s.tok_told[slot] = s.r_done[slot]
            n = r.tok_n
            if n == r.tok_id.size:
                keep(r).tok_id = grown(r.tok_id, 2 * n)
                keep(r).tok_at = grown(r.tok_at, 2 * n)
            r.tok_id[n] = s.r_id[slot]
            r.tok_at[n] = s.r_last_token[slot]
            r.tok_n = n + 1


@kernel
def token_times(rec):
    """(ids, times) in the order in which they were written."""
    return rec.tok_id[: rec.tok_n].copy(), rec.tok_at[: rec.tok_n].copy()
