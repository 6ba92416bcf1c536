# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""How many tokens of each answer have been delivered so far: what a gateway sees that streams them through."""

import numpy as np

from sim.jit import kernel


@kernel
def _delivered(states):
    """i8[n], i8[n]: number and tokens of each request in flight that is past its engine's inbox."""
    total = 0
    for k in range(len(states)):
        total += states[k].n_slots
    ids, done = np.empty(total, np.int64), np.empty(total, np.int64)
    n = 0
    for k in range(len(states)):
        s = states[k]
        idle = np.zeros(s.n_slots, np.bool_)
        for i in range(s.n_free):
            idle[s.free[i]] = True
        for i in range(s.in_len):
            idle[s.in_slot[(s.in_head + i) % s.in_slot.size]] = True
        for slot in range(s.n_slots):
            if not idle[slot]:
                ids[n] = s.r_id[slot]
                done[n] = s.r_done[slot]
                n += 1
    return ids[:n].copy(), done[:n].copy()


def delivered(groups):
    """Of all pools."""
    found = [_delivered(group._states) for group in groups]
    return np.concatenate([ids for ids, _ in found]), np.concatenate([done for _, done in found])
