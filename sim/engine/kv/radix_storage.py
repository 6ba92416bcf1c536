# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Storage behind the host memory of a radix cache: pages by the hash of all tokens up to their end, which other processes find, too.

*Source*: SGLang 0.5.23 ``managers/cache_controller.py`` (``write_storage``, ``_page_backup``, ``_storage_hit_query``), ``mem_cache/utils.py``.
"""

from typing import Final

import numpy as np

from sim.engine.kv.radix import ROOT, Radix
from sim.engine.kv.radix_nodes import mix
from sim.engine.kv.radix_paths import further
from sim.engine.kv.radix_state import match_state  # noqa: F401 - its functions come first in the table
from sim.engine.outline import outlined
from sim.engine.tiers.tier import WRITE, find_block, make_room_for, put_block_in, touch_entry
from sim.jit import inline, kernel

BATCH_PAGES: Final = 128  # STORAGE_BATCH_SIZE: pages of one transfer
STORED, LEFT_OUT, FETCHED, KEPT = range(4)  # entries of `l_count`, tokens; KEPT: of those fetched, what host memory has taken


@kernel
def add_storage(t, store):
    """Put a `Tier` of pages behind a new tree with host memory."""
    n = t.parent.size
    t.l_on = True
    t.l_store = store
    t.l_from = np.zeros(n, np.int64)
    t.l_key = np.zeros(n, np.int64)
    t.l_lane = 0.0
    t.l_count = np.zeros(4)


@inline
def seconds_of(pages, rate, latency):
    """Pages go one batch after the other."""
    return (pages + BATCH_PAGES - 1) // BATCH_PAGES * latency + pages * rate


@inline
def key_before(t, node):
    """Hash of all tokens up to the end of ``node``; below the root it is the key's name space."""
    return mix(1, t.k_space) if node == ROOT else t.l_key[node] + 0


@inline
def _next_page(t, h, c, co):
    """(hash, run, offset) after the page of an edge from run ``c``, offset ``co``."""
    left = t.page
    while left > 0:
        n = min(left, t.c_len[c] - co)
        h = mix(mix(mix(h, t.c_id[c]), t.c_start[c] + co), n)
        left -= n
        co += n
        if co == t.c_len[c]:
            c = t.c_next[c] + 0
            co = 0
    return h, c, co


@inline
def _next_of_key(t, h, ki, ko):
    """The same of the key."""
    left = t.page
    while left > 0:
        n = min(left, t.k_len[ki] - ko)
        h = mix(mix(mix(h, t.k_id[ki]), t.k_start[ki] + ko), n)
        left -= n
        ko += n
        if ko == t.k_len[ki]:
            ki += 1
            ko = 0
    return h, ki, ko


@outlined(Radix)
def note_keys(t, x):
    """The hash up to the end of a node from that before it."""
    h, c, co = t.l_from[x] + 0, t.run[x] + 0, 0
    for _ in range(t.size[x] // t.page):
        h, c, co = _next_page(t, h, c, co)
    t.l_key[x] = h
    return 0


@outlined(Radix)
def back_up(t, x):
    """Write those pages of a node to storage that it lacks, once their copy on the host is whole; all of them or none."""
    store = t.l_store
    store.marks += 1
    pages = t.size[x] // t.page
    h, c, co = t.l_from[x] + 0, t.run[x] + 0, 0
    lacks = 0
    for _ in range(pages):
        h, c, co = _next_page(t, h, c, co)
        e = find_block(store, h)
        if e == 0:
            lacks += 1
        else:
            store.mark[e] = store.marks
    if lacks == 0:
        return 0
    if lacks > store.total or not make_room_for(store, lacks, t.h_now):
        t.l_count[LEFT_OUT] += lacks * t.page
        return 0
    end = max(t.h_ready[x], t.l_lane) + seconds_of(lacks, store.rate[WRITE], store.latency)
    t.l_lane = end
    t.l_count[STORED] += lacks * t.page
    h, c, co = t.l_from[x] + 0, t.run[x] + 0, 0
    for _ in range(pages):
        h, c, co = _next_page(t, h, c, co)
        if find_block(store, h) == 0:
            put_block_in(store, h, end)
    return lacks


@outlined(Radix)
def pages_stored(t, node, first, pages):
    """How many of the next ``pages`` of the key from token ``first``, the end of ``node``, are in storage; they stay for its lease."""
    store = t.l_store
    ki, ko = further(t, 0, 0, first)
    h = key_before(t, node)
    for i in range(pages):
        h, ki, ko = _next_of_key(t, h, ki, ko)
        e = find_block(store, h)
        if e == 0 or store.ready[e] > t.h_now:
            return i
        touch_entry(store, e)
        store.busy[e] = max(store.busy[e], t.h_now + store.lease)
    return pages
