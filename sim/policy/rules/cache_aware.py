# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""``cache_aware`` of SGLang's router, smg and vLLM's router: `sim.policy.gateways.cache_aware` over a tree in arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.jit import f8s, i1s, i4s, i4ss, i8s, i8ss, inline
from sim.policy.gateways.cache_aware import VERSIONS, Settings, margin
from sim.policy.rules.shared_tree import HOLD, insert, larger, matched, new_tree, prompt_length, read_prompt, room, walk
from sim.policy.rules.shared_tree_evict import evict, remove
from sim.rules import MORE, Rule, draw, fields, for_workers

SMG_18, SMG_113, VLLM = range(1, 4)  # places in `VERSIONS`
_margin = inline(margin)


class Gateway(NamedTuple):
    """A tree, and what the gateway has beside it."""

    counts: i8s
    node: i4ss
    label: i8ss
    hold: i4ss
    stamp: i8s
    spans: i8ss
    bucket: i4s
    path: i4s
    size: i8s
    kind: i8s  # version, whether prompts are seen
    limits: f8s  # cache_threshold, balance_abs_threshold, balance_rel_threshold
    eviction: f8s  # when next, interval, units
    place: i8s  # [worker] −1: it is not there
    processed: i8s  # [worker]
    best: i1s  # [place]


@inline
def _one_of(m, seen, ties):
    """One of the ``ties`` places that are marked, drawn."""
    k = draw(seen.source, ties)
    place = np.int64(-1)
    while k >= 0:
        place += 1
        k -= m.best[place]
    return place


@inline
def _least(m, seen, low):
    """A place with the load ``low``."""
    version, load = m.kind[0], seen.outstanding
    first = np.int64(-1)
    ties = 0
    for k in range(load.size):
        m.best[k] = load[k] == low
        if m.best[k]:
            ties += 1
            if first < 0 or (version == SMG_18 and m.processed[seen.numbers[k]] < m.processed[seen.numbers[first]]):
                first = np.int64(k)
    return _one_of(m, seen, ties) if version == SMG_113 and ties > 1 else first


@inline
def _owner(m, seen, e, low):
    """Of those that hold the node where the match ended the least loaded."""
    load = seen.outstanding
    for k in range(load.size):
        m.best[k] = 0
    first, ties = np.int64(-1), 0
    h = m.node[e, HOLD]
    while h >= 0:
        k = m.place[m.hold[h, 0]]
        if k >= 0:
            if first < 0 or load[k] < load[first] or (load[k] == load[first] and k < first):
                first = k
            m.best[k] = 1
        h = m.hold[h, 1]
    if first < 0:
        return _least(m, seen, low)
    if m.kind[0] == VLLM:
        return first
    total = 0
    for k in range(load.size):
        total += load[k]
        m.best[k] = m.best[k] and load[k] == load[first]
        ties += m.best[k]
    mean = float(total) / load.size
    if load[first] > mean + _margin(mean, m.limits[1]) and load[first] > m.limits[2] * mean:
        return _least(m, seen, low)
    return _one_of(m, seen, ties) if ties > 1 else first


def cache_aware(memory, seen, row, now):
    """One decision, after which the prompt is known to be there."""
    m = fields(memory, Gateway)
    if now >= m.eviction[0]:
        evict(m, np.int64(m.eviction[2]))
        m.eviction[0] = (now // m.eviction[1] + 1.0) * m.eviction[1]
    load = seen.outstanding
    low = high = load[0]
    for k in range(1, load.size):
        low, high = min(low, load[k]), max(high, load[k])
    if not m.kind[1]:
        return _least(m, seen, low)
    pieces = read_prompt(m, seen, row)
    if pieces < 0 or not room(m):
        return np.int64(MORE)
    n = prompt_length(m, pieces)
    depth, at, part, i, a = walk(m, n)
    if depth < 0:
        return np.int64(MORE)
    version = m.kind[0]
    enters = True
    if version != SMG_113 and high - low > m.limits[1] and high > low * m.limits[2]:
        place = _least(m, seen, low)
    else:
        e, last = matched(m, depth)
        if n == 0 or at / n <= m.limits[0]:
            place = _least(m, seen, low)
        elif version > SMG_18:
            place = _owner(m, seen, e, low)
        else:
            place = m.place[last] if last >= 0 else np.int64(-1)
            if place < 0:
                place, enters = np.int64(0), False
    worker = seen.numbers[place]
    m.processed[worker] += 1
    if enters:
        insert(m, worker, pieces, n, depth, at, part, i, a)
    return place


class CacheAwareRule(Rule):
    """Of the workers ``order``. ``interval``: seconds between evictions, down to ``most`` units each."""

    def __init__(self, settings: Settings, order: Sequence[int], interval: float, most: float, tokens: bool = True) -> None:
        self._settings = settings
        self._order: list[int] = []
        workers = max(order, default=-1) + 1
        memory = Gateway(
            *new_tree(workers),
            np.array([VERSIONS.index(settings.version), tokens], np.int64),
            np.array([settings.cache_threshold, settings.balance_abs_threshold, settings.balance_rel_threshold], np.float64),
            np.array([interval, interval, most], np.float64),
            np.full(workers, -1, np.int64),
            np.zeros(workers, np.int64),
            np.zeros(workers, np.int8),
        )
        super().__init__(cache_aware, memory, lambda: self.memory._replace(**larger(self.memory)))
        self.workers(order)

    def workers(self, order: Sequence[int]) -> None:
        """See `sim.policy.gateways.cache_aware.CacheAware.workers`."""
        self.replace(for_workers(self.memory, max(order, default=-1) + 1, size=0, place=-1, processed=0, best=0))
        m = self.memory
        gone = [w for w in self._order if w not in order]
        if self._settings.version == "0.3":
            for w in gone:
                remove(m, w)
        m.processed[gone] = 0
        m.place[:] = -1
        m.place[list(order)] = np.arange(len(order))
        self._order = list(order)
