# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The state of one SGLang scheduler process (one DP rank). Lengths in tokens."""

from typing import Final, NamedTuple

from sim.engine.kv.radix import Radix
from sim.engine.rows import columns_of
from sim.engine.state import EngineState
from sim.jit import b1, f8, f8s, f8ss, i4s, i4ss, i8, i8s, i8ss, inline, struct

FCFS, LPM, DFS_WEIGHT, LOF, RANDOM, HRRN, SHORTEST = range(7)
SCHEDULE_POLICIES: Final = ("fcfs", "lpm", "dfs-weight", "lof", "random", "hrrn", "shortest-prefill-first")

NONE, EXTEND, MIXED, DECODE = range(4)  # forward modes of a batch
MODES: Final = ("none", "extend", "mixed", "decode")

CLIP_MAX_NEW: Final = 4096  # schedule_policy.py: CLIP_MAX_NEW_TOKENS
RETRACT_STEPS: Final = 20  # SGLANG_RETRACT_DECODE_STEPS
IGNORE_EOS: Final = 4  # flag of a request beside WATCH_*: sent with ignore_eos

PLAIN, WINDOW, STATES = range(3)  # what there is beside the pool of full KV
OWN_STATE, TRACKING, AHEAD = 1, 2, 4  # bits of `r_slots`

LOG_RETRACT, LOG_PREEMPT, LOG_FINISH = 1, 2, 3

RUNNING, FULL, FOUNDED, LAST, ENDED_ROWS, LEAST = range(6)  # fields of a slot that is not visited
SAVED: Final = 6


class OwnColumns:
    """The scheduler's own columns of requests."""

    r_max_new: i4s
    r_pre: i4s  # prefix_len: tokens whose KV exists
    r_end: i4s  # extend_end
    r_fill: i4s  # length of the ids known at the last refresh
    r_own: i4s  # cache_protected_len: tokens the tree owns
    r_ins: i4s  # inserted_len: for hit counts
    r_com: i4s  # kv_committed_len
    r_alloc: i4s  # allocated beyond r_com by speculation (else what the last extend allocated)
    r_node: i4s  # node of the last match
    r_lock: i4s  # node this request holds, −1: none
    r_hit: i4s  # matched prefix, less than the length
    r_middle: i4s  # inflight_middle_chunks
    r_stamp: i8s
    r_processed: i8s  # processed_tokens_counter at entry to the queue
    r_batch: i8s  # number of the last batch it is in
    r_row: i4s  # holds a row of req_to_token
    r_ended: i4s
    r_retracted: i4s


class SecondColumns:
    """What requests hold of a pool beside that of full KV; empty without one."""

    r_branch: i4s  # where the tree should get a node, −1: nowhere
    r_mark: i4s  # far end of the lock on window KV
    r_gone: i4s  # swa_evicted_seqlen: tokens whose window KV is freed
    r_begun: i4s  # extend batches it has been in, and 1 << 16 once it has decoded
    r_slots: i4s  # slots for states it holds (bits)
    r_tracked: i4s  # length whose state is in the tracking slot, −1: none, and the one before it
    r_before: i4s


fill_own, widen_own = columns_of(OwnColumns)
fill_second, widen_second = columns_of(SecondColumns)


@struct(viewed=True)
class SglangState(EngineState, OwnColumns, SecondColumns):
    """Waiting queue, running batch, the one chunked request, the radix tree and the settings that decisions look at."""

    fn: i8s  # addresses of the outlined functions
    tree: Radix
    queue_tree: Radix  # page-1 tree of the waiting queue (in-batch prefix caching)
    # -- settings
    kv_tokens: i8
    page: i8
    max_running: i8
    micro: i8  # pp_max_micro_batch_size: most running requests of one batch
    chunk: i8  # chunked_prefill_size, 0: off
    max_prefill: i8
    prefill_max_requests: i8  # 0: no limit
    interval: i8  # prefill_decode_interval
    interval_min_bs: i8
    min_free_slots: i8  # 0: off
    max_queued: i8  # 0: no limit
    lora_limit: i8  # max_loras_per_batch, 0: no limit
    recv_interval: i8  # scheduler_recv_interval
    policy: i8
    overlap: b1
    mixed: b1
    priority_on: b1
    preempt_on: b1
    priority_sign: i8  # +1: the higher value goes first
    threshold: i8
    retract_by_priority: b1
    ignore_eos: b1  # every request
    out_at_prompt: b1  # generated tokens are numbered from the prompt's length (recordings), not from 0
    recorded_clock: b1  # replays: see `step._idle`
    idle_seen: b1
    spins: i8
    max_req_len: i8
    init_ratio: f8
    min_ratio: f8
    decay: f8
    # -- speculative decoding
    spec_reserve: i8  # tokens of KV reserved beyond the committed ones, 0: off
    spec_steps: i8  # most draft tokens that one step can accept
    spec_draft: i8  # tokens verified per row and step
    spec_proposed: i8  # tokens that the draft computes per row and step
    spec_right: f8s  # [spec_steps] probability that the draft token at a position is accepted
    spec_seed: i8
    # -- new_token_ratio and counters
    ratio: f8
    processed: i8  # processed_tokens_counter
    calls: i8  # calls of calc_priority that may refresh waiting prefixes
    stamp: i8  # wait_queue_entry_time
    interval_left: i8
    rows_free: i8  # rows of req_to_token
    # -- arrivals that the next poll will find (`intake`)
    mail: i4s
    n_mail: i8
    recv_count: i8
    # -- waiting queue: a window of `w_slot`
    w_slot: i4s
    w_lo: i8
    w_hi: i8
    # -- running batch
    run: i4s
    n_run: i8
    run_full: b1  # batch_is_full
    run_extend: i8  # extend_num_tokens of the batch object that founded it
    chunked: i8  # slot, −1: none
    # -- pipeline parallelism (`micro.py`): the fields above and below are those of micro-batch slot `slot`, the others' are put by
    slots: i8  # 1: no pipeline
    slot: i8
    next_slot: i8  # to be visited next
    n_elsewhere: i8  # running requests of the other slots
    m_busy: i8s  # [slot] 1: its batch is in flight
    m_run: i4ss  # [slot, row]
    m_saved: i8ss  # [slot, field]
    p_slot: i8s  # [place] slot whose batch it is
    # -- the batch launched by the last decision (place −1: none) and what is noted per ring place
    last: i8
    p_mode: i8s
    p_prefills: i8s  # leading rows that are prompts
    p_chunked: i8s
    p_extend: i8s
    # -- prefill and decode sides (`sides.py`)
    side: i8
    num_reserved: i8  # num_reserved_decode_tokens
    stuck: b1  # who waits for memory cannot get it before something but time changes
    joined: b1  # requests have joined the running batch since the last decode batch
    k_slot: i4s  # prompts computed, KV not yet read, and when it will be
    k_time: f8s
    n_kept: i8
    t_slot: i4s  # memory taken, KV on its way, and when it will be there
    t_time: f8s
    n_transfer: i8
    ready: i4s  # KV there, to join the running batch
    n_ready: i8
    out_slot: i4s  # retracted, KV in host memory
    n_out: i8
    # -- finished requests whose slot a batch in flight may still name
    planned: i8  # number of batches planned
    z_n: i8
    z_slot: i4s
    z_after: i8s
    n_ended: i8  # finished since the running batch was last filtered
    same: i8  # successive decode batches with the same rows
    least_left: i8  # no running request is nearer to its end than so many tokens
    chain: i8  # number of the first of the decode batches in a row that the running requests are in
    # -- PrefillAdder
    can: i4s
    n_can: i8
    new_chunked: i8  # the request this pass cuts, −1: none
    a_input: i8
    a_chunk: i8
    a_total: f8
    a_current: i8
    a_window: i8
    x_n: i8  # sorted (tokens left, tokens held) of the exact admission for ignore_eos without a cache
    x_left: f8s
    x_held: i8s
    pre_slot: i4s  # preempted in this pass
    n_pre: i8
    pick: i4s  # scratch
    loras: i4s  # distinct adapters of the batch and the pass
    n_loras: i8
    # -- scratch of the queue order
    o_slot: i4s
    o_a: f8s
    o_b: f8s
    o_rank: i4s
    o_tmp: i4s
    d_weight: i4s  # per tree node, zero between passes
    d_child: i4s
    d_next: i4s
    d_touched: i4s
    mt: i8s  # Mersenne Twister of the `random` policy
    mt_i: i8
    tc: f8s  # `sim.engine.tiers.counts`, where host memory keeps copies (`hierarchy.py`)
    t_now: f8s  # `sim.engine.tiers.series`
    t_was: f8s
    t_at: f8
    # -- storage behind host memory (`storage.py`)
    l_on: b1
    l_tier: i8  # its place among tiers
    l_threshold: i8  # tokens below which nothing is fetched
    l_policy: i8
    l_base: f8  # seconds that a request is passed over, and those for each token that comes
    l_per_token: f8
    l_occupied: i8  # tokens that waiting requests want from it
    l_free: f8  # when the thread that fetches is done with what it has done
    l_req: f8ss  # [slot, field]: what is fetched for a request
    l_line: i4s  # requests in the order in which it is
    l_n: i8
    l_pass: i8  # decisions so far
    l_due: i8  # the decision before which a missed fetch is tried again
    # -- a pool beside that of full KV (`window.py`, `recurrent.py`)
    pool: i8
    tracking: i8  # slots in which a request tracks states
    track_every: i8  # lengths at which a decoding request tracks its state, 0: never
    few_slots: b1  # they limit the running requests
    lazy: b1  # the slot for the next length is taken when it is reached


class SglangSettings(NamedTuple):
    """What a new state is told, by name (`SglangState` says what each is); ``spare_rows``: rows for requests on their way."""

    kv_tokens: int
    page: int
    max_running: int
    depth: int
    policy: int
    eviction: int
    chunk: int
    max_prefill: int
    prefill_max_requests: int
    interval: int
    interval_min_bs: int
    min_free_slots: int
    max_queued: int
    priority_sign: int
    threshold: int
    max_req_len: int
    spec_reserve: int
    spec_steps: int
    spec_draft: int
    spec_seed: int
    stages: int
    slots: int
    micro: int
    lora_limit: int
    recv_interval: int
    side: int
    num_reserved: int
    spare_rows: int
    spec_proposed: int
    cache_off: bool
    mixed: bool
    priority_on: bool
    preempt_on: bool
    retract_by_priority: bool
    ignore_eos: bool
    recording: bool
    init_ratio: float
    min_ratio: float
    decay: float


@inline
def total_len(s, slot):
    """Tokens of prompt and output."""
    return s.r_prompt[slot] + s.r_done[slot] + 0


@inline
def ceil_page(s, n):
    """Round up to whole pages."""
    return (n + s.page - 1) // s.page * s.page


@inline
def ignores_eos(s, slot):
    """Whether the request was sent with ignore_eos."""
    return s.ignore_eos or (s.r_watch[slot] & IGNORE_EOS) != 0
