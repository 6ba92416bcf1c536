# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The loop of llama-server: launch queued tasks, shift full contexts, one token per generating slot, then prompts in slot order.

*Source*: llama.cpp 0c1e570 tools/server/server-context.cpp ``update_slots``, ``process_token``; server-queue.cpp ``start_loop``.
"""

from sim.cost.features import (
    COPIED_BLOCKS,
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    PREFILL_CTX,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    ROWS,
    SAMPLED,
    TOKENS,
)
from sim.engine.contract import BATCH, NOTHING, clear_place, next_place
from sim.engine.kv.token_lists import append_span, clear_list, cut_out, room_for
from sim.engine.outline import outlined
from sim.engine.queue import queue_pop
from sim.engine.schedulers.llamacpp.checkpoints import checkpoint, cut, forget
from sim.engine.schedulers.llamacpp.slots import _enqueue, launch, release
from sim.engine.schedulers.llamacpp.state import (
    EV_AT,
    EV_GENERATE,
    EV_PROMPT,
    GENERATING,
    IDLE,
    NONE,
    PROMPT,
    LlamaCppState,
    _grow,
)
from sim.engine.state import emit, log_event
from sim.jit import implement, inline
from sim.ledger import FAILED, FINISHED, REJECTED


@outlined(LlamaCppState)
def _note_generated(s, c):
    """Bring the list of slot ``c`` up to date: all generated tokens but the last sampled one are in the cache."""
    slot = s.c_slot[c]
    new = s.r_done[slot] - 1 - s.c_gen[c]
    if new > 0:
        a = s.c_list[c]
        room_for(s.lists, a, s.lists.l_n[a] + 1)
        append_span(s.lists, a, s.r_out_content[slot], s.c_gen[c], new)
        s.c_gen[c] += new
    return new


@outlined(LlamaCppState)
def _shift(s, c):
    """Context shift: after the first ``n_keep`` tokens (and BOS), half of the rest goes."""
    _note_generated(s, c)
    n = s.c_tok[c]
    keep = min((s.c_prompt[c] if s.c_keep[c] < 0 else s.c_keep[c]) + 1, s.ctx - 4)
    left = n - keep
    discard = max(0, min(s.n_discard if s.n_discard > 0 else left // 2, left - 1))
    if discard > 0:
        cut_out(s.lists, s.c_list[c], keep, discard, s.spare_list)
        s.c_tok[c] = n - discard
        if s.swa_cells > 0:
            low = max(s.c_low[c] - discard, 0)
            forget(s, c)
            s.c_low[c] = low
    return discard


@inline
def _add_prompts(s, f, n, lora):
    """Prompts in slot order until the batch is full. Returns its tokens and whether a prompt or a slot had to be left out."""
    for c in range(s.slots):
        if n >= s.n_batch or s.n_prompt == 0:
            break
        if s.c_phase[c] != PROMPT or (lora != NONE and s.c_lora[c] != lora):
            continue
        slot = s.c_slot[c]
        if s.c_started[c] == 0:
            if s.c_prompt[c] >= s.ctx:
                s.n_prompt -= 1
                release(s, c, REJECTED)
                continue
            s.c_started[c] = 1
            s.c_tok[c] = s.c_past[c]
            s.r_cached[slot] = s.c_past[c]
            if s.swa_cells > 0:
                f[COPIED_BLOCKS] += s.c_copied[c] * s.copy_share
        lora = s.c_lora[c]
        past = s.c_tok[c]
        k = min(s.c_prompt[c] - past, s.n_batch - n)
        if s.swa_cells > 0:
            k = cut(s, s.c_prompt[c], past, k) if s.max_ckpt > 0 else k
            f[COPIED_BLOCKS] += checkpoint(s, c, past, past + k) * s.copy_share
        log_event(s, EV_AT, past, s.n_steps)
        log_event(s, EV_PROMPT, c, k)
        n += k
        s.c_sent[c] = k
        s.c_tok[c] = past + k
        f[ROWS] += 1
        f[PREFILL_ROWS] += 1
        f[PREFILL_TOKENS] += k
        f[PREFILL_WORK] += k * (past + 0.5 * k)
        f[PREFILL_CTX] += past + k
        if past + k == s.c_prompt[c]:
            f[SAMPLED] += 1
    return n


@inline
def _make_cells(s):
    """Unified cache: idle slots are purged, lowest first, until the batch fits. False if it still does not."""
    used = 0
    for c in range(s.slots):
        used += s.c_tok[c]
    c = 0
    while used > s.cells and c < s.slots:
        if s.c_phase[c] == IDLE:
            used -= s.c_tok[c]
            s.c_tok[c] = 0
            s.c_entry[c] = NONE
            if s.swa_cells > 0:
                forget(s, c)
            clear_list(s.lists, s.c_list[c])
        c += 1
    s.g_kv_used = min(used, s.cells)  # a batch that does not fit takes none
    return used <= s.cells


@outlined(LlamaCppState)
def _plan_batch(s):
    p = next_place(s)
    f = s.q_feat[p]
    n = 0
    while n == 0:
        while s.w_len > 0:
            launch(s, queue_pop(s))
        if s.n_idle == s.slots:
            s.g_running = 0
            s.g_waiting = s.d_len
            return NOTHING
        clear_place(s, p)
        lora = NONE
        for c in range(s.slots):
            if s.c_phase[c] == GENERATING:
                if s.shift and s.c_tok[c] + 1 >= s.ctx:
                    _shift(s, c)
                if lora == NONE:
                    lora = s.c_lora[c]
                elif s.c_lora[c] != lora:  # the first slot of the batch decides on the adapter
                    continue
                log_event(s, EV_AT, s.c_tok[c], s.n_steps)
                log_event(s, EV_GENERATE, c, 1)
                s.c_tok[c] += 1
                s.c_sent[c] = 1
                n += 1
                f[DECODE_CTX] += s.c_tok[c]
        f[ROWS] = f[DECODE_ROWS] = f[DECODE_TOKENS] = f[SAMPLED] = n
        s.pure = n == s.n_generating and s.n_prompt == 0
        n = _add_prompts(s, f, n, lora)
    f[TOKENS] = n
    s.q_rows[p] = int(f[ROWS])
    s.full = not _make_cells(s) and s.unified
    s.g_running = s.slots - s.n_idle
    s.g_waiting = s.w_len + s.d_len
    return BATCH


@inline
def _fail_all(s):
    """The KV cache is full even for one token: every request being served fails and its slot is cleared."""
    for c in range(s.slots):
        if s.c_phase[c] != IDLE:
            clear_list(s.lists, s.c_list[c])
            s.c_tok[c] = 0
            if s.swa_cells > 0:
                forget(s, c)
            release(s, c, FAILED)
    s.n_prompt = 0
    s.n_generating = 0
    s.full = False


@inline
def _take_tokens(s):
    for c in range(s.slots):
        if s.c_sent[c] == 0:
            continue
        s.c_sent[c] = 0
        slot = s.c_slot[c]
        if s.c_phase[c] == PROMPT:
            if s.c_tok[c] < s.c_prompt[c]:
                continue
            s.c_phase[c] = GENERATING
            s.n_prompt -= 1
            s.n_generating += 1
        emit(s, slot, s.now, 1)
        if s.r_done[slot] >= s.r_output[slot] or (not s.shift and s.c_tok[c] + 1 >= s.ctx):
            _note_generated(s, c)
            s.n_generating -= 1
            release(s, c, FINISHED)


@outlined(LlamaCppState)
def _complete_batch(s):
    if s.full:
        _fail_all(s)
    else:
        _take_tokens(s)
    s.g_running = s.slots - s.n_idle
    s.g_waiting = s.w_len + s.d_len
    return 0


def _plan(s):
    return _plan_batch(s)


def _complete(s, p):
    _complete_batch(s)


@outlined(LlamaCppState)
def _unchanged(s):
    if s.w_len > 0:
        return 0
    k = 1 << 30
    used = 0
    for c in range(s.slots):
        used += s.c_tok[c]
        if s.c_phase[c] == GENERATING:
            slot = s.c_slot[c]
            k = min(k, s.r_output[slot] - s.r_done[slot] - 1, s.ctx - 2 - s.c_tok[c])
    if s.unified:
        k = min(k, (s.cells - used) // s.n_generating)
    return k


def _steady_steps(s):
    return _unchanged(s) if s.pure else 0


def _apply_steady(s, k):
    for c in range(s.slots):
        if s.c_phase[c] == GENERATING:
            slot = s.c_slot[c]
            s.c_tok[c] += k
            s.r_done[slot] += k
            s.r_last_token[slot] = s.now
    s.g_kv_used += k * s.n_generating


implement(
    LlamaCppState,
    enqueue=_enqueue,
    plan=_plan,
    complete=_complete,
    steady_steps=_steady_steps,
    apply_steady=_apply_steady,
    grow=_grow,
)
