# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Order of the waiting queue, set anew on each pass that may admit (``managers/schedule_policy.py: SchedulePolicy.calc_priority``)."""

from math import inf
from typing import Final

from sim.engine.borrow import keep
from sim.engine.kv.radix import LRU, ROOT, radix_clear
from sim.engine.kv.radix_walk import radix_walk
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.memory import set_key
from sim.engine.schedulers.sglang.state import DFS_WEIGHT, FCFS, HRRN, LOF, LPM, RANDOM, SHORTEST, SglangState, total_len
from sim.engine.state import grown
from sim.jit import flat

LONG_QUEUE: Final = 128  # beyond it lpm and hrrn fall back to fcfs
CHECK_THRESHOLD: Final = 32  # IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD
DEPRIORITIZE_THRESHOLD: Final = 32  # IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD
REFRESH_EVERY: Final = 32  # calls between two refreshes of waiting prefixes
_HUGE: Final = 1 << 50


@outlined(SglangState)
def match_waiting(s, slot, limit):
    """Match prompt and output against the tree, up to ``limit`` tokens; sets prefix length and node."""
    n = total_len(s, slot)
    s.r_pre[slot] = 0
    s.r_node[slot] = ROOT
    if not s.tree.off:
        limit = min(n, limit)
        set_key(s, 0, slot, limit)
        s.r_pre[slot] = radix_walk(s.tree, limit, 0, 0, 0, 0)
        s.r_node[slot] = s.tree.end
    s.r_hit[slot] = min(s.r_pre[slot] + 0, n - 1)
    return 0


@outlined(SglangState)
def _sort(s, n):
    """Stable merge sort of ``o_slot[:n]`` by (``o_a``, ``o_b``), both given by position; keys are moved along."""
    ordered = True
    for i in range(1, n):
        if s.o_a[i - 1] > s.o_a[i] or (s.o_a[i - 1] == s.o_a[i] and s.o_b[i - 1] > s.o_b[i]):
            ordered = False
            break
    if ordered:
        return 0
    a, b = s.o_a, s.o_b
    src, dst = s.o_rank, s.o_tmp
    for i in range(n):
        src[i] = i
    width = 1
    while width < n:
        lo = 0
        while lo < n:
            mid = min(lo + width, n)
            hi = min(lo + 2 * width, n)
            i, j = lo, mid
            for k in range(lo, hi):
                left = j >= hi
                if not left and i < mid:
                    x, y = src[i], src[j]
                    left = a[x] < a[y] or (a[x] == a[y] and b[x] <= b[y])
                if left:
                    dst[k] = src[i]
                    i += 1
                else:
                    dst[k] = src[j]
                    j += 1
            lo += 2 * width
        src, dst = dst, src
        width *= 2
    for i in range(n):
        dst[i] = s.o_slot[src[i]]
    for i in range(n):
        s.o_slot[i] = dst[i]
    return 0


@flat
def _text_rank(i):
    """A number that orders ids as their decimal strings do (hrrn breaks ties by request id as text)."""
    digits = 1
    v = i
    while v >= 10:
        v //= 10
        digits += 1
    scale = 1
    for _ in range(11 - digits):
        scale *= 10
    return float(i * scale * 16 + digits)


@outlined(SglangState)
def _match_queue(s, n):
    """Match every waiting request; ``o_a`` becomes 1 for those that another one before them in the queue should warm the cache for."""
    q = s.queue_tree
    radix_clear(q, q.page)
    for i in range(n):
        slot = s.o_slot[i]
        match_waiting(s, slot, _HUGE)
        s.o_a[i] = 0.0
        if s.r_pre[slot] <= CHECK_THRESHOLD:
            m = total_len(s, slot)
            set_key(s, 1, slot, m)
            if radix_walk(q, m, 0, 0, 0, 0) >= DEPRIORITIZE_THRESHOLD:
                s.o_a[i] = 1.0
            else:
                radix_walk(q, m, 1, _HUGE, 0, 0)
    return 0


@outlined(SglangState)
def _dfs_order(s, n):
    """dfs-weight: depth first through the tree, the child with most waiting requests below it first; a node's own come after its children."""
    t = s.tree
    while s.d_weight.size < t.parent.size:
        size = s.d_weight.size * 2
        own = keep(s)
        own.d_weight = grown(s.d_weight, size)
        own.d_child = grown(s.d_child, size)
        own.d_next = grown(s.d_next, size)
    # weights of the nodes above any waiting request, which are collected in `touched` (at most the nodes of the tree)
    touched = s.d_touched
    if touched.size < t.parent.size:
        keep(s).d_touched = grown(touched, t.parent.size)
        touched = s.d_touched
    m = 0
    for i in range(n):
        x = s.r_node[s.o_slot[i]] + 0
        while x >= 0:
            if s.d_weight[x] == 0:
                touched[m] = x
                m += 1
                s.d_child[x] = -1
            s.d_weight[x] += 1
            x = t.parent[x] + 0
    # insert each node into its parent's list: heavier first, then as the tree's dictionary has them
    for k in range(m):
        x = touched[k]
        if x == ROOT:
            continue
        up = t.parent[x]
        before = -1
        y = s.d_child[up] + 0
        while y >= 0 and (s.d_weight[y] > s.d_weight[x] or (s.d_weight[y] == s.d_weight[x] and t.order[y] < t.order[x])):
            before = y
            y = s.d_next[y] + 0
        s.d_next[x] = y
        if before < 0:
            s.d_child[up] = x
        else:
            s.d_next[before] = x
    # the requests of one node in queue order, linked through o_rank (head: d_weight, which is free from here on)
    for k in range(m):
        s.d_weight[touched[k]] = 0
    for i in range(n - 1, -1, -1):
        x = s.r_node[s.o_slot[i]]
        s.o_rank[i] = s.d_weight[x] - 1
        s.d_weight[x] = i + 1
    x = ROOT
    k = 0
    while True:
        while s.d_child[x] >= 0:  # down to the first child that is left, taking it off the list
            y = s.d_child[x] + 0
            s.d_child[x] = s.d_next[y]
            x = y
        i = s.d_weight[x] - 1
        while i >= 0:
            s.o_tmp[k] = s.o_slot[i]
            k += 1
            i = s.o_rank[i] + 0
        s.d_weight[x] = 0
        if x == ROOT:
            break
        x = t.parent[x] + 0
    for i in range(n):
        s.o_slot[i] = s.o_tmp[i]
    return 0


@outlined(SglangState)
def _random_bits(s, bits):
    """The next ``bits`` ≤ 32 of CPython's ``random`` (MT19937), whose ``shuffle`` the policy uses."""
    mt = s.mt
    if s.mt_i >= 624:
        for k in range(624):
            y = (mt[k] & 0x80000000) | (mt[(k + 1) % 624] & 0x7FFFFFFF)
            mt[k] = mt[(k + 397) % 624] ^ (y >> 1) ^ (0x9908B0DF if y & 1 else 0)
        s.mt_i = 0
    y = mt[s.mt_i]
    s.mt_i += 1
    y ^= y >> 11
    y ^= (y << 7) & 0x9D2C5680
    y ^= (y << 15) & 0xEFC60000
    y ^= y >> 18
    return y >> (32 - bits)


@flat
def _shuffle(s, n):
    for i in range(n - 1, 0, -1):
        bits = 0
        while (i + 1) >> bits:
            bits += 1
        j = _random_bits(s, bits)
        while j > i:
            j = _random_bits(s, bits)
        s.o_slot[i], s.o_slot[j] = s.o_slot[j], s.o_slot[i]


@outlined(SglangState)
def order_waiting(s):
    """``calc_priority``. With the cache disabled the caller has replaced lpm, dfs-weight and hrrn by fcfs already."""
    n = s.w_hi - s.w_lo
    policy = s.policy
    if policy == FCFS and not s.priority_on and s.calls % REFRESH_EVERY != 0:
        s.calls += 1 if n > 0 and not s.tree.off and s.tree.policy == LRU else 0
        return 0
    if n > LONG_QUEUE and (policy == LPM or policy == HRRN):
        policy = FCFS
    lo = s.w_lo
    for i in range(n):
        s.o_slot[i] = s.w_slot[lo + i]
        s.o_a[i] = 0.0
        s.o_b[i] = 0.0
    if policy == LPM or policy == HRRN or policy == SHORTEST or policy == DFS_WEIGHT:
        _match_queue(s, n)
        for i in range(n):
            slot = s.o_slot[i]
            later = s.o_a[i] == 1.0
            if policy == LPM:
                s.o_a[i] = inf if later else -float(s.r_hit[slot])
            elif policy == SHORTEST:
                s.o_a[i] = float(max(1, total_len(s, slot) - s.r_hit[slot])) + (1e15 if later else 0.0)
                s.o_b[i] = float(s.r_stamp[slot])
            elif policy == HRRN:
                left = s.r_prompt[slot] - s.r_hit[slot] + 0
                s.o_b[i] = _text_rank(s.r_id[slot])
                if later:
                    s.o_a[i] = inf
                elif left <= 0:
                    s.o_a[i] = -inf
                else:
                    s.o_a[i] = -float(max(0, s.processed - s.r_processed[slot])) / left
    elif policy == LOF:
        for i in range(n):
            slot = s.o_slot[i]
            s.o_a[i] = -float(s.r_max_new[slot])
            if s.priority_on:
                s.o_b[i] = s.o_a[i]
                s.o_a[i] = -float(s.r_priority[slot] * s.priority_sign)
    elif s.policy == FCFS and s.priority_on:
        for i in range(n):
            slot = s.o_slot[i]
            s.o_a[i] = -float(s.r_priority[slot] * s.priority_sign)
            s.o_b[i] = float(s.r_stamp[slot])
    if policy == DFS_WEIGHT:
        _dfs_order(s, n)
    elif policy == RANDOM:
        _shuffle(s, n)
    elif s.policy != FCFS or s.priority_on:
        _sort(s, n)
    for i in range(n):
        s.w_slot[lo + i] = s.o_slot[i]
    # _touch_waiting_prefixes: policies that do not look at the cache refresh what the queue will use
    if (policy == FCFS or policy == LOF or policy == RANDOM) and n > 0 and not s.tree.off and s.tree.policy == LRU:
        if s.calls % REFRESH_EVERY == 0:
            for i in range(min(n, 128) - 1, -1, -1):
                slot = s.w_slot[lo + i]
                m = total_len(s, slot)
                set_key(s, 0, slot, m)
                radix_walk(s.tree, m, 0, 0, 0, 0)
        s.calls += 1
    return 0
