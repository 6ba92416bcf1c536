# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The state of a new scheduler process, and its growth with the requests it has."""

import numpy as np

from sim.engine.kv.radix import new_radix
from sim.engine.schedulers.sglang.state import LAST, PLAIN, SAVED, fill_own, widen_own
from sim.engine.state import grown, init_engine
from sim.jit import inline, kernel


@inline
def _places(s, depth, rows, slots):
    """Batches: those of each pipeline slot, those in flight, and what their results leave to be done."""
    s.m_run = np.empty((slots, rows), np.int32)
    s.m_saved = np.zeros((slots, SAVED), np.int64)
    s.m_saved[:, LAST] = -1
    s.m_busy = np.zeros(slots, np.int64)
    s.slots = slots
    s.slot = 0
    s.next_slot = 0
    s.n_elsewhere = 0
    s.run = s.m_run[0]
    s.n_run = 0
    s.run_full = False
    s.run_extend = 0
    s.chunked = -1
    s.last = -1
    places = depth + 1
    s.p_mode = np.zeros(places, np.int64)
    s.p_prefills = np.zeros(places, np.int64)
    s.p_chunked = np.zeros(places, np.int64)
    s.p_extend = np.zeros(places, np.int64)
    s.p_slot = np.zeros(places, np.int64)
    s.z_n = 0
    s.z_slot = np.empty((depth + 1) * rows, np.int32)
    s.z_after = np.empty((depth + 1) * rows, np.int64)
    s.n_ended = 0
    s.same = 0
    s.least_left = 0
    s.chain = 0


@inline
def _sides(s):
    """Of a prefill or decode side: requests kept for others, and those whose KV comes."""
    s.side = 0
    s.num_reserved = 0
    s.stuck = False
    s.joined = False
    s.k_slot = np.empty(64, np.int32)
    s.k_time = np.empty(64)
    s.n_kept = 0
    s.t_slot = np.empty(64, np.int32)
    s.t_time = np.empty(64)
    s.n_transfer = 0
    s.ready = np.empty(64, np.int32)
    s.n_ready = 0
    s.out_slot = np.empty(64, np.int32)
    s.n_out = 0


@inline
def _prefill(s, rows):
    """What the next prefill batch is made with: requests, adapters, orders of the queue."""
    s.can = np.empty(rows, np.int32)
    s.n_can = 0
    s.new_chunked = -1
    s.a_window = 0
    s.pool = PLAIN
    s.l_on = False
    s.l_pass = 0
    s.l_due = 1 << 40
    s.tracking = 0
    s.track_every = 0
    s.lazy = False
    s.few_slots = False
    s.x_n = 0
    s.x_left = np.empty(2 * rows)
    s.x_held = np.empty(2 * rows, np.int64)
    s.pre_slot = np.empty(rows, np.int32)
    s.n_pre = 0
    s.pick = np.empty(rows, np.int32)
    s.loras = np.empty(rows, np.int32)
    s.n_loras = 0
    s.o_slot = np.empty(64, np.int32)
    s.o_a = np.empty(64)
    s.o_b = np.empty(64)
    s.o_rank = np.empty(64, np.int32)
    s.o_tmp = np.empty(64, np.int32)
    s.d_weight = np.zeros(256, np.int32)
    s.d_child = np.zeros(256, np.int32)
    s.d_next = np.zeros(256, np.int32)
    s.d_touched = np.zeros(256, np.int32)


@kernel
def init_sglang(
    s, fn, tree_fn, queue_fn, replica, rec, cost, kv_tokens, page, max_running, depth, policy, eviction, off, mt, stages, slots
):
    """Fill a new state; the settings not passed start at their neutral values."""
    init_engine(s, replica, rec, cost, depth, max_running + 2, stages, 64)
    s.fn = fn
    one = page // page  # not a literal: it would compile the function a second time
    s.tree = new_radix(tree_fn, page, kv_tokens, eviction, off, 256)
    s.queue_tree = new_radix(queue_fn, one, page, page - page, off, 256)
    s.kv_tokens = kv_tokens
    s.page = page
    s.max_running = max_running
    s.micro = max_running
    s.policy = policy
    s.overlap = depth == 2 and slots == 1
    s.priority_sign = 1
    s.rows_free = max_running
    s.calls = 0
    s.stamp = 0
    s.processed = 0
    s.interval_left = 0
    s.planned = 0
    s.mail = np.empty(64, np.int32)
    s.n_mail = 0
    s.recv_count = 0
    s.w_slot = np.empty(128, np.int32)  # a window of twice the slots, moved back when it reaches the end
    s.w_lo = 0
    s.w_hi = 0
    rows = max_running + 2
    _places(s, depth, rows, slots)
    _sides(s)
    _prefill(s, rows)
    s.mt = mt
    s.mt_i = 624
    s.g_kv_total = float(kv_tokens)
    fill_own(s, 64)


@kernel
def grow_sglang(s, n):
    """Grow everything whose size follows the number of slots."""
    widen_own(s, n)
    s.mail = grown(s.mail, n)
    s.k_slot = grown(s.k_slot, n)
    s.k_time = grown(s.k_time, n)
    s.t_slot = grown(s.t_slot, n)
    s.t_time = grown(s.t_time, n)
    s.ready = grown(s.ready, n)
    s.out_slot = grown(s.out_slot, n)
    s.w_slot = grown(s.w_slot, 2 * n)
    s.o_slot = grown(s.o_slot, n)
    s.o_rank = grown(s.o_rank, n)
    s.o_tmp = grown(s.o_tmp, n)
    s.o_a = grown(s.o_a, n)
    s.o_b = grown(s.o_b, n)
