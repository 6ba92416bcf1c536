# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What ranks that step together share, compiled: the experts' time by the tokens of all ranks, and how far batches are padded."""

from typing import Final

import numpy as np

from sim.cost.features import PREFILL_ROWS, TOKENS
from sim.cost.step import device_time, scattered, wall_time
from sim.jit import f8s, i8, inline, kernel, new, struct
from sim.ledger import N_PARTS, PART_COMMUNICATION, PART_HOST, PART_LINEAR_COMPUTE, PART_LINEAR_MEMORY, PART_OTHER

SHARED_PARTS: Final = 4  # compute, memory, communication, small kernels: the columns of `sim.cost.step` without the floor


@struct
class SharedCost:
    """``data``: rows of `SHARED_PARTS` seconds of all layers by tokens per rank, 0…``n``, padded to graphs and then as they are.

    ``n`` 0: nothing is shared (recordings, laws). A graph is replayed up to ``graph_top`` tokens, ``graph_top_prompt`` if any rank computes
    a prompt.
    """

    data: f8s
    n: i8
    graph_top: i8
    graph_top_prompt: i8


@kernel
def new_shared_cost(data, n, graph_top, graph_top_prompt):
    """See `SharedCost`."""
    c = new(SharedCost)
    c.data = data
    c.n = n
    c.graph_top = graph_top
    c.graph_top_prompt = graph_top_prompt
    return c


@kernel
def nothing_shared():
    """Ranks that only wait for each other."""
    c = new(SharedCost)
    c.data = np.zeros(0)
    c.n = c.graph_top = c.graph_top_prompt = 0
    return c


@inline
def _padded(c, most, prompt):
    """Whether all ranks are padded to the one with ``most`` tokens; ``prompt``: some rank computes one."""
    return c.n > 0 and most <= (c.graph_top_prompt if prompt else c.graph_top)


@inline
def _part(c, tokens, padded, part):
    """Seconds of one part at ``tokens`` per rank, linear between whole numbers and beyond the table."""
    if c.n == 0:
        return 0.0
    first = part if padded else part + SHARED_PARTS * (c.n + 1)
    d = c.data
    if tokens >= c.n:
        return d[first + SHARED_PARTS * c.n] * (tokens / c.n)
    x = max(tokens, 1.0)
    i = int(x)
    a = d[first + SHARED_PARTS * i]
    b = d[first + SHARED_PARTS * (i + 1)] if i < c.n else a
    return a + (x - i) * (b - a)


@inline
def together_time(cost, shared, feats, device, parts):
    """Seconds of a common step. ``feats`` f8[rank, feature]: the sums of each rank's batch; ``cost``: of one rank without the experts.

    ``parts`` f8[rank, part] becomes what each rank spends them on (a rank's wait for the slowest is communication), ``device`` f8[rank] its own.
    """
    ranks = feats.shape[0]
    most = total = 0.0
    prompt = False
    for k in range(ranks):
        tokens = feats[k, TOKENS]
        total += tokens
        most = max(most, tokens)
        if feats[k, PREFILL_ROWS] > 0.0:
            prompt = True
    padded = _padded(shared, most, prompt)
    slowest = floor = host = 0.0
    for k in range(ranks):
        for j in range(N_PARTS):
            parts[k, j] = 0.0
        own = feats[k, TOKENS]
        if padded:
            feats[k, TOKENS] = most
        device[k], launches, work = device_time(cost, feats[k], parts[k])
        feats[k, TOKENS] = own
        slowest = max(slowest, device[k])
        floor = max(floor, launches)
        host = max(host, work)
    tokens = most if padded else total / ranks
    compute = _part(shared, tokens, padded, 0)
    memory = _part(shared, tokens, padded, 1)
    comms = _part(shared, tokens, padded, 2)
    other = _part(shared, tokens, padded, 3)
    busy = slowest + (compute + memory + comms + other)
    t = scattered(cost, wall_time(cost, busy, floor, host))
    for k in range(ranks):
        parts[k, PART_LINEAR_COMPUTE] += compute
        parts[k, PART_LINEAR_MEMORY] += memory
        parts[k, PART_COMMUNICATION] += comms + (slowest - device[k])
        parts[k, PART_OTHER] += other
        parts[k, PART_HOST] += t - busy
    return t
