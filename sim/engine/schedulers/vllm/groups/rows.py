# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The quick pass over decoding rows: as `plan.lean_rows_plain`, but blocks of several groups change hands in `grant`."""

import numpy as np

from sim.engine.schedulers.vllm.groups.grow import due, grow_in
from sim.engine.schedulers.vllm.seam import grant
from sim.engine.schedulers.vllm.state import CAP, CHUNK, COMP, INFL, KNOWN, LIMIT, NEXT, PH, PROMPT


def lean_rows_groups(s):
    """See `seam.lean_rows`; stops at the first row that does something else or does not fit."""
    x = s.r_x
    run = s.run
    p = s.p
    q_slot, q_tok, q_aux = s.q_slot, s.q_tok, s.q_aux
    is_async = s.is_async
    states = s.states
    n_run = min(s.n_run, s.max_tokens)
    longest = s.max_len - 1
    rows = np.int64(0)
    ctx = np.int64(0)
    i = np.int64(0)
    s.admitting = False
    s.n_hits = s.ext = s.reserved = 0
    while i < n_run:
        slot = run[i]
        u = np.uintp(slot)
        comp = np.int64(x[u, COMP])
        ph = np.int64(x[u, PH])
        known = np.int64(x[u, KNOWN])
        if known + ph - comp != 1 or x[u, CHUNK] == 1 or comp < x[u, PROMPT]:
            break
        if (ph > 0 and comp + 2 - ph >= x[u, LIMIT]) or comp >= longest:
            i += 1
            continue
        comp += 1
        if comp > x[u, CAP] or min(comp, known) >= x[u, NEXT]:
            if states:
                if not grant(s, slot, np.int64(1)):
                    break
            elif (due(s, slot, comp) or min(comp, known) >= x[u, NEXT]) and grow_in(s, np.int64(slot), comp) == 0:
                break
        x[u, COMP] = comp
        x[u, INFL] += 1
        if is_async:
            x[u, PH] = ph + 1
        ctx += comp
        q_slot[p, rows] = slot
        q_tok[p, rows] = 1
        q_aux[p, rows] = 1
        rows += 1
        i += 1
    s.lean = rows
    s.lean_ctx = ctx
    return i
