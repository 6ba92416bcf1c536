"""A FIFO of slots as a growing ring, for schedulers that need no more: fields ``w_slot, w_head, w_len`` of the state."""

import numpy as np

from sim.engine.borrow import keep
from sim.jit import inline


@inline
def queue_push(s, slot):
    """Append at the tail."""
    n = s.w_slot.size
    if s.w_len == n:
        bigger = np.empty(2 * n, np.int32)
        for j in range(n):
            bigger[j] = s.w_slot[(s.w_head + j) % n]
        keep(s).w_slot = bigger
        s.w_head = 0
        n *= 2
    s.w_slot[(s.w_head + s.w_len) % n] = slot
    s.w_len += 1


@inline
def queue_push_front(s, slot):
    """Put at the head."""
    queue_push(s, slot)  # makes room; the entry at the tail is overwritten below
    s.w_head = (s.w_head - 1 + s.w_slot.size) % s.w_slot.size
    s.w_slot[s.w_head] = slot


@inline
def queue_head(s):
    """Slot at the head; the queue must not be empty."""
    return s.w_slot[s.w_head]


@inline
def queue_pop(s):
    """Take the head."""
    slot = s.w_slot[s.w_head]
    s.w_head = (s.w_head + 1) % s.w_slot.size
    s.w_len -= 1
    return slot


@inline
def queue_drop(s, slot):
    """Take a slot out, wherever it stands; False if it is not there."""
    size = s.w_slot.size
    n = 0
    for j in range(s.w_len):
        other = s.w_slot[(s.w_head + j) % size]
        if other != slot:
            s.w_slot[(s.w_head + n) % size] = other
            n += 1
    found = n < s.w_len
    s.w_len = n
    return found
