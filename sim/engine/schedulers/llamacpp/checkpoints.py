# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Context checkpoints of models whose layers forget: what of a slot's cache can be reused, and how prompts are cut so that it can.

The cache of the windowed layers keeps the window and a micro-batch, so a prompt that leaves the old text further back than that finds no
keys there. Recurrent layers have one state, that of the newest token (``swa`` 0, one cell): a prompt that continues the old text goes on
from it, any other finds none. The server then goes back to a checkpoint, a copy of window or state in system memory: one is made 4 +
``n_ubatch`` tokens before the end of every prompt and one 4 tokens before it, each at the beginning of a batch that the prompt is cut for.

*Source*: llama.cpp 0c1e570 tools/server/server-context.cpp ``update_slots`` (``pos_min_thold``, ``checkpoint_offsets``), ``create_checkpoint``;
src/llama-kv-cache.cpp ``apply_ubatch``, ``state_write``; src/llama-memory-hybrid.cpp ``seq_pos_min``. Cells are taken to be overwritten
oldest first. Messages of the chat endpoint, at whose beginnings the server makes further checkpoints, are not told apart in the traffic.
"""

from typing import Final

from sim.engine.borrow import keep
from sim.engine.outline import outlined
from sim.engine.schedulers.llamacpp.state import LlamaCppState
from sim.engine.state import grown
from sim.jit import inline

MIN_STEP: Final = 8192  # checkpoint_min_step
_LAST: Final = 4


@inline
def first_kept(s, c):
    """``seq_pos_min``: the first position that the windowed or recurrent layers of slot ``c`` still have."""
    return max(s.c_low[c], s.c_tok[c] - s.swa_cells)


@inline
def forget(s, c):
    """The cache of slot ``c`` is empty."""
    s.c_low[c] = 0
    s.k_n[s.c_list[c]] = 0


@outlined(LlamaCppState)
def make_room(s):
    """Checkpoints of new lists."""
    own = keep(s)
    n = s.lists.l_off.size
    if s.k_n.size < n:
        m = s.max_ckpt
        own.k_n = grown(s.k_n, n)
        own.k_task = grown(s.k_task, n * m)
        own.k_tok = grown(s.k_tok, n * m)
        own.k_low = grown(s.k_low, n * m)
    return n


@inline
def _move(s, i, j):
    s.k_task[j] = s.k_task[i]
    s.k_tok[j] = s.k_tok[i]
    s.k_low[j] = s.k_low[i]


@outlined(LlamaCppState)
def copy_checkpoints(s, a, b):
    """List ``b`` gets the checkpoints of list ``a``."""
    s.k_n[b] = s.k_n[a]
    for i in range(s.k_n[a]):
        _move(s, a * s.max_ckpt + i, b * s.max_ckpt + i)
    return s.k_n[a]


@outlined(LlamaCppState)
def resume(s, c, past, n):
    """Of ``past`` tokens that slot ``c`` shares with a prompt of ``n``, those that it need not compute again."""
    a = s.c_list[c]
    o = a * s.max_ckpt
    after = past
    s.c_copied[c] = 0
    oldest = max(past - s.swa - (0 if past < n else 1), 0)
    low = first_kept(s, c)
    if past > 0 and low >= oldest:
        i = s.k_n[a] - 1
        while i >= 0 and (s.k_tok[o + i] - 1 > after or (s.k_low[o + i] >= oldest and s.k_low[o + i] != 0)):
            i -= 1
        if i < 0:
            past = after = low = 0
        else:
            tokens = s.k_tok[o + i]
            after = min(after, max(s.k_low[o + i] + 1, tokens - 1))
            past = min(after, tokens)
            low = max(tokens - max(s.swa, 1), 0)
            s.c_copied[c] = min(tokens, max(s.swa, 1))
    if past == 0:
        low = 0
    s.c_low[c] = low
    kept = 0
    for i in range(s.k_n[a]):
        if s.k_tok[o + i] - 1 <= after:
            _move(s, o + i, o + kept)
            kept += 1
    s.k_n[a] = kept
    return past


@inline
def cut(s, prompt, past, k):
    """Of ``k`` tokens from ``past`` on, those up to the next place for a checkpoint."""
    for offset in (_LAST + s.n_ubatch, _LAST):
        end = prompt - min(s.n_batch, offset)
        if past < end < past + k:
            return end - past
    return k


@outlined(LlamaCppState)
def checkpoint(s, c, past, now):
    """Before the batch that brings slot ``c`` from ``past`` to ``now`` tokens: a checkpoint, near the end of the prompt. Returns its tokens."""
    if s.max_ckpt == 0 or past == 0 or s.c_prompt[c] >= now + s.n_ubatch:
        return 0
    a = s.c_list[c]
    m = s.max_ckpt
    o, n = a * m, s.k_n[a]
    task = s.r_id[s.c_slot[c]]
    last, i = -1, 0
    while n + 1 >= m and i < n:  # the list is all but full: those of other tasks that are too close to the one before go
        if s.k_task[o + i] != task and last >= 0 and s.k_tok[o + i] <= last + MIN_STEP:
            for j in range(i + 1, n):
                _move(s, o + j, o + j - 1)
            n -= 1
        else:
            last = s.k_tok[o + i]
            i += 1
    kept = 0
    for i in range(max(n - m + 1, 0), n):  # the oldest goes, and one of the same length
        if s.k_tok[o + i] != past:
            _move(s, o + i, o + kept)
            kept += 1
    s.k_task[o + kept] = task
    s.k_tok[o + kept] = past
    s.k_low[o + kept] = max(s.c_low[c], past - s.swa_cells)
    s.k_n[a] = kept + 1
    return min(past, max(s.swa, 1))


@inline
def window_bytes(s):
    """Bytes of the windows or states and checkpoints in the prompt cache in RAM."""
    n = 0
    for i in range(s.n_entries):
        n += 1 + s.k_n[s.e_list[i]]
    return n * s.state_bytes
