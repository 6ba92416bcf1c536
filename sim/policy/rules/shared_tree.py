# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""`sim.policy.gateways.shared_tree` in arrays, for compiled rules: the same tree, told the same way, with the same ties.

A node has a row; nodes of one parent are a list in the order in which Python's dictionary would have them, and are found by a hash of parent and first
token. Its label is a number of tokens from a place in the pool of spans on. Who holds it is a list in the order in which they came.
"""

from typing import NamedTuple

import numpy as np

from sim.jit import i4s, i4ss, i8s, i8ss, in_python, inline, kernel
from sim.ledger import Values

# columns of `Tree.node`; −1: none
PARENT, CHAIN, LEN, SPAN, OFF, LAST, HOLD, LAST_HOLD, CHILD, LAST_CHILD, AFTER, BEFORE, N_NODE = range(13)
# entries of `Tree.counts`
NODES, FREE_NODE, N_FREE_NODES, HOLDS, FREE_HOLD, N_FREE_HOLDS, SPANS, CLOCK, UNSEEN, N_COUNT = range(10)
GONE = -2  # parent of a row that is free
_REFRESH = 8


class Tree(NamedTuple):
    """``hold``: [hold, (tenant, next)]; ``stamp``: [hold]; ``spans``: [span, (content, start, length)]; ``label``: [node, first token as (content, place)]."""

    counts: i8s
    node: i4ss
    label: i8ss
    hold: i4ss
    stamp: i8s
    spans: i8ss
    bucket: i4s
    path: i4s
    size: i8s  # [tenant] units it holds


def new_tree(tenants: int, nodes: int = 1024) -> Tree:
    """An empty tree."""
    node = np.full((nodes, N_NODE), -1, np.int32)
    count = np.zeros(N_COUNT, np.int64)
    count[NODES] = 1  # the root
    count[FREE_NODE] = count[FREE_HOLD] = -1
    return Tree(
        count,
        node,
        np.zeros((nodes, 2), np.int64),
        np.full((nodes, 2), -1, np.int32),
        np.zeros(nodes, np.int64),
        np.zeros((nodes, 3), np.int64),
        np.full(2 * nodes, -1, np.int32),
        np.zeros(256, np.int32),
        np.zeros(tenants, np.int64),
    )


def larger(t: Tree) -> dict[str, Values]:
    """Arrays that take the place of those that are full, by name."""
    out: dict[str, Values] = {}
    if not in_python(_nodes_fit)(t):
        n = len(t.node)
        out["node"] = np.concatenate([t.node, np.full_like(t.node, -1)])
        out["label"] = np.concatenate([t.label, np.zeros_like(t.label)])
        out["bucket"] = np.full(4 * n, -1, np.int32)
        _rehash(out["node"], out["label"], out["bucket"], int(t.counts[NODES]))
    if not in_python(_holds_fit)(t):
        more = max(len(t.hold), len(t.path) + len(t.size) + 2)
        out["hold"] = np.concatenate([t.hold, np.full((more, 2), -1, np.int32)])
        out["stamp"] = np.concatenate([t.stamp, np.zeros(more, np.int64)])
    if not out:
        spans = np.zeros_like(t.spans)
        used = int(_compact(t, spans)) if t.counts[N_FREE_NODES] else int(t.counts[SPANS])
        if not t.counts[N_FREE_NODES]:
            spans[:used] = t.spans[:used]
        t.counts[SPANS] = used
        out["spans"] = spans if 2 * used < len(spans) else np.concatenate([spans, np.zeros_like(spans)])
        out["path"] = np.zeros(2 * len(t.path), np.int32) if 2 * used < len(spans) else t.path
    return out


@kernel
def _rehash(node, label, bucket, nodes):
    for e in range(1, nodes):
        if node[e, PARENT] != GONE:
            h = _place(bucket, np.int64(node[e, PARENT]), label[e, 0], label[e, 1])
            node[e, CHAIN] = bucket[h]
            bucket[h] = e


@kernel
def _compact(t, spans):
    """The spans of all labels, without what nobody needs; returns how many there are."""
    used = 0
    for e in range(1, t.counts[NODES]):
        if t.node[e, PARENT] == GONE:
            continue
        s, o, left = t.node[e, SPAN], t.node[e, OFF], t.node[e, LEN]
        t.node[e, SPAN], t.node[e, OFF] = used, 0
        while left > 0:
            n = min(left, t.spans[s, 2] - o)
            spans[used, 0], spans[used, 1], spans[used, 2] = t.spans[s, 0], t.spans[s, 1] + o, n
            used += 1
            left -= n
            s, o = s + 1, 0
    return used


@inline
def _nodes_fit(t):
    return t.counts[N_FREE_NODES] + t.node.shape[0] - t.counts[NODES] >= 2


@inline
def _holds_fit(t):
    return t.counts[N_FREE_HOLDS] + t.hold.shape[0] - t.counts[HOLDS] >= t.path.size + t.size.size + 2


@inline
def room(t):
    """Whether one more prompt fits, but for its spans."""
    return _nodes_fit(t) and _holds_fit(t)


@inline
def _place(bucket, parent, content, start):
    h = (content & 0xFFFFFF) * 0x9E3779 ^ (content >> 24 & 0xFFFFFFF) * 0x85EBCA ^ start * 0xC2B2AE ^ parent * 0x27D4EB
    h ^= h >> 23
    return (h ^ h >> 11) & (bucket.size - 1)


@inline
def read_prompt(t, seen, row):
    """The prompt's spans at the end of the pool, where they stay if the prompt enters the tree; returns how many, −1 without room for them."""
    at = t.counts[SPANS]
    lo, hi = seen.span_off[row], seen.span_off[row + 1]
    if at + max(hi - lo, 1) > t.spans.shape[0]:
        return -1
    if lo == hi:
        t.spans[at, 0], t.spans[at, 1], t.spans[at, 2] = -1 - t.counts[UNSEEN], 0, seen.prompt[row]
        return 1
    n = 0
    for j in range(lo, hi):
        if seen.span_len[j] > 0:
            t.spans[at + n, 0], t.spans[at + n, 1], t.spans[at + n, 2] = seen.span_id[j], seen.span_start[j], seen.span_len[j]
            n += 1
    return n


@inline
def prompt_length(t, pieces):
    """Units of the prompt that was read."""
    total = 0
    for j in range(t.counts[SPANS], t.counts[SPANS] + pieces):
        total += t.spans[j, 2]
    return total


@inline
def walk(t, n):
    """From the root while whole edges match, into ``path``: nodes (−1: more than it holds), units, those of the last edge if it matches in part, and

    the span that comes next, and how much of it was matched.
    """
    node, spans, path = t.node, t.spans, t.path
    i, a = t.counts[SPANS], np.int64(0)
    here, at, part, depth = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    while at < n:
        content, start = spans[i, 0], spans[i, 1] + a
        child = t.bucket[_place(t.bucket, here, content, start)]
        while child >= 0 and (node[child, PARENT] != here or t.label[child, 0] != content or t.label[child, 1] != start):
            child = node[child, CHAIN]
        if child < 0:
            break
        if depth == path.size:
            return np.int64(-1), at, part, i, a
        path[depth] = child
        depth += 1
        j, b = np.int64(node[child, SPAN]), np.int64(node[child, OFF])
        length = node[child, LEN]
        most = min(np.int64(length), n - at)
        done = np.int64(0)
        while done < most and spans[i, 0] == spans[j, 0] and spans[i, 1] + a == spans[j, 1] + b:
            step = min(min(spans[i, 2] - a, spans[j, 2] - b), most - done)
            done += step
            a += step
            b += step
            if a == spans[i, 2]:
                i, a = i + 1, np.int64(0)
            if b == spans[j, 2]:
                j, b = j + 1, np.int64(0)
        at += done
        here = np.int64(child)
        if done < length:
            part = done
            break
    return depth, at, part, i, a


@inline
def holds(t, e, tenant):
    """The hold of a tenant on a node, −1: none."""
    h = t.node[e, HOLD]
    while h >= 0 and t.hold[h, 0] != tenant:
        h = t.hold[h, 1]
    return h


@inline
def matched(t, depth):
    """A match is over: the node where it ended, and its last tenant (−1: none)."""
    t.counts[CLOCK] += 1
    if depth == 0:
        return np.int64(0), np.int64(-1)
    e = np.int64(t.path[depth - 1])
    last = np.int64(t.node[e, LAST])
    if last < 0 or holds(t, e, last) < 0:
        first = t.node[e, HOLD]
        last = np.int64(t.hold[first, 0]) if first >= 0 else np.int64(-1)
        t.node[e, LAST] = last
    if last >= 0 and t.counts[CLOCK] % _REFRESH == 0:
        t.stamp[holds(t, e, last)] = t.counts[CLOCK]
    return e, last


@inline
def _add_hold(t, e, tenant, stamp):
    h = t.counts[FREE_HOLD]
    if h >= 0:
        t.counts[FREE_HOLD] = t.hold[h, 1]
        t.counts[N_FREE_HOLDS] -= 1
    else:
        h = t.counts[HOLDS]
        t.counts[HOLDS] += 1
    t.hold[h, 0], t.hold[h, 1], t.stamp[h] = tenant, -1, stamp
    last = t.node[e, LAST_HOLD]
    if last >= 0:
        t.hold[last, 1] = h
    else:
        t.node[e, HOLD] = h
    t.node[e, LAST_HOLD] = h


@inline
def _join(t, e, tenant):
    if holds(t, e, tenant) < 0:
        _add_hold(t, e, tenant, 0)
        t.size[tenant] += t.node[e, LEN]


@inline
def _new_node(t):
    e = t.counts[FREE_NODE]
    if e >= 0:
        t.counts[FREE_NODE] = t.node[e, CHAIN]
        t.counts[N_FREE_NODES] -= 1
        for j in range(N_NODE):
            t.node[e, j] = -1
    else:
        e = t.counts[NODES]
        t.counts[NODES] += 1
    return e


@inline
def _enter(t, e, parent, content, start):
    """Found by its parent and first token from now on."""
    t.node[e, PARENT] = parent
    t.label[e, 0], t.label[e, 1] = content, start
    h = _place(t.bucket, parent, content, start)
    t.node[e, CHAIN] = t.bucket[h]
    t.bucket[h] = e


@inline
def take_out(t, e):
    """Not found any more."""
    h = _place(t.bucket, np.int64(t.node[e, PARENT]), t.label[e, 0], t.label[e, 1])
    other = t.bucket[h]
    if other == e:
        t.bucket[h] = t.node[e, CHAIN]
        return
    while t.node[other, CHAIN] != e:
        other = t.node[other, CHAIN]
    t.node[other, CHAIN] = t.node[e, CHAIN]


@inline
def _split(t, e, at):
    """The first ``at`` units of a node become a node of their own, which takes its place."""
    upper = _new_node(t)
    node = t.node
    parent = np.int64(node[e, PARENT])
    node[upper, SPAN], node[upper, OFF], node[upper, LEN], node[upper, LAST] = node[e, SPAN], node[e, OFF], at, node[e, LAST]
    h = node[e, HOLD]
    while h >= 0:
        _add_hold(t, upper, t.hold[h, 0], t.stamp[h])
        h = t.hold[h, 1]
    before, after = node[e, BEFORE], node[e, AFTER]
    node[upper, BEFORE], node[upper, AFTER] = before, after
    if before >= 0:
        node[before, AFTER] = upper
    else:
        node[parent, CHILD] = upper
    if after >= 0:
        node[after, BEFORE] = upper
    else:
        node[parent, LAST_CHILD] = upper
    take_out(t, e)
    _enter(t, upper, parent, t.label[e, 0], t.label[e, 1])
    s, o, left = np.int64(node[e, SPAN]), np.int64(node[e, OFF]), np.int64(at)
    while left > 0:
        n = min(left, t.spans[s, 2] - o)
        left -= n
        o += n
        if o == t.spans[s, 2]:
            s, o = s + 1, np.int64(0)
    node[e, SPAN], node[e, OFF] = s, o
    node[e, LEN] -= at
    node[e, BEFORE] = node[e, AFTER] = -1
    node[upper, CHILD] = node[upper, LAST_CHILD] = e
    _enter(t, e, upper, t.spans[s, 0], t.spans[s, 1] + o)
    return upper


@inline
def insert(t, tenant, pieces, n, depth, at, part, i, a):
    """The tenant holds the whole prompt that was read and walked; only the last node is stamped."""
    t.counts[CLOCK] += 1
    e = np.int64(0)
    for d in range(depth):
        e = np.int64(t.path[d])
        if part > 0 and d == depth - 1:
            e = _split(t, e, part)
        _join(t, e, tenant)
    if at < n:
        child = _new_node(t)
        base = t.counts[SPANS]
        more = base + pieces - i
        for j in range(more):  # those before are not needed
            for k in range(3):
                t.spans[base + j, k] = t.spans[i + j, k]
        t.counts[SPANS] += more
        t.counts[UNSEEN] += 1
        node = t.node
        node[child, SPAN], node[child, OFF], node[child, LEN], node[child, LAST] = base, a, n - at, tenant
        _enter(t, child, e, t.spans[base, 0], t.spans[base, 1] + a)
        last = node[e, LAST_CHILD]
        node[child, BEFORE] = last
        if last >= 0:
            node[last, AFTER] = child
        else:
            node[e, CHILD] = child
        node[e, LAST_CHILD] = child
        _join(t, child, tenant)
        e = child
    if e != 0:
        t.stamp[holds(t, e, tenant)] = t.counts[CLOCK]
