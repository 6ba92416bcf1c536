# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Tasks and slots: which slot a task gets, what the slot keeps of its cache, and what happens when a slot is released.

*Source*: llama.cpp 0c1e570 tools/server/server-context.cpp ``get_available_slot``, ``launch_slot_with_task``, ``server_slot::release``,
server-queue.cpp ``pop_deferred_task``; Ollama 0.33 llm/llama_server.go ``completionPromptForRequest`` for `_cut_prompt`.
"""

import numpy as np

from sim.engine.kv.token_lists import clear_list, common_prefix, cut_out, put_prompt, swap_lists
from sim.engine.outline import outlined
from sim.engine.queue import queue_push, queue_push_front
from sim.engine.schedulers.llamacpp.checkpoints import forget, resume
from sim.engine.schedulers.llamacpp.prompt_cache import load_entry, save_slot, trim_cache
from sim.engine.schedulers.llamacpp.state import EV_LAUNCH, IDLE, NONE, PROMPT, LlamaCppState
from sim.engine.state import first_scheduled, free_slot, log_event, record_end
from sim.jit import inline

_HALF = np.float32(0.5)


def _enqueue(s, slot):
    queue_push(s, slot)
    s.g_waiting = s.w_len + s.d_len


@inline
def _defer(s, slot):
    s.next[slot] = NONE
    if s.d_len == 0:
        s.d_first = slot
    else:
        s.next[s.d_last] = slot
    s.d_last = slot
    s.d_len += 1


@inline
def _cut_prompt(s, keep):
    """Ollama's own truncation: the first ``keep`` tokens and the newest, leaving half of the rest of the context free."""
    t, a = s.lists, s.scratch_list
    n = t.l_tok[a]
    if n > s.ctx - 1:
        limit = s.ctx - max((s.ctx - keep) // 2, 1)
        cut_out(t, a, keep, n - limit, s.spare_list)
        s.cut_prompts += 1


@inline
def _choose(s):
    """``get_available_slot``: (slot, longest common prefix, by likeness?). Some slot must be idle."""
    t, prompt = s.lists, s.scratch_list
    n = np.float32(t.l_tok[prompt])
    best, found = 0, NONE
    if s.similarity > 0.0:
        for c in range(s.slots):
            if s.c_phase[c] == IDLE and t.l_tok[s.c_list[c]] > 0:
                shared = common_prefix(t, s.c_list[c], prompt)
                if shared > best and np.float32(shared) / n > np.float32(s.similarity):
                    best, found = shared, c
    if found != NONE:
        return found, best, True
    oldest = 0
    for c in range(s.slots):
        if s.c_phase[c] == IDLE and (found == NONE or s.c_used[c] <= oldest):
            found, oldest = c, s.c_used[c]
    return found, common_prefix(t, s.c_list[found], prompt), False


@outlined(LlamaCppState)
def launch(s, slot):
    """A task gets a slot, or is deferred until one is released. Returns 1 or 0."""
    if s.n_idle == 0:
        _defer(s, slot)
        return 0
    t = s.lists
    ident = s.r_id[slot]
    keep = s.keep_of[ident] if ident < s.keep_of.size else s.n_keep
    prompt = s.scratch_list
    put_prompt(s, t, prompt, slot)
    if s.truncate == 1:
        _cut_prompt(s, min(max(keep, 0) + 1, s.ctx - 4))
    c, shared, alike = _choose(s)
    held = s.c_list[c]
    if s.ram and (not alike or np.float32(shared) / np.float32(t.l_tok[held]) < _HALF):
        save_slot(s, c)
        load_entry(s, c)
        trim_cache(s)
        shared = common_prefix(t, held, prompt)
    if s.c_lora[c] != s.r_lora[slot]:  # another adapter: the cache is of no use
        clear_list(t, held)
        s.c_tok[c] = 0
        shared = 0
        if s.swa_cells > 0:
            forget(s, c)
    s.c_entry[c] = NONE
    n = t.l_tok[prompt]
    s.c_lora[c] = s.r_lora[slot]
    s.c_slot[c] = slot
    s.c_phase[c] = PROMPT
    s.c_started[c] = 0
    s.c_prompt[c] = n
    s.c_gen[c] = 0
    s.c_keep[c] = keep
    if n < s.ctx:  # else it will be refused and the slot keeps what it has
        past = shared if s.caching else 0
        if s.swa_cells > 0:
            past = resume(s, c, past, n)
        s.c_past[c] = past - 1 if past == n else past
        swap_lists(t, held, prompt)
    s.n_idle -= 1
    s.n_prompt += 1
    first_scheduled(s, slot)
    log_event(s, EV_LAUNCH, s.r_id[slot], c)
    if s.ram and s.save_idle:
        for k in range(s.slots):
            if s.c_phase[k] == IDLE and t.l_tok[s.c_list[k]] > 0:
                save_slot(s, k)
                if s.unified:
                    if s.swa_cells > 0:
                        forget(s, k)
                    clear_list(t, s.c_list[k])
                    s.c_tok[k] = 0
                    s.c_entry[k] = NONE
        trim_cache(s)
    return 1


@outlined(LlamaCppState)
def release(s, c, status):
    """The request in slot ``c`` has ended; the oldest deferred task goes to the front of the queue."""
    slot = s.c_slot[c]
    record_end(s, slot, s.now, status)
    free_slot(s, slot)
    s.c_slot[c] = NONE
    s.c_phase[c] = IDLE
    s.c_sent[c] = 0
    s.clock += 1
    s.c_used[c] = s.clock
    s.n_idle += 1
    s.pure = False
    if s.d_len > 0:
        first = s.d_first
        s.d_first = s.next[first]
        s.d_len -= 1
        if s.fifo:
            queue_push(s, first)
        else:
            queue_push_front(s, first)
    return slot
