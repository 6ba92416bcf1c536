# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""State of one V0 engine: settings, three queues, block counts, and per request one row of 32-bit integers.

Without prefix caching it decides nothing which block a request gets: blocks of the accelerator and of the host are only counted.
"""

from typing import NamedTuple

import numpy as np

from sim.engine.state import EngineState, grown, init_engine
from sim.jit import b1, f8, i4s, i4ss, i8, kernel, new, struct

# columns of `r_x`, in tokens unless said otherwise
LEN = 0  # prompt and outputs so far
COMP = 1  # computed, of a prompt under way
PREFILL = 2  # 1: still (or again) computing its prompt
BLOCKS = 3  # blocks held, on the accelerator or (swapped) on the host
STATUS = 4
STOP = 5  # length at which it really ends
PLACED = 6  # number of the last step that it was part of
N_X = 8

WAITING, RUNNING, SWAPPED, ENDED = 0, 1, 2, 3  # STATUS; ENDED: its last token is out, the scheduler learns of it one step later

# `q_aux`
CHUNK, SAMPLES, GHOST = 0, 1, 2  # samples nothing; samples a token; ended before the step

# kinds of the event log; not Python ints, which would compile `log_event` once for each
STEP, ROW, RECOMPUTE, SWAP_OUT, SWAP_IN, IGNORED, FINISH = (np.int64(i) for i in range(1, 8))


@struct(viewed=True)
class V0State(EngineState):
    """Settings first, then what changes."""

    max_tokens: i8  # max_num_batched_tokens
    max_run: i8  # max_num_seqs
    max_len: i8  # max_model_len
    block_size: i8
    watermark: i8  # blocks
    max_paddings: i8
    lookahead: i8  # num_lookahead_slots
    max_loras: i8  # 0: no limit
    chunked: b1
    swap: b1  # preemption_mode
    manager_v2: b1  # block manager v2
    by_arrival: b1  # queues are sorted by arrival at each decision (to 0.5.4)
    padded: b1  # prompts of a batch are padded to the longest (to 0.3)
    never_swaps: b1  # what never fits back is failed (from 0.4)
    finishing_first: b1  # prompts that end in this step go before those that do not (0.7.3)
    by_priority: b1
    is_async: b1  # asynchronous output processing
    delay: f8  # scheduler_delay_factor
    # -- queues
    w_slot: i4s  # waiting
    w_head: i8
    w_len: i8
    run: i4s
    n_run: i8
    swapped: i4s
    n_swapped: i8
    skip: i4s  # passed over for their adapter
    victims: i4s  # preempted in this decision, in this order
    n_victims: i8
    loras: i4s
    n_loras: i8
    # -- memory
    gpu_total: i8
    gpu_free: i8
    host_total: i8
    host_free: i8
    # -- the step being planned
    p: i8
    rows: i8
    budget: i8  # tokens
    seqs: i8  # sequences counted so far
    copied: i8  # blocks between accelerator and host
    longest: i8  # padded prompts
    prompts: i8  # prompts admitted in this step
    preempted: b1
    lists: i4ss  # scratch of the chunked schedule: running, swapped in (decodes, prompts), decodes, prompts, admitted
    n_lists: i4s
    # -- between steps
    step_no: i8
    n_ended: i8
    prev_time: f8
    prev_prompt: b1
    latency: f8  # of the last step with prompts
    earliest: f8  # arrival of the oldest waiting request when the decision began
    stuck: b1  # nothing in the queues can be admitted before something finishes
    pure: b1  # the last planned batch: one decode token of every running request
    got: i8
    t_got: f8
    least: i8  # tokens until the first of them ends
    # -- request columns
    r_x: i4ss


class V0Settings(NamedTuple):
    """What a new state is told, by name."""

    blocks: int
    host_blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int
    block_size: int
    watermark: int
    max_paddings: int
    num_lookahead_slots: int
    max_loras: int
    chunked: bool
    swap: bool
    manager_v2: bool
    by_arrival: bool
    padded: bool
    never_swaps: bool
    finishing_first: bool
    by_priority: bool
    is_async: bool
    delay_factor: float


@kernel
def new_v0(replica, rec, cost, n):
    """A new state. ``n``: `V0Settings`."""
    s = new(V0State)
    slots = 64
    blocks, host_blocks, max_run = n.blocks, n.host_blocks, n.max_num_seqs
    init_engine(s, replica, rec, cost, 1, max_run, 1, slots)
    s.max_tokens = n.max_num_batched_tokens
    s.max_run = max_run
    s.max_len = n.max_model_len
    s.block_size = n.block_size
    s.watermark = n.watermark
    s.max_paddings = n.max_paddings
    s.lookahead = n.num_lookahead_slots
    s.max_loras = n.max_loras
    s.chunked = n.chunked
    s.swap = n.swap
    s.manager_v2 = n.manager_v2
    s.by_arrival = n.by_arrival
    s.padded = n.padded
    s.never_swaps = n.never_swaps
    s.finishing_first = n.finishing_first
    s.by_priority = n.by_priority
    s.is_async = n.is_async
    s.delay = n.delay_factor
    s.w_slot = np.empty(slots, np.int32)
    s.w_head = 0
    s.w_len = 0
    s.run = np.empty(max_run + 1, np.int32)
    s.n_run = 0
    s.swapped = np.empty(slots, np.int32)
    s.n_swapped = 0
    s.skip = np.empty(slots, np.int32)
    s.victims = np.empty(max_run + 1, np.int32)
    s.n_victims = 0
    s.loras = np.empty(max_run + s.max_loras + 1, np.int32)
    s.n_loras = 0
    s.gpu_total = blocks
    s.gpu_free = blocks
    s.host_total = host_blocks
    s.host_free = host_blocks
    s.p = 0
    s.rows = 0
    s.budget = 0
    s.seqs = 0
    s.copied = 0
    s.longest = 0
    s.prompts = 0
    s.preempted = False
    s.lists = np.empty((6, max_run + 1), np.int32)
    s.n_lists = np.zeros(6, np.int32)
    s.step_no = 0
    s.n_ended = 0
    s.prev_time = 0.0
    s.prev_prompt = False
    s.latency = 0.0
    s.earliest = 0.0
    s.stuck = False
    s.pure = False
    s.got = 0
    s.t_got = -1.0
    s.least = 0
    s.r_x = np.zeros((slots, N_X), np.int32)
    s.g_kv_total = float(blocks)
    return s


def grow_v0(s, n):
    """Own request columns to ``n`` rows."""
    x = np.zeros((n, N_X), np.int32)
    for i in range(s.r_x.shape[0]):
        for j in range(N_X):
            x[i, j] = s.r_x[i, j]
    s.r_x = x
    s.swapped = grown(s.swapped, n)
    s.skip = grown(s.skip, n)
