# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""AscendScheduler: a step is a batch of whole prompts or a token of every running request, over the block manager of vLLM V1.

*Source*: vllm-ascend 0.9.1 and 0.11 ``vllm_ascend/core/scheduler.py`` (``schedule``, ``_check_watermark_for_prefill``).
"""

import numpy as np

from sim.engine.contract import NOTHING, clear_place, next_place
from sim.engine.schedulers.vllm.admit import _adapter_fits, _begin, _load_adapter
from sim.engine.schedulers.vllm.memory import ONE, look_up
from sim.engine.schedulers.vllm.plain_caches import plain_caches
from sim.engine.schedulers.vllm.plan import _make_space, conclude, has_requests
from sim.engine.schedulers.vllm.queues import queue_add, queue_take
from sim.engine.schedulers.vllm.seam import grant, lean_rows
from sim.engine.schedulers.vllm.state import (
    ENDED,
    KNOWN,
    LAZY,
    STATUS,
    VllmFields,
    grow_vllm,
    init_vllm,
)
from sim.engine.schedulers.vllm.steady import apply_vllm, steady_vllm
from sim.engine.schedulers.vllm.update import complete_step, enqueue_vllm
from sim.engine.state import free_slot, record_end
from sim.jit import implement, inline, kernel, new, struct
from sim.ledger import FAILED, REJECTED

_WATERMARK = 0.01


@struct(viewed=True)
class PrefillFirstState(VllmFields):
    """As vLLM's."""


@kernel
def new_prefill_first(replica, rec, cost, n, accept):
    """A new state, see `sim.engine.schedulers.vllm.state.init_vllm`."""
    s = new(PrefillFirstState)
    init_vllm(s, replica, rec, cost, n, accept)
    return s


@inline
def _above_watermark(s, n, hits):
    """``_check_watermark_for_prefill``: 1 % of the blocks, the null block counted, stay free."""
    free = s.kv.free - ((n + hits * s.block_size + s.block_size - 1) // s.block_size - hits)
    for i in range(hits):
        if s.kv.e_ref[s.hits[i]] == 0:
            free -= 1
    return free >= (s.kv.total + 1) * _WATERMARK


@inline
def _prompts(s):
    """Whole prompts, as many as fit; who does not is passed over, and those behind it are tried."""
    x = s.r_x
    rows = np.int64(0)
    skipped = np.int64(0)
    sure = True  # whoever was passed over stays so while nothing finishes
    q = s.wq
    s.n_loras = 0
    s.g_blocked = False
    s.admitting = True
    s.ext = 0
    s.reserved = 0
    while q.len > 0 and s.budget > 0 and s.n_run < s.max_run:
        slot = q.slot[q.head]
        fits = _adapter_fits(s, s.r_lora[slot])
        hits = n = np.int64(0)
        if fits:
            hits = np.int64(look_up(s, slot))
            n = x[slot, KNOWN] - hits * s.block_size
            fits = n <= s.budget
        if fits:
            fits = _above_watermark(s, n, hits)
            if not fits:
                s.g_blocked = True
                sure = sure and (not s.kv.caching or x[slot, LAZY] == 1)
        if not fits:
            s.skip_w[skipped] = queue_take(s, q)
            skipped += 1
            continue
        s.n_hits = hits
        if not grant(s, slot, n):
            break
        queue_take(s, q)
        if s.key_slot == slot:
            s.key_slot = -1
        _begin(s, slot, hits * s.block_size, n, x[slot, KNOWN], False, rows)
        rows += 1
        s.budget -= n
    for i in range(skipped - 1, -1, -1):
        queue_add(s, q, s.skip_w[i], ONE)
    s.rows_planned = rows
    s.stuck = sure and rows == 0


@inline
def _decodes(s):
    """A token of every running request, as far as its adapter is among those of the step; the last ones are preempted for the first."""
    p = s.p
    s.n_loras = 0
    i = rows = np.int64(0)
    if not s.any_lora:
        i = np.int64(lean_rows(s))
        rows = s.lean
    while i < s.n_run and rows < s.max_tokens:
        slot = s.run[i]
        if not _adapter_fits(s, s.r_lora[slot]):
            i += 1
            continue
        s.rows_planned = rows
        fits, _ = _make_space(s, i, slot, ONE)
        if not fits:
            break
        _load_adapter(s, s.r_lora[slot])
        s.q_slot[p, rows] = slot
        s.q_tok[p, rows] = 1
        s.q_aux[p, rows] = 0
        rows += 1
        i += 1
    s.rows_planned = rows


@kernel
def _give_up(s):
    """Nothing runs, and no prompt passes the watermark: upstream would ask for ever; the request at the head ends here."""
    slot = queue_take(s, s.wq)
    s.r_x[slot, STATUS] = ENDED
    record_end(s, slot, s.now, REJECTED if s.r_done[slot] == 0 else FAILED)
    free_slot(s, slot)


def _plan(s):
    """One call of ``schedule()``."""
    while True:
        if not has_requests(s) or s.empties > 2 * s.depth + 2:
            s.executed = False
            return NOTHING
        s.step_no += 1
        p = next_place(s)
        clear_place(s, p)
        s.p = p
        s.budget = s.room = s.max_tokens
        s.prefills = False
        s.admitted = False
        s.lean = s.lean_ctx = 0
        before = s.n_preempted
        _prompts(s)
        if s.rows_planned == 0:
            _decodes(s)
        if s.rows_planned > 0 or s.n_run > 0 or s.wq.len == 0 or s.n_preempted > before:
            return conclude(s, s.n_preempted > before)
        _give_up(s)


_take_in = inline(enqueue_vllm)


def _enqueue(s, slot):
    """As vLLM; a newcomer may pass those that do not fit."""
    _take_in(s, slot)
    s.stuck = False


implement(
    PrefillFirstState,
    enqueue=_enqueue,
    plan=_plan,
    complete=complete_step,
    steady_steps=steady_vllm,
    apply_steady=apply_vllm,
    grow=grow_vllm,
)
plain_caches(PrefillFirstState)
