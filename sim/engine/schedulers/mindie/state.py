# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""State of one MindIE scheduler (one DP rank): three queues, block counts, what is known of each request."""

from typing import Final, NamedTuple

import numpy as np

from sim.engine.kv.mindie_blocks import MindieBlocks, new_mindie_blocks
from sim.engine.state import INF, EngineState, init_engine
from sim.jit import b1, f8, f8s, flat, i4s, i4ss, i8, i8s, kernel, new, struct

# columns of `x`
SEQ: Final = 0  # sequence id, in order of arrival
CAP: Final = 1  # tokens that the held blocks have room for
LIMIT: Final = 2  # tokens after which the request has ended
HOLD: Final = 3  # placeholders at the end of the sequence (speculation)
TABLE: Final = 4  # tokens and placeholders in the block table (speculation)
COMP: Final = 5  # tokens computed (chunked prefill)
PROMPT: Final = 6  # 1: in its prompt (or its recomputation)
CHUNK: Final = 7  # tokens in the last batch, as MindIE counts them
HIT: Final = 8  # blocks found computed at the last prefill; −1: none was looked up
HOST: Final = 9  # blocks held in host memory
ROW: Final = 10  # row of `held`, −1: none
HASHED: Final = 11  # leading blocks known by their hash
CTX: Final = 12  # tokens of the request when it was last scheduled
COLUMNS: Final = 13

# modes of a round
NONE: Final = 0
PREFILL: Final = 1
DECODE: Final = 2
MIXED: Final = 3

# stageSelectPolicy
PREFILL_FIRST: Final = 0
THROUGHPUT: Final = 1
LATENCY: Final = 2

# roles
PND: Final = 0
ROLE_P: Final = 1
ROLE_D: Final = 2
ROLES: Final = ("PnD", "P", "D")

# kinds of events in the log
RECOMPUTED: Final = 1
SWAPPED_OUT: Final = 2
SWAPPED_IN: Final = 3
IGNORED: Final = 4


@struct(viewed=True)
class MindieState(EngineState):
    """``run`` and ``swap`` are deques from their front. An entry of ``run`` below 0 is a finished request that nobody has dequeued yet: it
    still counts, and holds −1 − entry blocks (with the prefix cache: row −1 − entry of `held`)."""

    fn: i8s  # addresses of the outlined functions
    # settings
    block_size: i8
    max_prefill_batch: i8  # as configured; the dynamic batch size changes the two below
    mpb: i8
    mb: i8
    max_tokens: i8  # token budget of a round
    max_seq: i8
    max_prompt: i8  # longest prompt that a round takes
    max_input: i8
    max_iter: i8
    delay: f8
    long_delay: b1  # the delay was raised above the default: a full batch goes at once
    ms: f8  # a millisecond in units of time
    first_wait: i8  # ms
    token_timeout: f8  # units of time
    e2e_timeout: f8
    deadline: f8  # no request times out before
    max_preempt: i8
    policy: i8
    prefill_ms: i8
    decode_ms: i8
    prefill_target: f8
    decode_target: f8
    gamma: i8
    chunked: b1
    chunk: i8
    long_threshold: i8
    max_long: i8
    dynamic: b1
    caching: b1
    role: i8
    accepted: i4s  # draws of drafts accepted per step
    n_drawn: i8
    # memory
    kv: MindieBlocks
    total: i8
    free_blocks: i8  # without the prefix cache; with it, see `kv`
    host_free: i8
    reserve: i8  # below so many free blocks only decode
    held: i4ss  # [row, block] with the prefix cache
    r_count: i4s  # [row] blocks in the row
    r_tick: i4s  # [row] last access
    r_tokens: i4s  # [row] tokens in the row's blocks
    rows: i4s  # stack of free rows
    n_rows: i8
    keys: i8s
    hash_ahead: i8
    tick: f8  # a tick of the cache's clock, in units of time
    # queues
    w_slot: i4s
    w_head: i8
    w_len: i8
    n_again: i8  # recomputed requests in the waiting queue
    run: i4s
    n_run: i8
    swap: i4s
    n_swap: i8
    pull: i4s  # roles P and D: requests whose keys and values are to be moved
    n_pull: i8
    told: f8s  # [slot] when they will have been, inf: not known yet
    remote_more: b1  # role D: waiting requests may find blocks next turn
    cand: i4s
    cand2: i4s
    left: i4s
    tmp: i4s
    x: i4ss
    r_key: i8s  # hash of the last hashed block
    next_seq: i8
    # rounds
    empty: b1  # the last round was empty
    given: i8  # mode that data-parallel ranks have voted for; -1: this engine decides alone
    joined: b1  # some rank has a turn now, so all have
    poll_base: f8  # the thread looks again at poll_base + (poll + 1) milliseconds, and so on
    poll: i8
    resume: f8  # a batch that only swaps is out until then
    swap_time: f8
    new_first: b1  # a new request has waited too long: the next decode round preempts one
    waste: i8
    mode: i8
    n_new: i8  # decode rows of the last mixed round come first, then new prompts, then continued ones
    pure: f8  # time of the last completion if every running request got a token then, and none ended
    least: i8  # fewest tokens that any of them has left
    room: i8  # rounds until one of them fills a block (prefix cache)
    # latency prediction
    slope: f8
    intercept: f8
    p_sums: f8s
    p_count: i8
    d_coef: f8s
    d_rows: i8s
    d_blocks: i8s
    d_time: f8s
    d_count: i8
    stat_tokens: i8
    stat_blocks: i8
    # dynamic batch size
    dyn_stage: i8
    dyn_decoded: i8
    dyn_upper: i8
    dyn_lower: i8
    dyn_bound: i8
    lat: i8s
    lat_n: i8
    lat_at: i8
    lat_sum: i8
    bat: i8s
    bat_n: i8
    bat_at: i8
    bat_sum: i8
    bat_square: i8
    # for replays: rounds that printed something, and what preceded the last one
    n_rounds: i8
    empties: i8
    before: i8s


_WINDOW = 20000
_STORED = 1000


class MindieSettings(NamedTuple):
    """What a new state is told, by name: numbers of `MindieState`, times in seconds."""

    blocks: int
    block_size: int
    max_prefill_batch: int
    max_batch: int
    max_tokens: int
    max_seq: int
    max_input: int
    max_iter: int
    long_delay: bool
    first_wait: int
    max_preempt: int
    policy: int
    prefill_ms: int
    decode_ms: int
    gamma: int
    chunked: bool
    chunk: int
    long_threshold: int
    max_long: int
    dynamic: bool
    caching: bool
    role: int
    host_free: int
    reserve: int
    max_prompt: int
    delay: float
    ms: float
    prefill_expected: float
    decode_expected: float
    empty_batch: float
    token_timeout: float
    e2e_timeout: float


@flat
def _set(s, n):
    """What the settings say. ``n``: `MindieSettings`."""
    s.block_size = n.block_size
    s.mpb = n.max_prefill_batch
    s.max_prefill_batch = n.max_prefill_batch
    s.mb = n.max_batch
    s.max_tokens = n.max_tokens
    s.max_seq = n.max_seq
    s.max_prompt = n.max_prompt
    s.max_input = n.max_input
    s.max_iter = n.max_iter
    s.long_delay = n.long_delay
    s.first_wait = n.first_wait
    s.max_preempt = n.max_preempt
    s.policy = n.policy
    s.prefill_ms = n.prefill_ms
    s.decode_ms = n.decode_ms
    s.gamma = n.gamma
    s.chunked = n.chunked
    s.chunk = n.chunk
    s.long_threshold = n.long_threshold
    s.max_long = n.max_long
    s.dynamic = n.dynamic
    s.caching = n.caching
    s.role = n.role
    s.host_free = n.host_free
    s.total = n.blocks
    s.free_blocks = n.blocks
    s.reserve = n.reserve
    s.delay = n.delay
    s.ms = n.ms
    s.token_timeout = n.token_timeout
    s.e2e_timeout = n.e2e_timeout
    s.deadline = INF
    s.prefill_target = n.prefill_expected
    s.decode_target = n.decode_expected
    s.tick = 128000.0 * n.ms


@flat
def _hold_nothing(s, blocks):
    """An empty cache."""
    rows = 8 if s.caching else 1
    width = s.max_seq // s.block_size + 3 if s.caching else 1
    s.kv = new_mindie_blocks(blocks if s.caching else 1)
    s.held = np.zeros((rows, width), np.int32)
    s.r_count = np.zeros(rows, np.int32)
    s.r_tick = np.zeros(rows, np.int32)
    s.r_tokens = np.zeros(rows, np.int32)
    s.rows = np.empty(rows, np.int32)
    for i in range(rows):
        s.rows[i] = rows - 1 - i
    s.n_rows = rows
    s.keys = np.zeros(width, np.int64)
    s.hash_ahead = 0


@flat
def _queue_nobody(s):
    """Empty queues."""
    s.w_slot = np.empty(64, np.int32)
    s.w_head = 0
    s.w_len = 0
    s.n_again = 0
    s.run = np.empty(128, np.int32)  # running and finished, not dequeued
    s.n_run = 0
    s.swap = np.empty(64, np.int32)
    s.n_swap = 0
    s.pull = np.empty(64, np.int32)
    s.n_pull = 0
    s.told = np.full(64, INF)
    s.remote_more = False
    s.cand = np.empty(128, np.int32)
    s.cand2 = np.empty(128, np.int32)
    s.left = np.empty(128, np.int32)
    s.tmp = np.empty(128, np.int32)
    s.x = np.zeros((64, COLUMNS), np.int32)
    s.r_key = np.zeros(64, np.int64)
    s.next_seq = 0
    s.empty = True
    s.poll_base = 0.0
    s.poll = -1
    s.resume = 0.0
    s.given = -1
    s.joined = False
    s.new_first = False
    s.waste = 0
    s.mode = NONE
    s.n_new = 0
    s.pure = -1.0
    s.least = 0
    s.room = 0


@flat
def _know_nothing(s):
    """What its predictions begin with, before any step."""
    s.slope = np.float64(np.float32(0.1317))
    s.intercept = np.float64(np.float32(25.797))
    s.p_sums = np.zeros(4)
    s.p_count = 0
    s.d_coef = np.zeros(3)
    s.d_coef[0] = 0.2181
    s.d_coef[2] = 29.961
    learns = s.policy == LATENCY
    s.d_rows = np.zeros(_STORED if learns else 1, np.int64)
    s.d_blocks = np.zeros(_STORED if learns else 1, np.int64)
    s.d_time = np.zeros(_STORED if learns else 1)
    s.d_count = 0
    s.stat_tokens = 0
    s.stat_blocks = 0
    s.dyn_stage = 0
    s.dyn_decoded = 0
    s.dyn_upper = s.mb
    s.dyn_lower = 3
    s.dyn_bound = s.mb
    s.lat = np.zeros(_WINDOW if s.dynamic else 1, np.int64)
    s.lat_n = 0
    s.lat_at = 0
    s.lat_sum = 0
    s.bat = np.zeros(_WINDOW + 1 if s.dynamic else 1, np.int64)
    s.bat_n = 0
    s.bat_at = 0
    s.bat_sum = 0
    s.bat_square = 0


@kernel
def new_mindie(fn, replica, rec, cost, n, accepted):
    """A new state. ``n``: `MindieSettings`."""
    s = new(MindieState)
    init_engine(s, replica, rec, cost, 1, 1, 1, 64)
    s.fn = fn
    _set(s, n)
    s.accepted = accepted
    s.n_drawn = 0
    _hold_nothing(s, n.blocks)
    _queue_nobody(s)
    s.swap_time = n.empty_batch
    _know_nothing(s)
    s.n_rounds = 0
    s.empties = 0
    s.before = np.zeros(8, np.int64)
    s.g_kv_total = float(n.blocks)
    return s


def grow_mindie(s, n):
    """Grow everything whose size follows the number of slots."""
    old = s.x
    x = np.zeros((n, COLUMNS), np.int32)
    for i in range(old.shape[0]):
        for j in range(COLUMNS):
            x[i, j] = old[i, j]
    s.x = x
    keys = np.zeros(n, np.int64)
    for i in range(s.r_key.size):
        keys[i] = s.r_key[i]
    s.r_key = keys
    swap = np.empty(n, np.int32)
    for i in range(s.n_swap):
        swap[i] = s.swap[i]
    s.swap = swap
    pull = np.empty(n, np.int32)
    for i in range(s.n_pull):
        pull[i] = s.pull[i]
    s.pull = pull
    told = np.full(n, INF)
    for i in range(s.told.size):
        told[i] = s.told[i]
    s.told = told
    s.cand = np.empty(2 * n, np.int32)
    s.cand2 = np.empty(2 * n, np.int32)
    s.left = np.empty(2 * n, np.int32)
    s.tmp = np.empty(2 * n, np.int32)
