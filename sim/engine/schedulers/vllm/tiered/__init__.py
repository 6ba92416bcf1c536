# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""vLLM with tiers behind its KV cache: native offloading to host memory, or LMCache (host memory, disks, remote stores).

Blocks that become known by their hash are kept outside too (`keep.py`); a waiting request is looked up there beyond what the accelerator has
(`ask.py`). Imported only where a deployment has tiers, so that others compile nothing of it.

**What is not modelled**: contention of both directions of a link, copies that take memory bandwidth from the step, time-outs of loads (they are
counted), LMCache's serialisation of remote chunks and pins, its ``lookup_timeout_ms``.
"""

import numpy as np

from sim.engine.rows import without_pair
from sim.engine.schedulers.vllm import memory as m
from sim.engine.schedulers.vllm.memory import ZERO
from sim.engine.schedulers.vllm.plain_caches import plain_caches
from sim.engine.schedulers.vllm.plan import plan_step
from sim.engine.schedulers.vllm.ranks import at_rest_vllm, confer_vllm, heed_vllm, unfinished_vllm
from sim.engine.schedulers.vllm.state import CACHED, COMP, LAZY, RUNNING, STATUS, grow_vllm
from sim.engine.schedulers.vllm.steady import apply_vllm, steady_vllm
from sim.engine.schedulers.vllm.tiered.ask import comes_at_tiered, outside_tiered, taken_in
from sim.engine.schedulers.vllm.tiered.keep import offer, saving, store_units
from sim.engine.schedulers.vllm.tiered.state import TieredState, new_tiered, widen_stored
from sim.engine.schedulers.vllm.update import complete_step, enqueue_vllm
from sim.engine.schedulers.vllm.withdraw import withdraw_vllm
from sim.engine.tiers.counts import HELD, PER_SERIES
from sim.engine.tiers.series import note_series, take_counts
from sim.jit import implement, inline

__all__ = ["TieredState", "new_tiered"]

_take_in = inline(enqueue_vllm)
_commit_plain = inline(m.commit_plain)
_grant_plain = inline(m.grant_plain)
_release_plain = inline(m.release_plain)
_complete_plain = inline(complete_step)
_steady_plain = inline(steady_vllm)
_grow_plain = inline(grow_vllm)
_at_rest_plain = inline(at_rest_vllm)


def _enqueue(s, slot):
    _take_in(s, slot)
    s.r_x[slot, LAZY] = 0  # everything that is computed is kept, whether anybody can ask for it or not
    s.r_stored[slot] = 0.0
    if s.ahead:  # what was on its way for a request that has left this slot
        s.in_n = without_pair(s.in_slot_x, s.in_time, s.in_n, slot)
    s.r_ahead[slot, 0] = 0.0


def _commit(s, slot, tokens):
    have = np.int64(max(s.r_x[slot, CACHED], 0))
    _commit_plain(s, slot, tokens)
    offer(s, slot, have, np.int64(s.r_x[slot, CACHED]))


def _grant(s, slot, new):
    looked_up = s.admitting and s.r_x[slot, COMP] == 0
    had = np.int64(s.n_hits)
    ext = s.ext
    if not _grant_plain(s, slot, new):
        return False
    if looked_up:
        taken_in(s, slot, had)
        if ext == 0:
            offer(s, slot, ZERO, had)
    return True


def _release(s, slot):
    if (
        s.r_x[slot, STATUS] == RUNNING and s.r_stored[slot] > s.now
    ):  # preempted: its blocks are overwritten after its stores have ended
        s.flush = max(s.flush, s.r_stored[slot])
    _release_plain(s, slot)


def _kept_until(s, slot):
    return s.r_stored[slot] if s.r_stored[slot] > s.now else 0.0


def _end_of_decision(s):
    p = s.p
    places = s.pe_upto.size
    first = s.pe_upto[(p + places - 1) % places] if s.q_len > 0 else s.pe_first
    s.pe_upto[p] = s.pe_end
    stall = 0.0
    start = max(s.now, s.stage_free[0])
    if s.with_step:
        stall = max(s.step_until - start, 0.0) + saving(s, max(first, s.pe_first))
    stall = max(stall, s.flush - start)
    s.step_until = s.flush = 0.0
    if stall > 0.0 and s.rows_planned > 0:
        s.stall = stall
    take_counts(s)
    s.t_now[HELD] = s.cpu.used
    s.t_now[PER_SERIES + HELD] = s.disk.used
    s.t_now[2 * PER_SERIES + HELD] = s.remote.used
    note_series(s, s.now)


def _complete(s, p):
    store_units(s, s.pe_upto[p])
    s.at_once_now = True
    _complete_plain(s, p)
    s.at_once_now = False


def _steady_steps(s):
    return _steady_plain(s) if s.pe_first == s.pe_end else 0


def _at_rest(s):
    return _at_rest_plain(s) and s.pe_first == s.pe_end


def _grow(s, n):
    _grow_plain(s, n)
    widen_stored(s, n)


plain_caches(
    TieredState,
    grant=_grant,
    commit=_commit,
    release=_release,
    outside=outside_tiered,
    comes_at=comes_at_tiered,
    kept_until=_kept_until,
    end_of_decision=_end_of_decision,
)
implement(
    TieredState,
    enqueue=_enqueue,
    plan=plan_step,
    complete=_complete,
    steady_steps=_steady_steps,
    apply_steady=apply_vllm,
    grow=_grow,
    withdraw=withdraw_vllm,
    confer=confer_vllm,
    heed=heed_vllm,
    unfinished=unfinished_vllm,
    at_rest=_at_rest,
)
