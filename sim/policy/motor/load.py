"""What a request asks of an instance, and the load that compares decode instances (``meta_resource.cpp``)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

FULL_GROUPS = 2  # below n over so many requests on the busiest instance, tokens are simply summed
TAIL_DIVISOR = 2  # a short tail counts half its longest


@dataclass(frozen=True)
class Demand:
    """Of one request: a slot, blocks of its input, and the tokens of its input."""

    slots: int
    blocks: int
    tokens: int


def demand_of(tokens: int, block_size: int, values: Sequence[int]) -> Demand:
    """``load_cost_values`` are slots and blocks of every request; no blocks: those of its input."""
    slots, blocks = values
    return Demand(slots, blocks or -(-tokens // block_size), tokens)


@dataclass
class Resource:
    """Demands added up; ``inputs`` ascending."""

    slots: int = 0
    blocks: int = 0
    inputs: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """What compares prefill instances."""
        return self.slots + self.blocks

    def add(self, d: Demand) -> None:
        """One request more."""
        self.slots += d.slots
        self.blocks += d.blocks
        insort(self.inputs, d.tokens)

    def remove(self, d: Demand) -> None:
        """One less."""
        self.slots -= d.slots
        self.blocks -= d.blocks
        self.inputs.remove(d.tokens)


@dataclass(frozen=True)
class LoadCost:
    """``load_cost_coefficient``: a, i, o, n, k, m, r, b, c. ``i`` is not used at this commit."""

    a: float = 0.0
    i: float = 0.22
    o: float = 1024.0
    n: float = 24.0
    k: float = 6.0
    m: float = 0.0
    r: float = 1.0
    b: float = 0.0
    c: float = 1.0

    def tokens(self, held: Sequence[int], most_slots: int, demand: int) -> int:
        """Tokens that a decode step pays for: requests of similar length are computed in groups of ``n``, each as long as its longest."""
        offset, n = max(int(self.o), 0), max(int(self.n), 1)
        if self.a == 0.0:
            return 1
        if most_slots < n // FULL_GROUPS:
            return sum(held) + offset * len(held) + demand
        lengths = sorted([t + offset for t in held] + [demand])
        groups, tail = divmod(len(lengths), n)
        total = sum(lengths[(g + 1) * n - 1] * n for g in range(groups))
        # upstream counts on from the last group: a tail is only found without one before it
        if groups == 0 and tail > 0:
            longest = lengths[-1]
            total += longest // TAIL_DIVISOR * tail if tail <= int(self.k) else longest * tail
        return total

    def load(self, r: Resource, most_slots: int, used_blocks: float, d: Demand) -> float:
        """``ComputeAwareLoad`` of a decode instance that has ``r`` and reported ``used_blocks``; ``most_slots``: of the busiest one."""
        tokens = self.tokens(r.inputs, most_slots, d.tokens)
        most = most_slots + (r.slots == most_slots)
        mine = (r.slots + d.slots) * self.b + (r.blocks + d.blocks) * self.c
        return tokens * self.a + most * self.m + used_blocks * self.r + mine
