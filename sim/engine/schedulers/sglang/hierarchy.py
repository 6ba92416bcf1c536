# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""HiCache: a candidate's prefix counts as far as host memory has it, and is copied back before the batch that takes it in, layer by layer.

*Source*: SGLang 0.5.23 ``managers/schedule_policy.py: add_one_req``, ``mem_cache/unified_radix_cache.py: init_load_back``.
"""

from typing import Final

import numpy as np

from sim.engine.kv.radix import ROOT
from sim.engine.kv.radix_host import LOADED, add_host, load_back
from sim.engine.kv.radix_host import WRITTEN as COPIED
from sim.engine.kv.radix_storage import FETCHED, KEPT, STORED
from sim.engine.kv.radix_walk import radix_move, radix_walk
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.admit import (
    CONTINUE,
    NO_TOKEN,
    OTHER,
    _add_ignore_eos,
    charge,
    cut_after,
    left_total,
    verdict_of,
)
from sim.engine.schedulers.sglang.memory import set_key
from sim.engine.schedulers.sglang.order import match_waiting
from sim.engine.schedulers.sglang.state import CLIP_MAX_NEW, SglangState, ceil_page, ignores_eos, total_len
from sim.engine.schedulers.sglang.storage import CAME
from sim.engine.tiers.counts import (
    ASKED,
    DEVICE,
    HELD,
    HIT,
    LOADS,
    LONGEST,
    N_COUNTS,
    PER_SERIES,
    PER_TIER,
    READ,
    TIER,
    WAITED,
    WRITTEN,
)
from sim.engine.tiers.series import init_series, note_series, take_counts
from sim.jit import kernel


@outlined(SglangState)
def _match_both(s, slot, limit):
    """`match_waiting`; the hit that orders the queue counts what host memory has."""
    n = total_len(s, slot)
    s.r_pre[slot] = 0
    s.r_node[slot] = ROOT
    host = 0
    t = s.tree
    if not t.off:
        limit = min(n, limit)
        set_key(s, 0, slot, limit)
        s.r_pre[slot] = radix_walk(t, limit, 0, 0, 0, 0)
        s.r_node[slot] = t.end
        host = t.h_hit + 0
    s.r_hit[slot] = min(s.r_pre[slot] + host, n - 1)
    return 0


@outlined(SglangState)
def _load_host(s, slot):
    """Copy back what the host has beyond the device's prefix, which is held; how many tokens that were."""
    t = s.tree
    got = load_back(t)
    if got > 0:
        node = t.h_end + 0
        radix_move(t, s.r_node[slot], node)
        s.r_node[slot] = node
        s.r_pre[slot] += got
        s.r_own[slot] = s.r_pre[slot]
        wait = t.h_load
        s.tc[LOADS] += 1.0
        s.tc[WAITED] += wait
        s.tc[LONGEST] = max(s.tc[LONGEST], wait)
    return got


@outlined(SglangState)
def _add_with_host(s, slot):
    """`admit._add_one`."""
    n = total_len(s, slot)
    match_waiting(s, slot, n - 1)
    s.r_own[slot] = s.r_pre[slot]
    s.r_fill[slot] = n
    if s.prefill_max_requests > 0 and s.n_can >= s.prefill_max_requests:
        return OTHER
    if s.tree.off and ignores_eos(s, slot):
        return _add_ignore_eos(s, slot)
    max_new = s.r_max_new[slot] + 0
    total = n - s.r_pre[slot] + min(max(max_new - s.r_done[slot], 0), CLIP_MAX_NEW) + s.page
    radix_move(s.tree, -1, s.r_node[slot])  # the prefix must not be evicted for its own user
    max_new = min(max_new, CLIP_MAX_NEW)
    verdict = CONTINUE
    on_device, got = s.r_pre[slot] + 0, 0
    if not total < left_total(s):
        verdict = NO_TOKEN
    else:
        got = _load_host(s, slot)
    left = n - s.r_pre[slot]
    extend = left
    cut = s.chunk > 0 and ceil_page(s, left) > s.a_chunk
    if verdict != CONTINUE:
        pass
    elif s.chunk <= 0 and s.n_can > 0 and ceil_page(s, left) >= s.a_input:
        verdict = OTHER
    elif cut:
        extend = cut_after(s, slot, s.a_chunk)
        max_new = 0
        if extend <= 0:
            verdict = OTHER
    if verdict != CONTINUE:
        radix_move(s.tree, s.r_node[slot], -1)
        return verdict
    s.r_lock[slot] = s.r_node[slot]
    if cut:
        s.new_chunked = slot
    charge(s, slot, extend, max_new)
    s.tc[ASKED] += n
    s.tc[DEVICE] += on_device
    s.tc[TIER + HIT] += got
    if s.l_on:
        came = min(got, int(s.l_req[slot, CAME]))
        s.tc[TIER + HIT] -= came
        s.tc[TIER + PER_TIER * s.l_tier + HIT] += came
    return verdict_of(s)


@outlined(SglangState)
def _note_tiers(s):
    t = s.tree
    take_counts(s)
    s.t_now[READ] = t.h_count[LOADED]
    s.t_now[WRITTEN] = t.h_count[COPIED]
    s.t_now[HELD] = t.h_size - t.h_free
    if s.l_on:
        at = PER_SERIES * s.l_tier
        s.t_now[WRITTEN] += t.l_count[KEPT]
        s.t_now[at + READ] = t.l_count[FETCHED]
        s.t_now[at + WRITTEN] = t.l_count[STORED]
        s.t_now[at + HELD] = t.l_store.used * s.page
    note_series(s, s.now)
    return 0


@kernel
def with_host(s, tokens, policy, read_s, write_s, latency, layers):
    """Put host memory beside a new state's tree (`sim.engine.kv.radix_host.add_host`)."""
    add_host(s.tree, tokens, policy, read_s, write_s, latency, layers)
    s.tc = np.zeros(N_COUNTS)
    init_series(s)


OWN: Final = frozenset({"_match_both", "_load_host", "_add_with_host", "_note_tiers", "note_tiers"})
INSTEAD: Final = {"match_waiting": "_match_both", "_add_one": "_add_with_host", "note_tiers": "_note_tiers"}
