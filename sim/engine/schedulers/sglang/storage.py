# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""HiCache's third level: what a request that joins the queue lacks is fetched from storage into host memory, batch by batch, while it waits.

One thread of a server fetches, for one request after the other. Where the storage has not enough yet, or the host no room, it is asked again every
eighth decision, eight times at most, while the request waits. When a request comes up for admission the policy says whether it is passed
over until all is there, and what has come by then counts as found on the host. *Source*: SGLang 0.5.23 ``managers/scheduler.py: _prefetch_kvcache``,
``managers/scheduler.py: _retry_missed_storage_prefetches``,
``mem_cache/unified_radix_cache.py: prefetch_from_storage, check_prefetch_progress, can_terminate_prefetch``, ``managers/cache_controller.py``.
"""

from math import inf
from typing import Final, NamedTuple

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.radix import ROOT
from sim.engine.kv.radix_host import hold_host, leave_host, put_on_host
from sim.engine.kv.radix_storage import BATCH_PAGES, FETCHED, KEPT, add_storage, pages_stored, seconds_of
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.memory import set_key
from sim.engine.schedulers.sglang.order import match_waiting
from sim.engine.schedulers.sglang.state import SglangState, total_len
from sim.engine.state import grown
from sim.engine.tiers.counts import LATE
from sim.engine.tiers.tier import READ, new_tier, set_rules
from sim.jit import inline, kernel

BEST_EFFORT, WAIT_COMPLETE, TIMEOUT = range(3)
OCCUPIED: Final = 0.5  # of host memory that may wait for storage

RETRY_EVERY: Final = 8  # decisions between two tries of a request whose fetch has missed
RETRIES: Final = 8  # of one request
NEVER: Final = 1 << 40

# columns of `l_req`
UNDER_WAY, PAGES, DONE, END, SINCE, AFTER, NODE, WANTED, CAME, DUE, TRIES = range(11)
FIELDS: Final = 11


class StorageSettings(NamedTuple):
    """What a new state is told of its storage: sizes in pages, seconds per page and of latency (`sim.engine.tiers.tier.set_rules`)."""

    tier: int
    pages: int
    high: int
    step: int
    lease: float
    read: float
    write: float
    latency: float
    threshold: int
    policy: int
    base: float
    per_ki_token: float


@kernel
def with_storage(s, m):
    """Put storage behind a new state's host memory; ``m``: `StorageSettings`."""
    store = new_tier(m.pages, m.read, m.write, m.latency)
    set_rules(store, m.high, m.step, m.lease)
    add_storage(s.tree, store)
    s.l_on = True
    s.l_tier = m.tier
    s.l_threshold = max(m.threshold, s.page)
    s.l_policy = m.policy
    s.l_base = m.base
    s.l_per_token = m.per_ki_token / 1024.0
    s.l_occupied = 0
    s.l_free = 0.0
    s.l_req = np.zeros((s.r_pre.size, FIELDS))
    s.l_line = np.zeros(s.r_pre.size, np.int32)
    s.l_n = 0


@outlined(SglangState)
def _grow_fetches(s, n):
    own = keep(s)
    wider = np.zeros((n, FIELDS))
    for i in range(s.l_req.shape[0]):
        for j in range(FIELDS):
            wider[i, j] = s.l_req[i, j]
    own.l_req = wider
    own.l_line = grown(s.l_line, n)
    return 0


@inline
def _missed(s, slot):
    """Another may have stored it, or have given room back, some decisions later."""
    f = s.l_req
    if f[slot, TRIES] < RETRIES:
        f[slot, DUE] = s.l_pass + RETRY_EVERY
        s.l_due = min(s.l_due, s.l_pass + RETRY_EVERY)


@outlined(SglangState)
def _try_fetch(s, slot):
    t, f = s.tree, s.l_req
    f[slot, UNDER_WAY] = 0.0
    f[slot, CAME] = 0.0
    f[slot, DUE] = 0.0
    t.h_now = s.now
    n = total_len(s, slot)
    match_waiting(s, slot, n - 1)
    after, node = s.r_pre[slot] + t.h_hit, t.h_end + 0
    s.r_fill[slot] = n
    pages = (n - after) // s.page
    if pages * s.page < s.l_threshold or (node != ROOT and t.h_host[node] == 0):
        return 0
    if s.l_occupied >= OCCUPIED * t.h_size:
        _missed(s, slot)
        return 0
    set_key(s, 0, slot, after + pages * s.page)
    found = pages_stored(t, node, after, pages)
    if found * s.page < s.l_threshold or hold_host(t, node, found * s.page) == 0:
        _missed(s, slot)
        return 0
    f[slot, UNDER_WAY] = 1.0
    f[slot, PAGES] = found
    f[slot, DONE] = 0.0
    f[slot, END] = s.now  # no batch of it ends before
    f[slot, SINCE] = -1.0
    f[slot, AFTER] = after
    f[slot, NODE] = node
    f[slot, WANTED] = pages * s.page
    s.l_occupied += pages * s.page
    s.l_line[s.l_n] = slot
    s.l_n += 1
    return 1


@outlined(SglangState)
def _start_fetch(s, slot):
    """``prefetch_from_storage``: enough must be lacking, found there, and find room on the host."""
    s.l_req[slot, TRIES] = 0.0
    return _try_fetch(s, slot)


@outlined(SglangState)
def _fetch_again(s):
    """``_retry_missed_storage_prefetches``: of all requests in the queue whose time has come."""
    f = s.l_req
    s.l_due = NEVER
    for i in range(s.w_lo, s.w_hi):
        slot = s.w_slot[i]
        due = int(f[slot, DUE])
        if due > s.l_pass:
            s.l_due = min(s.l_due, due)
        elif due > 0:
            f[slot, TRIES] += 1.0
            _try_fetch(s, slot)
    return 0


@inline
def _batch_seconds(s, pages):
    store = s.tree.l_store
    return seconds_of(pages, store.rate[READ], store.latency)


@outlined(SglangState)
def _fetch_on(s):
    """What has come by now. A store that is lost gives nothing more: what has come is all there is."""
    f = s.l_req
    while s.l_n > 0:
        slot = s.l_line[0]
        left = int(f[slot, PAGES] - f[slot, DONE])
        if s.tree.l_store.total == 0:
            left = 0
        if left > 0:
            pages = min(left, BATCH_PAGES)
            end = max(s.l_free, f[slot, END]) + _batch_seconds(s, pages)
            if end > s.now:
                break
            s.l_free = end
            f[slot, DONE] += pages
            s.tree.l_count[FETCHED] += pages * s.page
            left -= pages
        if left == 0:
            f[slot, UNDER_WAY] = 2.0
            _leave_line(s, 0)
    return 0


@inline
def _leave_line(s, at):
    s.l_n -= 1
    for i in range(at, s.l_n):
        s.l_line[i] = s.l_line[i + 1]


@outlined(SglangState)
def _end_fetch(s, slot, kept):
    """Stop it; with ``kept`` what has come goes into the tree. A batch that is under way is read to its end in vain."""
    t, f = s.tree, s.l_req
    for i in range(s.l_n):
        if s.l_line[i] == slot:
            begun = max(s.l_free, f[slot, END])
            if i == 0 and begun < s.now:
                s.l_free = begun + _batch_seconds(s, min(int(f[slot, PAGES] - f[slot, DONE]), BATCH_PAGES))
            _leave_line(s, i)
            break
    f[slot, UNDER_WAY] = 0.0
    s.l_occupied -= int(f[slot, WANTED])
    came = int(f[slot, DONE]) * s.page
    new = 0
    if kept == 1 and came > 0:
        upto = int(f[slot, AFTER]) + came
        t.h_now = s.now
        set_key(s, 0, slot, upto)
        new = put_on_host(t, upto)
    t.l_count[KEPT] += new
    t.h_free += int(f[slot, PAGES]) * s.page - new
    leave_host(t, int(f[slot, NODE]))
    f[slot, CAME] = new
    return 0


@inline
def _all_there(s, slot):
    """When it will be, if nobody before it gives up."""
    f = s.l_req
    at = s.l_free
    for i in range(s.l_n):
        x = s.l_line[i]
        at = max(at, f[x, END]) + _batch_seconds(s, int(f[x, PAGES] - f[x, DONE]))
        if x == slot:
            break
    return at


@outlined(SglangState)
def _fetch_holds(s, slot):
    """``check_prefetch_progress``. Its time-out counts from the first time that the request is passed over."""
    f = s.l_req
    if f[slot, UNDER_WAY] == 0.0:
        return 0
    _fetch_on(s)
    if f[slot, UNDER_WAY] == 1.0 and s.l_policy != BEST_EFFORT:
        stop = inf
        if s.l_policy == TIMEOUT:
            if f[slot, SINCE] < 0.0:
                f[slot, SINCE] = s.now
            stop = f[slot, SINCE] + s.l_base + s.l_per_token * f[slot, PAGES] * s.page
        if s.now < stop:
            s.wake = min(s.wake, min(stop, _all_there(s, slot)))
            return 1
        s.tc[LATE] += 1.0
    _end_fetch(s, slot, 1)
    return 0


@outlined(SglangState)
def _drop_fetch(s, slot):
    if s.l_req[slot, UNDER_WAY] > 0.0:
        _end_fetch(s, slot, 0)
    return 0


INSTEAD: Final = {
    "start_fetch": "_start_fetch",
    "fetch_again": "_fetch_again",
    "fetch_holds": "_fetch_holds",
    "drop_fetch": "_drop_fetch",
    "grow_fetches": "_grow_fetches",
}
