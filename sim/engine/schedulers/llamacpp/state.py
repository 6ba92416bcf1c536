# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""State of one llama-server: task queue, deferred tasks, slots with what their cache holds, prompt cache in RAM."""

from typing import Final, NamedTuple

import numpy as np

from sim.engine.kv.token_lists import TokenLists, take_list
from sim.engine.state import EngineState, grown, init_engine
from sim.jit import b1, f8, i4s, i8, i8s, kernel, new, struct

NONE: Final = -1

IDLE: Final = 0
PROMPT: Final = 1  # the prompt is not wholly in the cache yet
GENERATING: Final = 2

# kinds of the event log
EV_LAUNCH: Final = 1  # request id, server slot
EV_PROMPT: Final = 2  # server slot, tokens; preceded by EV_AT
EV_GENERATE: Final = 3  # server slot, 1
EV_AT: Final = 4  # first position of the next EV_PROMPT or EV_GENERATE, step


@struct(viewed=True)
class LlamaCppState(EngineState):
    """Per-slot columns begin with ``c_`` (a *server slot*); ``e_`` are the entries of the prompt cache, oldest first."""

    fn: i8s  # addresses of the outlined functions
    # settings
    slots: i8
    ctx: i8  # tokens per slot
    cells: i8  # tokens of the whole KV cache
    n_batch: i8
    n_keep: i8  # negative: the whole prompt
    n_discard: i8
    keep_of: i8s  # n_keep by request id, for replays; beyond its end `n_keep`
    similarity: f8  # slot_prompt_similarity
    unified: b1
    shift: b1
    caching: b1  # cache_prompt
    ram: b1
    save_idle: b1  # cache_idle_slots
    fifo: b1  # those without a slot wait outside, first in, first out (Ollama's semaphore)
    ram_limit: f8  # bytes; negative: by tokens
    token_bytes: f8
    truncate: i8  # prompts beyond the context: 0 rejected, 1 cut as Ollama does before the server sees them
    # queues of request slots
    w_slot: i4s
    w_head: i8
    w_len: i8
    d_first: i8
    d_last: i8
    d_len: i8
    next: i4s  # deferred task after this one
    # slots
    lists: TokenLists
    scratch_list: i8
    spare_list: i8
    clock: i8
    n_idle: i8
    n_prompt: i8
    n_generating: i8
    pure: b1  # the last batch was one token of each generating slot, and none has been released since
    full: b1  # the batch in flight does not fit into the KV cache
    c_slot: i4s
    c_phase: i8s
    c_list: i8s
    c_prompt: i8s  # tokens of the prompt as the server sees it
    c_past: i8s  # of which were in the cache
    c_tok: i8s  # tokens in the KV cache
    c_gen: i8s  # generated tokens that the list already holds
    c_started: i8s
    c_sent: i8s  # tokens in the batch in flight
    c_used: i8s  # when released
    c_lora: i8s
    c_keep: i8s
    c_entry: i8s  # entry of the prompt cache that holds what the idle slot holds, or NONE
    # windows or states; the checkpoints of list ``l``, oldest first, are ``[l * max_ckpt, l * max_ckpt + k_n[l])``
    swa: i8  # window; 0: no layer has one
    swa_cells: i8  # positions of each sequence that windowed (recurrent: 1) layers keep; 0: all, and nothing of this is used
    n_ubatch: i8
    max_ckpt: i8
    copy_share: f8  # blocks of COPIED_BLOCKS for one token of the windowed layers, or for a state
    state_bytes: f8  # of one window or state
    c_low: i8s  # first position of these layers when the slot was last rolled back
    c_copied: i8s  # tokens of the checkpoint that the slot goes on from
    k_n: i8s
    k_task: i8s
    k_tok: i8s
    k_low: i8s
    # prompt cache
    e_list: i8s
    n_entries: i8
    e_tokens: i8
    cut_prompts: i8


class LlamaCppSettings(NamedTuple):
    """What a new state is told, by name."""

    slots: int
    ctx: int
    cells: int
    n_batch: int
    n_keep: int
    n_discard: int
    truncate: int
    unified: bool
    shift: bool
    caching: bool
    ram: bool
    save_idle: bool
    fifo: bool
    similarity: float
    ram_limit: float
    token_bytes: float
    copy_share: float
    state_bytes: float
    swa: int
    swa_cells: int
    n_ubatch: int
    max_ckpt: int


@kernel
def new_llamacpp_state(replica, rec, cost, fn, lists, n):
    """One server. ``fn``: ``addresses(LlamaCppState)``; ``lists``: some token lists, more than ``n.slots`` + 2; ``n``: `LlamaCppSettings`."""
    s = new(LlamaCppState)
    init_engine(s, replica, rec, cost, 1, n.slots, 1, 64)
    s.fn = fn
    s.lists = lists
    s.slots = n.slots
    s.ctx = n.ctx
    s.cells = n.cells
    s.n_batch = n.n_batch
    s.n_keep = n.n_keep
    s.n_discard = n.n_discard
    s.keep_of = np.zeros(0, np.int64)
    s.similarity = n.similarity
    s.unified = n.unified
    s.shift = n.shift
    s.caching = n.caching
    s.ram = n.ram
    s.save_idle = n.save_idle
    s.fifo = n.fifo
    s.ram_limit = n.ram_limit
    s.token_bytes = n.token_bytes
    s.truncate = n.truncate
    s.w_slot = np.empty(64, np.int32)
    s.w_head = 0
    s.w_len = 0
    s.d_first = NONE
    s.d_last = NONE
    s.d_len = 0
    s.next = np.zeros(64, np.int32)
    s.scratch_list = take_list(s.lists)
    s.spare_list = take_list(s.lists)
    s.clock = 0
    s.n_idle = n.slots
    s.n_prompt = 0
    s.n_generating = 0
    s.pure = False
    s.full = False
    s.c_slot = np.zeros(n.slots, np.int32)
    s.c_phase = np.zeros(n.slots, np.int64)
    s.c_list = np.zeros(n.slots, np.int64)
    s.c_prompt = np.zeros(n.slots, np.int64)
    s.c_past = np.zeros(n.slots, np.int64)
    s.c_tok = np.zeros(n.slots, np.int64)
    s.c_gen = np.zeros(n.slots, np.int64)
    s.c_started = np.zeros(n.slots, np.int64)
    s.c_sent = np.zeros(n.slots, np.int64)
    s.c_used = np.zeros(n.slots, np.int64)
    s.c_lora = np.zeros(n.slots, np.int64)
    s.c_keep = np.zeros(n.slots, np.int64)
    s.c_entry = np.zeros(n.slots, np.int64)
    for c in range(n.slots):
        s.c_slot[c] = NONE
        s.c_list[c] = take_list(s.lists)
        s.c_used[c] = NONE
        s.c_entry[c] = NONE
    s.swa = n.swa
    s.swa_cells = n.swa_cells
    s.n_ubatch = n.n_ubatch
    s.max_ckpt = n.max_ckpt
    s.copy_share = n.copy_share
    s.state_bytes = n.state_bytes
    kept = s.lists.l_off.size if n.swa_cells > 0 else 0
    s.c_low = np.zeros(n.slots, np.int64)
    s.c_copied = np.zeros(n.slots, np.int64)
    s.k_n = np.zeros(kept, np.int64)
    s.k_task = np.zeros(kept * n.max_ckpt, np.int64)
    s.k_tok = np.zeros(kept * n.max_ckpt, np.int64)
    s.k_low = np.zeros(kept * n.max_ckpt, np.int64)
    s.e_list = np.empty(16, np.int64)
    s.n_entries = 0
    s.e_tokens = 0
    s.cut_prompts = 0
    s.g_kv_total = n.cells
    return s


@kernel
def log_on(s):
    """Switch the event log on, for replays."""
    s.log_on = True


@kernel
def log_view(s):
    """The event log so far."""
    return s.log[: s.log_n]


@kernel
def set_keep(s, keep):
    """``n_keep`` of each request by its id, for replays."""
    s.keep_of = keep


def _grow(s, n):
    s.next = grown(s.next, n)
