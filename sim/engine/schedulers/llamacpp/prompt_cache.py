# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The prompt cache in RAM (``--cache-ram``): what slots held, saved before they are given to another conversation.

*Source*: llama.cpp 0c1e570 tools/server/server-task.cpp ``server_prompt_cache``.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.token_lists import NO_LIST, clear_list, common_prefix, copy_list, drop_list, swap_lists, take_list
from sim.engine.outline import outlined
from sim.engine.schedulers.llamacpp.checkpoints import copy_checkpoints, make_room, window_bytes
from sim.engine.schedulers.llamacpp.state import NONE, LlamaCppState
from sim.engine.state import grown
from sim.jit import inline

_MIN_KEPT = np.float32(0.25)  # share of an entry that the prompt must repeat


@outlined(LlamaCppState)
def remove_entry(s, i):
    """Drop entry ``i``."""
    e = s.e_list[i]
    s.e_tokens -= s.lists.l_tok[e]
    for c in range(s.slots):
        if s.c_entry[c] == e:
            s.c_entry[c] = NONE
    drop_list(s.lists, e)
    for j in range(i + 1, s.n_entries):
        s.e_list[j - 1] = s.e_list[j]
    s.n_entries -= 1
    return e


@outlined(LlamaCppState)
def save_slot(s, c):
    """``prompt_save``: an entry for what slot ``c`` holds, unless one holds it already; entries that it continues are dropped."""
    t = s.lists
    a = s.c_list[c]
    n = t.l_tok[a]
    if n == 0 or s.c_entry[c] != NONE:
        return 0
    for i in range(s.n_entries):
        if common_prefix(t, s.e_list[i], a) == n:
            s.c_entry[c] = s.e_list[i]
            return 0
    for i in range(s.n_entries - 1, -1, -1):
        if common_prefix(t, s.e_list[i], a) == t.l_tok[s.e_list[i]]:
            remove_entry(s, i)
    e = take_list(t)
    copy_list(t, a, e)
    if s.swa_cells > 0:
        make_room(s)
        copy_checkpoints(s, a, e)
    if s.n_entries == s.e_list.size:
        keep(s).e_list = grown(s.e_list, 2 * s.n_entries)
    s.e_list[s.n_entries] = e
    s.n_entries += 1
    s.e_tokens += n
    s.c_entry[c] = e
    return 1


@inline
def load_entry(s, c):
    """``prompt_load``: the entry that beats what slot ``c`` holds, both in what is kept of it and in what it gives to the prompt."""
    t = s.lists
    a, prompt = s.c_list[c], s.scratch_list
    n = np.float32(t.l_tok[prompt])
    shared = np.float32(common_prefix(t, a, prompt))
    kept = shared / np.float32(t.l_tok[a]) if t.l_tok[a] > 0 else np.float32(-1.0)
    similar = shared / n
    best = NO_LIST
    for i in range(s.n_entries):
        e = s.e_list[i]
        shared = np.float32(common_prefix(t, e, prompt))
        e_kept = shared / np.float32(t.l_tok[e])
        if e_kept >= _MIN_KEPT and kept < e_kept and similar < shared / n:
            kept = e_kept
            similar = shared / n
            best = i
    if best != NO_LIST:
        e = s.e_list[best]
        s.e_tokens -= t.l_tok[e]  # what follows removes an entry that is empty by then
        swap_lists(t, a, e)
        clear_list(t, e)
        if s.swa_cells > 0:
            copy_checkpoints(s, e, a)
            s.c_low[c] = max(t.l_tok[a] - max(s.swa, 1), 0)
        remove_entry(s, best)
        s.c_tok[c] = t.l_tok[a]
        s.c_entry[c] = NONE


@inline
def trim_cache(s):
    """``update``: drop the oldest entries beyond the limit; one always stays."""
    while s.n_entries > 1:
        if s.ram_limit >= 0.0:
            if s.e_tokens * s.token_bytes + (window_bytes(s) if s.swa_cells > 0 else 0.0) <= s.ram_limit:
                return
        elif s.e_tokens <= s.cells:
            return
        remove_entry(s, 0)
