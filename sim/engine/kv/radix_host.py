# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A radix cache whose nodes may have a copy in host memory, and stay matchable there when the device needs their room.

Nodes on the device are a tree from the root; below it hang nodes that only the host has. ``kids`` counts children on the device, ``h_all`` all.
*Source*: SGLang 0.5.23 ``mem_cache/unified_radix_cache.py`` (hierarchical parts), ``managers/cache_controller.py``.
"""

from typing import Final

import numpy as np

from sim.engine.kv.radix import ROOT, Radix
from sim.engine.kv.radix_evict import detach, pop_candidate
from sim.engine.kv.radix_nodes import (
    candidate,
    common_tokens,
    cut_edge,
    drop_runs,
    find_child,
    free_number,
    new_leaf,
    page_hash,
    table_drop,
)
from sim.engine.kv.radix_paths import further, room_for_key, stamp
from sim.engine.kv.radix_state import match_state  # noqa: F401 - its functions come first in the table
from sim.engine.kv.radix_storage import back_up, key_before, note_keys
from sim.engine.outline import outlined
from sim.jit import flat, inline, kernel

WRITE_THROUGH, SELECTIVE, WRITE_BACK = range(3)
WRITE_POLICIES: Final = ("write_through", "write_through_selective", "write_back")
LOAD_BACK_THRESHOLD: Final = 10  # tokens below which nothing is copied back
LOADED, WRITTEN, SKIPPED, EVICTED = range(4)  # entries of `h_count`, tokens


@kernel
def add_host(t, tokens, policy, read_s, write_s, latency, layers):
    """Give a new tree ``tokens`` of host memory; a token takes ``read_s`` and ``write_s``, a transfer ``latency`` besides."""
    n = t.parent.size
    t.h_on = True
    t.h_size = tokens
    t.h_free = tokens
    t.h_policy = policy
    t.h_layers = layers
    t.h_rate = np.array([read_s, write_s])
    t.h_latency = latency
    t.h_lane = np.zeros(2)
    t.h_now = t.h_start = t.h_load = t.h_wait = 0.0
    t.h_dev = np.zeros(n, np.int32)
    t.h_host = np.zeros(n, np.int32)
    t.h_all = np.zeros(n, np.int32)
    t.h_lock = np.zeros(n, np.int32)
    t.h_ready = np.zeros(n)
    t.g_n = 0
    t.g_node = np.zeros(n, np.int32)
    t.g_a = np.zeros(n)
    t.in_g = np.zeros(n, np.int32)
    t.h_count = np.zeros(4)
    t.h_dev[ROOT] = 1
    t.h_host[ROOT] = 1


@inline
def _queue(t, lane, start, n):
    """``n`` tokens on a lane; returns when they are through."""
    end = max(start, t.h_lane[lane]) + t.h_latency + n * t.h_rate[lane]
    t.h_lane[lane] = end
    return end


# -- what the host alone has, the leaf least recently used first


@inline
def _for_host(t, x):
    """Whether the host may forget the node."""
    return t.h_dev[x] == 0 and t.h_host[x] == 1 and t.h_all[x] == 0 and t.h_lock[x] == 0


@outlined(Radix)
def _host_candidate(t, x):
    if t.in_g[x] == 1:
        return 0
    t.in_g[x] = 1
    a = t.last[x]
    i = t.g_n
    t.g_n += 1
    while i > 0:
        up = (i - 1) >> 1
        if t.g_a[up] <= a:
            break
        t.g_node[i] = t.g_node[up]
        t.g_a[i] = t.g_a[up]
        i = up
    t.g_node[i] = x
    t.g_a[i] = a
    return 0


@outlined(Radix)
def _pop_host(t):
    """Take the top of the heap."""
    top = t.g_node[0] + 0
    t.g_n -= 1
    n = t.g_n
    x, a = t.g_node[n] + 0, t.g_a[n]
    i = 0
    while True:
        k = 2 * i + 1
        if k >= n:
            break
        if k + 1 < n and t.g_a[k + 1] < t.g_a[k]:
            k += 1
        if a <= t.g_a[k]:
            break
        t.g_node[i] = t.g_node[k]
        t.g_a[i] = t.g_a[k]
        i = k
    t.g_node[i] = x
    t.g_a[i] = a
    t.in_g[top] = 0
    return top


@outlined(Radix)
def _host_room(t, need):
    """Let the host forget until ``need`` tokens fit; 1 if they do."""
    while t.g_n > 0 and t.h_free < need:
        known = t.g_a[0]
        x = _pop_host(t)
        if not _for_host(t, x):
            continue
        if t.last[x] != known:  # used since
            _host_candidate(t, x)
            continue
        t.h_free += t.size[x]
        t.h_count[EVICTED] += t.size[x]
        t.h_host[x] = 0
        table_drop(t, x)
        up = t.parent[x] + 0
        t.h_all[up] -= 1
        drop_runs(t, x)
        free_number(t, x)
        if up != ROOT and _for_host(t, up):
            _host_candidate(t, up)
    return 1 if t.h_free >= need else 0


@outlined(Radix)
def _copy_out(t, x):
    """Copy a node to the host; 0 if it has no room."""
    size = t.size[x] + 0
    if _host_room(t, size) == 0:
        t.h_count[SKIPPED] += size
        return 0
    t.h_free -= size
    t.h_count[WRITTEN] += size
    t.h_host[x] = 1
    t.h_ready[x] = _queue(t, 1, t.h_now, size)
    if t.l_on:
        back_up(t, x)
    return 1


@inline
def _copy_if_due(t, x):
    """``inc_hit_count``: a node that was asked for often enough is copied, after those above it."""
    if t.h_host[x] == 0 and t.h_policy != WRITE_BACK and t.hits[x] > t.h_policy and t.h_host[t.parent[x]] == 1:
        _copy_out(t, x)


# -- the device


@flat
def _cut(t, child, k):
    x = cut_edge(t, child, k)
    t.h_dev[x] = t.h_dev[child]
    t.h_host[x] = t.h_host[child]
    t.h_ready[x] = t.h_ready[child]
    t.h_lock[x] = 0
    t.h_all[x] = 1
    t.in_g[x] = 0
    t.kids[x] = t.h_dev[child]
    if t.l_on:
        t.l_from[x] = t.l_from[child]
        note_keys(t, x)
        t.l_from[child] = t.l_key[x]
    return x


@inline
def _founded(t, x, node, on_device):
    """A new leaf ``x`` below ``node``, on the device or else on the host alone."""
    t.h_all[node] += 1
    t.h_dev[x] = on_device
    t.h_host[x] = 1 - on_device
    t.h_all[x] = t.h_lock[x] = t.in_g[x] = 0
    if t.l_on:
        t.l_from[x] = key_before(t, node)
        note_keys(t, x)


@inline
def _on_device(t, x):
    """The device has the KV of a node again."""
    t.h_dev[x] = 1
    t.kids[t.parent[x]] += 1
    t.evictable += t.size[x]


@outlined(Radix)
def walk_host(t, n, insert, owned, counted, prio):
    """`radix_walk`. A match returns what the device has; ``t.h_hit`` more tokens, down to node ``t.h_end``, are on the host."""
    n = n // t.page * t.page
    t.end = ROOT
    t.h_end = ROOT
    t.h_hit = 0
    if t.off or n == 0:
        return 0
    room_for_key(t)
    if insert == 1:
        t.tick += 1.0
        t.last[ROOT] = t.tick
    node, o, ki, ko, h = 0, 0, 0, 0, 0
    on_device, end = 0, ROOT
    while o < n:
        h = page_hash(t, node, ki, ko)
        c = find_child(t, node, h)
        if c < 0:
            break
        m = common_tokens(t, c, ki, ko, n - o)
        if m == 0:
            break
        if insert == 1:
            t.tick += 1.0
            t.last[c] = t.tick
        cut = m < t.size[c]
        if cut:
            c = _cut(t, c, m)
        if insert == 1:
            t.prio[c] = max(t.prio[c], float(prio))
            if t.h_dev[c] == 1:
                t.free += max(0, m - max(0, owned - o))
            else:  # computed once more: the node takes it
                _on_device(t, c)
                candidate(t, c)
            if o + m > counted:
                t.hits[c] += 1
            _copy_if_due(t, c)
        elif t.h_dev[c] == 1:
            on_device = o + m
            end = c
        node = c
        o += m
        if cut and insert == 0:
            break
        ki, ko = further(t, ki, ko, m)
    if insert == 0:
        t.end = end
        t.h_end = node
        t.h_hit = o - on_device
        stamp(t, node)
        return on_device
    t.end = node
    if o < n:
        x = new_leaf(t, node, n - o, ki, ko, h, float(prio))
        _founded(t, x, node, 1)
        t.evictable += n - o
        if n > counted:
            t.hits[x] = 1
        candidate(t, x)
        t.end = x
        _copy_if_due(t, x)
    return o


@inline
def _leave(t, x):
    """The device gives up leaf ``x``: the host keeps it, or it is lost. False of one that cannot go, as the host has more below it."""
    if t.h_host[x] == 0 and t.h_policy == WRITE_BACK and _copy_out(t, x) == 1:
        t.h_wait = max(t.h_wait, t.h_ready[x] - t.h_now)  # whoever wants the room waits for the copy
        t.h_ready[x] = t.h_now
    up = t.parent[x] + 0
    if t.h_host[x] == 1 and (t.h_ready[x] <= t.h_now or t.h_all[x] > 0):
        t.free += t.size[x]
        t.evicted += t.size[x]
        t.evictable -= t.size[x]
        t.h_dev[x] = 0
        t.kids[up] -= 1
        if t.h_all[x] == 0:
            _host_candidate(t, x)
    elif t.h_all[x] > 0:
        return False
    else:
        if t.h_host[x] == 1:  # its copy is under way
            t.h_free += t.size[x]
            t.h_count[EVICTED] += t.size[x]
            t.h_host[x] = 0
        detach(t, x)
        t.h_all[up] -= 1
        free_number(t, x)
    if up != ROOT and t.kids[up] == 0 and t.lock[up] == 0:
        candidate(t, up)
    return True


@outlined(Radix)
def evict_until_host(t, need):
    """`evict_until`: leaves of what is on the device. Those that could not go are asked again the next time, when the host may have room."""
    if t.off or t.free >= need:
        return 0
    last = t.h_node.size - 1  # beyond the heap there is a place for each node that is not in it
    stay = 0
    while t.h_n > 0 and t.free < need:
        x = pop_candidate(t)
        if x > ROOT and not _leave(t, x):
            t.h_node[last - stay] = x
            stay += 1
    for i in range(stay):
        candidate(t, t.h_node[last - i] + 0)
    return 0


@outlined(Radix)
def load_back(t):
    """Copy what the last match found on the host to the device, all or nothing; returns how many tokens (``init_load_back``)."""
    need, x = t.h_hit + 0, t.h_end + 0
    if need < LOAD_BACK_THRESHOLD:
        return 0
    t.h_lock[x] += 1
    evict_until_host(t, need)
    t.h_lock[x] -= 1
    if t.free < need:
        if _for_host(t, x):
            _host_candidate(t, x)
        return 0
    node = x
    while t.h_dev[node] == 0:
        _on_device(t, node)
        node = t.parent[node] + 0
    t.free -= need
    t.h_count[LOADED] += need
    t.h_load = max(t.h_load, _queue(t, 0, t.h_start, need) - t.h_start)
    return need


@outlined(Radix)
def hold_host(t, x, tokens):
    """Keep node ``x`` in host memory and make room for ``tokens`` more there; 0, and nothing kept, if there is none."""
    t.h_lock[x] += 1
    if _host_room(t, tokens) == 0:
        leave_host(t, x)
        return 0
    t.h_free -= tokens
    return 1


@outlined(Radix)
def leave_host(t, x):
    """Undo what `hold_host` keeps; its room is the caller's."""
    t.h_lock[x] -= 1
    if x != ROOT and _for_host(t, x):
        _host_candidate(t, x)
    return 0


@outlined(Radix)
def put_on_host(t, n):
    """What the tree lacks of the first ``n`` tokens of the key has come to host memory, whose room it has; returns how many tokens.

    None of it where it would hang below what the host lacks, which others have computed in the meantime: the device could not give that up then.
    """
    room_for_key(t)
    node, o, ki, ko = 0, 0, 0, 0
    while o < n:
        h = page_hash(t, node, ki, ko)
        c = find_child(t, node, h)
        m = common_tokens(t, c, ki, ko, n - o) if c >= 0 else 0
        if m == 0:
            if t.h_host[node] == 0:
                return 0
            x = new_leaf(t, node, n - o, ki, ko, h, 0.0)
            t.kids[node] -= 1  # of those on the device
            _founded(t, x, node, 0)
            t.h_ready[x] = t.h_now
            _host_candidate(t, x)
            return n - o
        if m < t.size[c]:
            c = _cut(t, c, m)
        node = c
        o += m
        ki, ko = further(t, ki, ko, m)
    return 0


TREE: Final = {"radix_walk": "walk_host", "evict_until": "evict_until_host"}
