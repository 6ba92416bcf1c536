# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Chunks of models with recurrent layers end where their states can be found again (``v1/core/sched/scheduler.py``)."""

import numpy as np

from sim.engine.schedulers.vllm.groups.register import checkpoint
from sim.engine.schedulers.vllm.groups.state import AL, JUNCTION, LEN, NULL, SIZE
from sim.engine.schedulers.vllm.state import KNOWN, PROMPT
from sim.jit import inline


@inline
def _exports(s, start, end, position):
    """Whether layers can export the state at ``position`` out of a chunk [start, end)."""
    size = s.least_size
    return (
        s.ckpt > 0
        and start % s.block_size == 0
        and (end + size - 1) // size - 2 > (start - 1) // size
        and start + s.block_size <= position
        and start < position < end
        and (position - start) % s.ckpt == 0
    )


@inline
def internal_checkpoint(s, slot, row, g, start, end):
    """Position of the state that group ``g`` exports out of the chunk [start, end); 0: none."""
    x = s.r_x
    if s.ckpt == 0:
        return np.int64(0)
    needed = max(np.int64(x[slot, PROMPT]), np.int64(x[slot, KNOWN]) - 1) if s.retention == 0 else np.int64(0)
    position = checkpoint(s, end, s.grid)
    size = s.g[g, SIZE]
    i = (end + size - 1) // size - 2
    t = s.tx[row, g]
    if end < needed or i < 0 or not _exports(s, start, end, position):
        return np.int64(0)
    if i >= t[LEN] or s.tab[row, g, i] == NULL or (t[AL] == 1 and i >= t[LEN] - s.k_spec):
        return position
    return np.int64(0)


def cut_chunk_groups(s, slot, start, n):
    """See `seam.cut_chunk`."""
    if not s.states or n <= 0:
        return n
    x = s.r_x
    prompt = np.int64(x[slot, PROMPT])
    known = np.int64(x[slot, KNOWN])
    needed = max(prompt, known - 1)
    if start >= needed:
        return n
    size = s.least_size
    end = start + n
    if end < needed:
        most = min(s.max_tokens, s.threshold) if s.threshold > 0 else s.max_tokens
        aligned = end // size * size
        if aligned > start or size <= most:
            end = aligned
    junction = np.int64(x[slot, JUNCTION])
    cut = start + (junction - start) // size * size
    last = checkpoint(s, known, size)
    middle = True
    if start + n >= needed and _exports(s, start, start + n, checkpoint(s, needed, s.grid)):
        last = np.int64(0)
        middle = False
    first = end
    if middle and start % size != 0:
        stop = (start // size + 1) * size
        if start < stop < first:
            first = stop
    if start < last < first:
        first = last
    if s.fine and middle:
        tail = checkpoint(s, prompt, s.block_size)
        if last < tail < prompt and start < tail < first:
            first = tail
    if start < junction < end and start < cut < first:
        first = cut
    return max(first - start, 0)
