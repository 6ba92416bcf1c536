# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Which computed blocks get a hash, and when (``v1/core/single_type_kv_cache_manager.py``): rules only, nothing is changed.

Full attention keeps all; windows and states only what the retention interval asks for: by default the tail before the end of the prompt and
before a junction (where another request's prefix was found to part).
"""

import numpy as np

from sim.engine.schedulers.vllm.groups.state import JOINS, JUNCTION, KIND, SIZE, SLIDING, WINDOW
from sim.engine.schedulers.vllm.state import PROMPT
from sim.jit import inline


@inline
def boundaries(s, slot, g, out):
    """Lengths before which a tail is kept, into ``out``; returns how many."""
    x = s.r_x
    prompt = np.int64(x[slot, PROMPT])
    n = 0
    if s.legacy:
        unit = s.grid
        out[0] = max((prompt - 1) // unit * unit - unit, 0)
        out[1] = max(prompt // unit * unit - unit, 0)
        n = 2
    else:
        out[0] = prompt - 1
        n = 1
    if x[slot, JUNCTION] > 0:
        out[n] = x[slot, JUNCTION]
        n += 1
        if s.g[g, JOINS] == 1:
            out[n] = x[slot, JUNCTION] - s.g[g, SIZE]
            n += 1
    return n


@inline
def kept(s, g, i, bounds, n):
    """Whether block ``i`` of a group that forgets gets a hash."""
    size = s.g[g, SIZE]
    if s.g[g, KIND] == SLIDING:
        more = s.g[g, JOINS]
        need = (s.g[g, WINDOW] - 1 + size - 1) // size + more
        segment = s.align if s.retention < 0 else s.retention
        if segment > 0:
            per = segment // size
            if need >= per or (i >= more and (i - more) % per >= per - need):
                return True
        if s.retention >= 0:
            for j in range(n):
                end = bounds[j] // s.align * s.align // size + more
                if end - need <= i < end:
                    return True
        return False
    if s.retention < 0:
        return True
    if s.retention > 0 and (i + 1) % max(s.retention // size, 1) == 0:
        return True
    for j in range(n):
        if bounds[j] // s.align * s.align // size - 1 == i:
            return True
    return False


@inline
def reached(s, g, tokens, n_keys):
    """Full blocks of a group within ``tokens`` tokens, as far as there are keys; and the tokens that count for it."""
    t = np.int64(tokens)
    if s.n_groups > 1 and not s.fine:
        t = tokens // s.grid * s.grid
        if s.legacy and s.g[g, JOINS] == 1 and t > 0:
            t = min(tokens, t + s.g[g, SIZE])
    return min(t, n_keys * s.block_size) // s.g[g, SIZE], t


@inline
def reached_next(s, g, n):
    """Tokens from which on one more block than ``n`` is full."""
    after = (n + 1) * s.g[g, SIZE]
    if s.n_groups > 1 and not s.fine and not (s.legacy and s.g[g, JOINS] == 1):
        after = (after + s.grid - 1) // s.grid * s.grid
    return after
