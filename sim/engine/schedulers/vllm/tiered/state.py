# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""State of an engine core with tiers: its stores, blocks computed and not yet copied out, what is counted."""

from typing import NamedTuple

import numpy as np

from sim.engine.borrow import keep
from sim.engine.schedulers.vllm.state import VllmFields, init_vllm
from sim.engine.state import grown
from sim.engine.tiers.counts import N_COUNTS
from sim.engine.tiers.series import init_series
from sim.engine.tiers.tier import Tier, new_tier, set_rules
from sim.jit import b1, f8, f8s, f8ss, i4s, i8, i8s, inline, kernel, new, struct


@struct(viewed=True)
class TieredState(VllmFields):
    """Times in seconds. A *unit* is what tiers keep under one hash: ``unit`` blocks of the engine."""

    cpu: Tier
    disk: Tier
    remote: Tier
    unit: i8
    with_step: b1  # LMCache: a step loads before it computes, and saves before it ends; else both beside steps
    keeps_cpu: b1  # LMCache's local_cpu
    keeps_output: b1  # whether generated tokens are kept too
    reloads: b1  # whether preempted requests are looked up
    late: f8  # a load that takes longer counts as late
    step_until: f8  # loads of the step being planned end then
    flush: f8  # stores of preempted requests end then
    # -- units computed, or about to be, by steps under way: a ring by running number
    pe_first: i8
    pe_end: i8
    pe_key: i8s
    pe_slot: i4s
    pe_upto: i8s  # [place]: those of the batch in it end here
    at_once_now: b1  # what becomes known now is computed already
    ahead: b1  # LMCache's enable_async_loading: what disks and remote stores have is fetched into host memory before the request is taken in
    r_stored: f8s  # request column: when its last store ends
    r_ahead: f8ss  # [request, field]: when what is fetched for it is there (0: nothing was asked for), units found, tokens from disk, from afar
    found: i4s  # of the last lookup: the tier of each unit, 0 cpu, 1 disk, 2 remote
    n_found: i8
    tc: f8s  # `sim.engine.tiers.counts`
    t_now: f8s  # `sim.engine.tiers.series`
    t_was: f8s
    t_at: f8


class TierSettings(NamedTuple):
    """What a new state is told of its tiers: sizes in units, seconds per unit read and written, seconds of latency."""

    unit: int
    with_step: bool
    ahead: bool
    keeps_cpu: bool
    keeps_output: bool
    reloads: bool
    late: float
    cpu: int
    cpu_read: float
    cpu_write: float
    cpu_latency: float
    disk: int
    disk_read: float
    disk_write: float
    disk_latency: float
    remote: int
    remote_read: float
    remote_write: float
    remote_latency: float
    high: int  # `sim.engine.tiers.tier.set_rules` of the remote store
    step: int
    lease: float


@inline
def _init_tiers(s, m):
    s.cpu = new_tier(m.cpu, m.cpu_read, m.cpu_write, m.cpu_latency)
    s.disk = new_tier(m.disk, m.disk_read, m.disk_write, m.disk_latency)
    s.remote = new_tier(m.remote, m.remote_read, m.remote_write, m.remote_latency)
    set_rules(s.remote, m.high, m.step, m.lease)
    s.unit = m.unit
    s.with_step = m.with_step
    s.ahead = m.ahead
    s.keeps_cpu = m.keeps_cpu
    s.keeps_output = m.keeps_output
    s.reloads = m.reloads
    s.late = m.late
    s.step_until = s.flush = 0.0
    s.pe_first = s.pe_end = 0
    s.pe_key = np.zeros(256, np.int64)
    s.pe_slot = np.zeros(256, np.int32)
    s.pe_upto = np.zeros(s.q_rows.size, np.int64)
    s.at_once_now = False
    s.r_stored = np.zeros(s.r_x.shape[0])
    s.r_ahead = np.zeros((s.r_x.shape[0], 4))
    s.found = np.zeros(s.keys.size, np.int32)
    s.n_found = 0
    s.tc = np.zeros(N_COUNTS)
    init_series(s)


@kernel
def new_tiered(replica, rec, cost, n, accept, m):
    """A new state; ``n``: `VllmSettings`, ``m``: `TierSettings`."""
    s = new(TieredState)
    init_vllm(s, replica, rec, cost, n, accept)
    _init_tiers(s, m)
    return s


@inline
def widen_stored(s, n):
    """The request columns to ``n`` rows."""
    own = keep(s)
    own.r_stored = grown(s.r_stored, n)
    wider = np.zeros((n, 4))
    for i in range(s.r_ahead.shape[0]):
        for j in range(4):
            wider[i, j] = s.r_ahead[i, j]
    own.r_ahead = wider


@kernel
def more_pending(s):
    """Double the ring."""
    size = s.pe_key.size
    key, slot = np.zeros(2 * size, np.int64), np.zeros(2 * size, np.int32)
    for i in range(s.pe_first, s.pe_end):
        key[i % (2 * size)] = s.pe_key[i % size]
        slot[i % (2 * size)] = s.pe_slot[i % size]
    own = keep(s)
    own.pe_key, own.pe_slot = key, slot
