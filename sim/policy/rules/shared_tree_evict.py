# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Who gives up what in a `sim.policy.rules.shared_tree`: the oldest leaves of who holds too much, or all of who has gone."""

import heapq

import numpy as np

from sim.jit import inline, kernel
from sim.policy.rules.shared_tree import (
    AFTER,
    BEFORE,
    CHAIN,
    CHILD,
    FREE_HOLD,
    FREE_NODE,
    GONE,
    HOLD,
    LAST_CHILD,
    LAST_HOLD,
    LEN,
    N_FREE_HOLDS,
    N_FREE_NODES,
    PARENT,
    holds,
    take_out,
)


@inline
def _leave(t, e, tenant):
    """A tenant gives a node up, which goes if nobody else holds it and it has no children."""
    node = t.node
    before, h = np.int64(-1), np.int64(node[e, HOLD])
    while t.hold[h, 0] != tenant:
        before, h = h, np.int64(t.hold[h, 1])
    after = t.hold[h, 1]
    if before >= 0:
        t.hold[before, 1] = after
    else:
        node[e, HOLD] = after
    if after < 0:
        node[e, LAST_HOLD] = before
    t.hold[h, 1] = t.counts[FREE_HOLD]
    t.counts[FREE_HOLD] = h
    t.counts[N_FREE_HOLDS] += 1
    t.size[tenant] -= node[e, LEN]
    if node[e, HOLD] >= 0 or node[e, CHILD] >= 0:
        return
    take_out(t, e)
    parent, before, after = node[e, PARENT], np.int64(node[e, BEFORE]), node[e, AFTER]
    if before >= 0:
        node[before, AFTER] = after
    else:
        node[parent, CHILD] = after
    if after >= 0:
        node[after, BEFORE] = before
    else:
        node[parent, LAST_CHILD] = before
    node[e, PARENT] = GONE
    node[e, CHAIN] = t.counts[FREE_NODE]
    t.counts[FREE_NODE] = e
    t.counts[N_FREE_NODES] += 1


@inline
def _has_own_child(t, e, tenant):
    c = t.node[e, CHILD]
    while c >= 0 and holds(t, c, tenant) < 0:
        c = t.node[c, AFTER]
    return c >= 0


@kernel
def evict(t, most):
    """Every tenant gives up its oldest leaves until it holds at most ``most`` units."""
    for tenant in range(t.size.size):
        if t.size[tenant] <= most:
            continue
        leaves = [(np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
        count = np.int64(0)
        stack = [np.int64(0)]
        while len(stack) > 0:
            e = stack.pop()
            if e != 0 and not _has_own_child(t, e, tenant):
                leaves.append((np.int64(t.stamp[holds(t, e, tenant)]), count, e))
                count += 1
                continue
            c = np.int64(t.node[e, CHILD])
            while c >= 0:
                if holds(t, c, tenant) >= 0:
                    stack.append(c)
                c = np.int64(t.node[c, AFTER])
        heapq.heapify(leaves)
        while len(leaves) > 0 and t.size[tenant] > most:
            e = heapq.heappop(leaves)[2]
            above = np.int64(t.node[e, PARENT])
            _leave(t, e, tenant)
            if above <= 0 or holds(t, above, tenant) < 0 or _has_own_child(t, above, tenant):
                continue
            heapq.heappush(leaves, (np.int64(t.stamp[holds(t, above, tenant)]), count, above))
            count += 1


@kernel
def remove(t, tenant):
    """A worker is gone: it holds nothing any more."""
    stack = [np.int64(0)]
    while len(stack) > 0:
        e = stack.pop()
        c = np.int64(t.node[e, CHILD])
        while c >= 0:
            if holds(t, c, tenant) >= 0:
                stack.append(c)
            c = np.int64(t.node[c, AFTER])
        if e != 0:
            _leave(t, e, tenant)
