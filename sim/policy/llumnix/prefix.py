"""Prefix keys of prompts in chunks of tokens, and what an instance is thought to hold.

The real schedulers ask a global KV store. Here the scheduler remembers which prompts it sent where, each instance keeping the most recently
used chunks up to its KV memory: an assumption, exact as long as the engine evicts in the same order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

Spans = Sequence[tuple[int, int, int]]


def chunk_keys(spans: Spans, chunk: int) -> list[int]:
    """One chained key per full chunk of ``chunk`` tokens of a prompt given as spans (content id, start, length); an unfull last one has none."""
    keys: list[int] = []
    parent, room = 0, chunk
    piece: list[int] = []
    for content, start, length in spans:
        while length > 0:
            n = min(room, length)
            piece += (content, start, n)
            start, length, room = start + n, length - n, room - n
            if room == 0:
                parent = hash((parent, *piece))
                keys.append(parent)
                piece, room = [], chunk
    return keys


class PrefixIndex:
    """Chunks held by each of ``instances``, at most ``capacity`` each, least recently used out first."""

    def __init__(self, instances: int, capacity: int) -> None:
        self._held: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(instances)]
        self._capacity = capacity

    def has(self, instance: int, key: int) -> bool:
        """Whether the instance holds the chunk."""
        return key in self._held[instance]

    def store(self, instance: int, keys: Iterable[int]) -> None:
        """The instance now holds these chunks."""
        held = self._held[instance]
        for key in keys:
            held[key] = None
            held.move_to_end(key)
        while len(held) > self._capacity:
            held.popitem(last=False)

    def forget(self, instance: int) -> None:
        """The instance holds nothing any more."""
        self._held[instance].clear()

    def consecutive(self, instance: int, keys: Sequence[int]) -> int:
        """Leading chunks of a prompt that the instance holds."""
        held = self._held[instance]
        return next((n for n, key in enumerate(keys) if key not in held), len(keys))

    def longest_from_first_hit(self, keys: Sequence[int], instances: int) -> dict[int, int]:
        """Consecutive chunks held by each instance that holds any, as the v1 scheduler counts them.

        Counted chunk by chunk over all instances; a gap ends an instance's prefix. An instance's first hit may be at any chunk and
        still counts (``pkg/scheduler/policy/prefix_cache_utils.go``).
        """
        hits: dict[int, int] = {}
        ended: set[int] = set()
        for key in keys:
            for i in range(instances):
                if i in ended:
                    continue
                if self.has(i, key):
                    hits[i] = hits.get(i, 0) + 1
                elif i in hits:
                    ended.add(i)
        return hits
