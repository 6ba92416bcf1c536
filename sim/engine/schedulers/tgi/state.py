# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""State of one TGI server: router queue, the batch on the model server, block allocator."""

from typing import Final, NamedTuple

import numpy as np

from sim.engine.kv.tgi_blocks import TgiBlocks, new_tgi_blocks
from sim.engine.state import INF, EngineState, init_engine
from sim.jit import b1, f8, f8s, i4s, i8, i8s, kernel, new, struct

NONE: Final = -1

# where the batching task is
WAIT: Final = 0  # for a new request
POLL: Final = 1  # no batch: the queue is asked for a first one
RUN: Final = 2  # a batch exists: the queue is asked for newcomers
DECODE: Final = 3  # newcomers have just been prefilled: a decode follows without asking

# what becomes of a request whose blocks are given back
GONE: Final = 0  # it has ended
AGAIN: Final = 1  # a leg has ended: to the tail of the queue
BACK: Final = 2  # it was put back to the head of the queue

# what the last forward was
FIRST: Final = 0  # prefill without a batch
MIXED: Final = 1  # prefill of newcomers together with the running rows (chunking)
ALONE: Final = 2  # prefill of newcomers while the running rows pause
STEP: Final = 3  # decode


@struct(viewed=True)
class TgiState(EngineState):
    """Queue, batch and settings. Rows of the batch are in the order of the model server; per-slot columns begin with ``t_``."""

    fn: i8s  # addresses of the outlined functions
    kv: TgiBlocks
    # settings
    v3: b1
    padded: b1  # a model without flash attention: rows are padded to the longest
    chunking: b1
    caching: b1
    phantom: b1
    block: i8
    window: i8
    speculate: i8
    prefill_budget: i8  # max_batch_prefill_tokens
    token_budget: i8  # max_batch_total_tokens
    ratio: f8
    max_waiting: i8
    max_size: i8  # max_batch_size, or NONE
    permits: i8  # max_concurrent_requests
    max_input: i8
    max_total: i8
    leg: i8  # tokens generated before a request is queued anew
    accepted: i8s  # draws of tokens that a decode step yields
    # queue
    w_slot: i4s
    w_head: i8
    w_len: i8
    o_slot: i8s  # requests whose blocks are given back before the next decision, in this order
    o_what: i8s
    n_out: i8
    notified: b1
    in_use: i8  # permits taken
    freed: i8  # permits given back at `freed_at`
    freed_at: f8
    leavers: i8  # live requests whose client will leave
    n_overloaded: i8  # 429
    n_invalid: i8  # 422
    # batching task
    phase: i8
    op: i8
    waiting_tokens: i8
    next_batch: i8
    stuck: b1  # the head of the queue found no blocks; nothing has been freed since
    # batch
    b_slot: i8s
    b_next: i8s  # next chunk of a row whose prompt is not finished by this forward
    n: i8
    first: i8  # rows [first, n) take part in the current forward
    added: i8  # rows that the current forward has as newcomers
    prefilling: b1  # some row has prompt tokens left
    settled: b1  # the last forward was a decode of exactly the present rows
    soonest: i8  # tokens until the first of the rows in the last forward ends
    batch_id: i8
    new_id: i8  # batch of the newcomers; NONE once it is part of the running one
    c_tokens: i8  # max_tokens of the batch in the last forward
    c_current: i8  # tokens of its next forward
    nb_tokens: i8  # of the last batch formed
    nb_blocks: i8
    held: i8  # blocks of running requests, of a shared prefix once for each
    # per slot
    t_leaves: f8s  # when the client leaves (inf: never)
    t_logprobs: i8s  # 1: prompt log-probabilities are wanted, so no cached prefix
    t_prompt: i8s  # prompt of the current leg
    t_limit: i8s  # max_new_tokens of the current leg
    t_made: i8s  # tokens generated in the current leg
    t_cache: i8s  # tokens in the KV cache
    t_input: i8s  # tokens of the next forward
    t_hit: i8s  # cached tokens at admission, as the model server is told
    t_chunk: i8s  # first chunk, or NONE
    t_node: i8s
    t_prefix: i8s
    t_blocks: i8s


class TgiSettings(NamedTuple):
    """What a new state is told, by name."""

    v3: bool
    padded: bool
    chunking: bool
    caching: bool
    phantom: bool
    track: bool
    block: int
    window: int
    speculate: int
    prefill_budget: int
    token_budget: int
    max_waiting: int
    max_size: int
    permits: int
    max_input: int
    max_total: int
    leg: int
    rows: int
    ratio: float


@kernel
def new_tgi_state(replica, rec, cost, fn, kv_fn, n, accepted):
    """One server. ``fn``, ``kv_fn``: `addresses` of `TgiState` and `TgiBlocks`; ``n``: `TgiSettings`."""
    s = new(TgiState)
    slots = 64
    init_engine(s, replica, rec, cost, 1, 1, 1, slots)
    s.kv = new_tgi_blocks(kv_fn, n.block, n.token_budget // n.block, n.window, n.track)
    s.fn = fn
    s.v3 = n.v3
    s.padded = n.padded
    s.chunking = n.chunking
    s.caching = n.caching
    s.phantom = n.phantom
    s.block = n.block
    s.window = n.window
    s.speculate = n.speculate
    s.prefill_budget = n.prefill_budget
    s.token_budget = n.token_budget
    s.ratio = n.ratio
    s.max_waiting = n.max_waiting
    s.max_size = n.max_size
    s.permits = n.permits
    s.max_input = n.max_input
    s.max_total = n.max_total
    s.leg = n.leg
    s.accepted = accepted
    s.w_slot = np.empty(slots, np.int32)
    s.w_head = 0
    s.w_len = 0
    s.o_slot = np.empty(n.rows, np.int64)
    s.o_what = np.empty(n.rows, np.int64)
    s.n_out = 0
    s.notified = False
    s.in_use = 0
    s.freed = 0
    s.freed_at = -1.0
    s.leavers = 0
    s.n_overloaded = 0
    s.n_invalid = 0
    s.phase = WAIT
    s.op = STEP
    s.waiting_tokens = 0
    s.next_batch = 0
    s.stuck = False
    s.b_slot = np.empty(n.rows, np.int64)
    s.b_next = np.empty(n.rows, np.int64)
    s.n = 0
    s.first = 0
    s.added = 0
    s.prefilling = False
    s.settled = False
    s.soonest = 0
    s.batch_id = NONE
    s.new_id = NONE
    s.c_tokens = 0
    s.c_current = 0
    s.nb_tokens = 0
    s.nb_blocks = 0
    s.held = 0
    s.t_leaves = np.full(slots, INF)
    s.t_logprobs = np.zeros(slots, np.int64)
    s.t_prompt = np.zeros(slots, np.int64)
    s.t_limit = np.zeros(slots, np.int64)
    s.t_made = np.zeros(slots, np.int64)
    s.t_cache = np.zeros(slots, np.int64)
    s.t_input = np.zeros(slots, np.int64)
    s.t_hit = np.zeros(slots, np.int64)
    s.t_chunk = np.zeros(slots, np.int64)
    s.t_node = np.zeros(slots, np.int64)
    s.t_prefix = np.zeros(slots, np.int64)
    s.t_blocks = np.zeros(slots, np.int64)
    s.g_kv_total = max(n.token_budget // n.block - 1, 1) if n.v3 and not n.padded else max(n.token_budget // n.block, 1)
    return s
