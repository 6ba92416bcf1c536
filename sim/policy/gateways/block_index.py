"""llm-d's approximate prefix index: which endpoint got which blocks, an LRU of bounded size for each. Never told of engine evictions.

Source: llm-d/llm-d-router pkg/epp dataproducer/approximateprefix @ ebab6879. Blocks are chained: a block is known by all that came before it. An
endpoint's count goes on over a gap as long as some other endpoint has the block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.policy.gateways.prompts import Prompt


class BlockIndex:
    """Endpoints are numbers; ``capacity`` blocks each."""

    def __init__(self, block: int, capacity: int, most_tokens: int = 131_072) -> None:
        self._block, self._most = block, most_tokens // block
        self._capacity: dict[int, int] = {}
        self._default = capacity
        self._lru: dict[int, OrderedDict[int, None]] = {}
        self._holders: dict[int, set[int]] = {}

    def keys(self, prompt: Prompt) -> list[int]:
        """Chained hashes of the whole blocks."""
        out, before = [], 0
        for block in prompt.blocks(self._block, partial=False):
            before = hash((before, block))
            out.append(before)
            if len(out) >= self._most:
                break
        return out

    def size(self, endpoint: int, blocks: int) -> None:
        """What the engine reports as its number of blocks, in blocks of this index."""
        self._capacity[endpoint] = max(blocks, 1)

    def match(self, keys: Sequence[int], endpoints: Sequence[int]) -> NDArray[np.float64]:
        """f8[n]: blocks counted for each endpoint."""
        counts = dict.fromkeys(endpoints, 0)
        for key in keys:
            holders = self._holders.get(key)
            if not holders:
                break
            for endpoint in holders:
                if endpoint in counts:
                    counts[endpoint] += 1
        return np.array([counts[e] for e in endpoints], np.float64)

    def insert(self, keys: Sequence[int], endpoint: int) -> None:
        """The endpoint got a prompt of these blocks."""
        lru = self._lru.setdefault(endpoint, OrderedDict())
        for key in keys:
            lru[key] = None
            lru.move_to_end(key)
            self._holders.setdefault(key, set()).add(endpoint)
        most = self._capacity.get(endpoint, self._default)
        while len(lru) > most:
            self._forget(lru.popitem(last=False)[0], endpoint)

    def drop(self, endpoint: int) -> None:
        """The endpoint is gone."""
        for key in self._lru.pop(endpoint, ()):
            self._forget(key, endpoint)

    def _forget(self, key: int, endpoint: int) -> None:
        holders = self._holders[key]
        holders.discard(endpoint)
        if not holders:
            del self._holders[key]
