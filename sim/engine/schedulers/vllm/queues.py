# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Waiting queues: a deque under fcfs, a heap by (priority, arrival, id) under the priority policy (``v1/core/sched/request_queue.py``)."""

import numpy as np

from sim.engine.borrow import keep
from sim.jit import i4s, i8, inline, kernel, new, struct


@struct
class SlotQueue:
    """A growing ring of slots; as a heap it begins at place 0."""

    slot: i4s
    head: i8
    len: i8


@kernel
def new_slot_queue():
    """An empty queue."""
    q = new(SlotQueue)
    q.slot = np.empty(64, np.int32)
    q.head = 0
    q.len = 0
    return q


@kernel
def _double(q):
    own = keep(q)
    n = q.slot.size
    bigger = np.empty(2 * n, np.int32)
    for j in range(q.len):
        bigger[j] = q.slot[(q.head + j) % n]
    own.slot = bigger
    q.head = 0


@inline
def _before(s, a, b):
    if s.r_priority[a] != s.r_priority[b]:
        return s.r_priority[a] < s.r_priority[b]
    if s.r_arrival[a] != s.r_arrival[b]:
        return s.r_arrival[a] < s.r_arrival[b]
    return s.r_id[a] < s.r_id[b]


@inline
def _sift_up(s, q, i, slot):
    h = q.slot
    while i > 0:
        parent = (i - 1) // 2
        if not _before(s, slot, h[parent]):
            break
        h[i] = h[parent]
        i = parent
    h[i] = slot


@inline
def _sift_down(s, q, i, slot):
    h = q.slot
    n = q.len
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and _before(s, h[child + 1], h[child]):
            child += 1
        if not _before(s, h[child], slot):
            break
        h[i] = h[child]
        i = child
    h[i] = slot


@inline
def queue_add(s, q, slot, front):
    """At the end (``front`` 1: at the front); under the priority policy where it belongs."""
    if q.len == q.slot.size:
        _double(q)
    n = q.slot.size
    q.len += 1
    if s.priority:
        _sift_up(s, q, q.len - 1, slot)
    elif front == 1:
        q.head = (q.head - 1 + n) % n
        q.slot[q.head] = slot
    else:
        q.slot[(q.head + q.len - 1) % n] = slot


@inline
def queue_take(s, q):
    """Take the head."""
    slot = q.slot[q.head]
    q.len -= 1
    if s.priority:
        if q.len > 0:
            _sift_down(s, q, q.head, q.slot[q.len])  # the head of a heap is place 0
    else:
        q.head = (q.head + 1) % q.slot.size
    return slot


@kernel
def queue_remove(s, q, slot):
    """Take a slot out from the middle, if it is there (a preempted request whose last token was still in flight)."""
    n = q.slot.size
    at = -1
    for j in range(q.len):
        if q.slot[(q.head + j) % n] == slot:
            at = j
            break
    if at < 0:
        return
    q.len -= 1
    if s.priority:
        last = q.slot[q.len]
        if at < q.len:
            _sift_up(s, q, at, last)
            if q.slot[at] == last:
                _sift_down(s, q, at, last)
    else:
        for j in range(at, q.len):
            q.slot[(q.head + j) % n] = q.slot[(q.head + j + 1) % n]
