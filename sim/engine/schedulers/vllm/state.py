# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""State of one vLLM engine core: settings, queues, running list, block pool, and per request one row of 32-bit integers."""

from typing import NamedTuple

import numpy as np

from sim.engine.kv.blocks import BlockPool, new_block_pool
from sim.engine.schedulers.vllm.queues import SlotQueue, new_slot_queue
from sim.engine.state import EngineState, grown, init_engine
from sim.jit import b1, f8, f8s, flat, i4s, i4ss, i8, i8s, inline, kernel, new, struct

# columns of `r_x`; tokens unless said otherwise; the first 16 are what every step looks at (one cache line)
COMP = 0  # num_computed_tokens, advanced when a step is scheduled
KNOWN = 1  # prompt and outputs appended so far
PH = 2  # num_output_placeholders (async scheduling)
INFL = 3  # in steps scheduled and not yet processed
CHUNK = 4  # 1: its last step sampled nothing
STATUS = 5
CAP = 6  # what the blocks held have room for
NEXT = 7  # from this many tokens on, one more full block can be registered
LIMIT = 8  # prompt + max_tokens
STOP = 9  # prompt + outputs at which it really ends
STALE = 10  # part of INFL that was in flight at a preemption
LAZY = 11  # 1: nobody else can ask for its blocks, so they are only counted
PROMPT = 12
NSPEC = 13  # len(spec_token_ids)
CACHED = 14  # blocks registered, -1: holds nothing
ELIG = 15  # number of the step from which it may decode again (pipeline parallel)
ROW = 16  # row of `held`, -1: none
VERIFIED = 17  # verify steps so far
PULLED = 18  # 1: its KV has been asked for remotely, or need not be
RECEIVED = 19
LAST_SEQ = 20  # number of the last step it was scheduled in (deferred frees)
PREFILLING = 21  # 1: in the set of prefills and loads under way
DEFERRED = 22  # 1: was passed over in the queue since it last ran
HELD = 23  # 1: finished, but another engine still reads its blocks
N_X = 32

PREFILL_SIDE, DECODE_SIDE, TIERED = 1, 2, 3  # `VllmFields.role`

WAITING, RUNNING, PREEMPTED, ENDED, REMOTE = 0, 1, 2, 3, 4  # STATUS

NEVER = 1 << 30

# kinds of the event log; not Python ints, which would compile `log_event` once for each
NEW, RESUMED, PREEMPTION, KV_WAIT, RECV_DONE, SEND_DONE, OUT, FINISH = (np.int64(i) for i in range(1, 9))


class VllmFields(EngineState):
    """Settings first, then what changes. A scheduler that is vLLM's but for its own schedule derives its struct from this."""

    max_tokens: i8  # max_num_batched_tokens
    max_run: i8  # max_num_active_seqs or max_num_seqs
    max_len: i8  # max_model_len
    block_size: i8
    watermark: i8  # blocks
    threshold: i8  # long_prefill_token_threshold, 0: none
    adaptive: b1
    lone_exempt: b1  # a lone request ignores the threshold
    chunked: b1
    full_isl: b1
    priority: b1
    is_async: b1
    pp: i8
    interval: i8  # prefill_schedule_interval
    max_loras: i8  # 0: no limit
    k_spec: i8  # num_speculative_tokens
    lookahead: i8  # slots allocated ahead for drafts
    hash_ahead: i8  # tokens after a block that its hash covers
    drop_hit: b1  # the last block of a hit is computed again (drafting before lookahead hashes)
    slots: i8  # extra input rows per request for drafting
    accept: i4s  # drafts accepted by verify step, cyclic
    accept_spread: b1  # each request begins at its own place of `accept`
    role: i8  # of its KV connector: 0 none, PREFILL_SIDE, DECODE_SIDE, TIERED (`tiered/`)
    xfer_base: f8  # a transfer of n tokens lasts xfer_base + xfer_token · n
    xfer_token: f8
    sleep: f8  # after a decision without work while requests remain (KV connector)
    defer_free: b1
    balance: b1  # vllm-ascend: no rank admits while another's batch is full
    throttle: i8  # data-parallel ranks: 1 or 0, whether the step counter defers prompts; -1: by the engine's own steps
    shut: b1  # another rank's batch is full
    # -- queues
    wq: SlotQueue
    kvq: SlotQueue  # waiting, but holding blocks
    skip_w: i4s
    skip_k: i4s
    run: i4s
    n_run: i8
    loras: i4s  # distinct adapters in the batch
    n_loras: i8
    # -- memory
    kv: BlockPool
    held: i4ss  # [row, block]: entries of the registered blocks
    rows: i4s  # stack of free rows
    n_rows: i8
    hits: i4s
    keys: i8s  # chain hashes of `key_slot`'s first `n_keys` blocks
    new_keys: i8s
    key_slot: i8
    n_keys: i8
    # -- arguments of `allocate`
    admitting: b1
    n_hits: i8
    ext: i8
    at_once: i8  # tokens that the step itself loads
    reserved: i8
    # -- the step being planned
    p: i8
    rows_planned: i8
    budget: i8
    room: i8
    threshold_now: i8
    defer: b1
    prefills: b1  # a prompt's chunk of a running request was scheduled
    admitted: b1  # so was a prompt from the queue
    lean: i8  # leading rows whose bookkeeping is done, see `plan._decode_rows`
    lean_ctx: i8
    # -- counters and flags between steps
    step_no: i8
    n_exec: i8  # steps with work
    last_prefill: i8
    cap_bound: b1
    n_deferred: i8
    finished_pending: b1
    executed: b1  # the last decision had work
    empties: i8  # decisions without work in a row
    stuck: b1  # the head of the queue cannot be admitted before something finishes
    pure: b1  # the last planned batch: one decode token of every running request
    got: i8  # rows that received a token at the last completion
    t_got: f8
    least: i8  # decisions until one of them ends or registers a block
    # -- KV connector
    in_n: i8
    in_slot_x: i4s
    in_time: f8s
    out_n: i8
    out_slot: i4s
    out_time: f8s
    in_order: b1  # transfers that end together are seen in the order of ids (a set upstream)
    n_send: i8
    seq_s: i8
    seq_p: i8
    df_head: i8  # deferred frees, a ring: step, blocks without and with hash, row
    df_len: i8
    df: i4ss
    # -- request columns
    r_x: i4ss
    r_key: i8s  # chain hash of the registered blocks


@struct(viewed=True)
class VllmState(VllmFields):
    """One engine core of vLLM."""


class VllmSettings(NamedTuple):
    """What a new state is told, by name (`VllmFields` says what each is)."""

    depth: int
    blocks: int
    enable_prefix_caching: bool
    lifo: bool
    max_num_batched_tokens: int
    max_run: int
    max_model_len: int
    block_size: int
    watermark: int
    long_prefill_token_threshold: int
    threshold_adaptive: bool
    lone_exempt: bool
    enable_chunked_prefill: bool
    scheduler_reserve_full_isl: bool
    priority: bool
    async_scheduling: bool
    pp: int
    prefill_schedule_interval: int
    max_loras: int
    drafts: int
    lookahead: int
    hash_ahead: int
    draft_slots: int
    accept_spread: bool
    role: int
    drop_hit: bool
    balance: bool
    transfer_base: float
    transfer_per_token: float
    idle_poll: float


@flat
def _set(s, n, depth):
    """What the settings say. ``n``: `VllmSettings`."""
    s.max_tokens = n.max_num_batched_tokens
    s.max_run = n.max_run
    s.max_len = n.max_model_len
    s.block_size = n.block_size
    s.watermark = n.watermark
    s.threshold = n.long_prefill_token_threshold
    s.adaptive = n.threshold_adaptive
    s.lone_exempt = n.lone_exempt
    s.chunked = n.enable_chunked_prefill
    s.full_isl = n.scheduler_reserve_full_isl
    s.priority = n.priority
    s.is_async = n.async_scheduling
    s.pp = n.pp
    s.interval = n.prefill_schedule_interval
    s.max_loras = n.max_loras
    s.k_spec = n.drafts
    s.lookahead = n.lookahead
    s.hash_ahead = n.hash_ahead
    s.slots = n.draft_slots
    s.accept_spread = n.accept_spread
    s.role = n.role
    s.drop_hit = n.drop_hit
    s.xfer_base = n.transfer_base
    s.xfer_token = n.transfer_per_token
    s.sleep = n.idle_poll
    s.defer_free = s.role >= DECODE_SIDE and depth > 1
    s.balance = n.balance


@inline
def init_vllm(s, replica, rec, cost, n, accept):
    """Fill a new state. ``n``: `VllmSettings`; ``accept``: drafts accepted by verify step."""
    slots = 64
    depth, blocks, caching = n.depth, n.blocks, n.enable_prefix_caching
    init_engine(s, replica, rec, cost, depth, n.max_run, n.pp, slots)
    _set(s, n, depth)
    s.accept = accept
    s.throttle = -1
    s.shut = False
    s.wq = new_slot_queue()
    s.kvq = new_slot_queue()
    s.skip_w = np.empty(slots, np.int32)
    s.skip_k = np.empty(slots, np.int32)
    s.run = np.empty(s.max_run, np.int32)
    s.n_run = 0
    s.loras = np.empty(s.max_run + s.max_loras + 1, np.int32)
    s.kv = new_block_pool(blocks, caching, n.lifo)
    longest = min((s.max_len + s.block_size - 1) // s.block_size, blocks) + 1
    rows = 8 if caching else 1
    s.held = np.empty((rows, longest if caching else 1), np.int32)
    s.rows = np.empty(rows, np.int32)
    for i in range(rows):
        s.rows[i] = rows - 1 - i
    s.n_rows = rows
    s.hits = np.empty(longest, np.int32)
    s.keys = np.empty(longest + 1, np.int64)
    s.new_keys = np.empty(longest + 1, np.int64)
    s.key_slot = -1
    s.n_keys = 0
    s.at_once = 0
    s.lean = 0
    s.lean_ctx = 0
    s.step_no = 0
    s.n_exec = 0
    s.last_prefill = -s.interval
    s.cap_bound = False
    s.n_deferred = 0
    s.finished_pending = False
    s.executed = False
    s.empties = 0
    s.stuck = False
    s.pure = False
    s.got = 0
    s.t_got = -1.0
    s.least = 0
    s.in_n = 0
    s.in_slot_x = np.empty(slots, np.int32)
    s.in_time = np.empty(slots)
    s.out_n = 0
    s.out_slot = np.empty(slots, np.int32)
    s.out_time = np.empty(slots)
    s.in_order = False
    s.n_send = 0
    s.seq_s = 0
    s.seq_p = 0
    s.df_head = 0
    s.df_len = 0
    s.df = np.empty((4 * slots, 5), np.int32)
    s.r_x = np.zeros((slots, N_X), np.int32)
    s.r_key = np.zeros(slots, np.int64)
    s.g_kv_total = float(blocks)


@kernel
def new_vllm(replica, rec, cost, n, accept):
    """A new state, see `init_vllm`."""
    s = new(VllmState)
    init_vllm(s, replica, rec, cost, n, accept)
    return s


def grow_vllm(s, n):
    """Own request columns to ``n`` rows."""
    x = np.zeros((n, N_X), np.int32)
    for i in range(s.r_x.shape[0]):
        for j in range(N_X):
            x[i, j] = s.r_x[i, j]
    s.r_x = x
    s.r_key = grown(s.r_key, n)
    s.skip_w = grown(s.skip_w, n)
    s.skip_k = grown(s.skip_k, n)
    s.in_slot_x = grown(s.in_slot_x, n)
    s.in_time = grown(s.in_time, n)
    s.out_slot = grown(s.out_slot, n)
    s.out_time = grown(s.out_time, n)
    df = np.empty((4 * n, 5), np.int32)
    old = s.df.shape[0]
    for i in range(s.df_len):
        for j in range(5):
            df[i, j] = s.df[(s.df_head + i) % old, j]
    s.df = df
    s.df_head = 0
