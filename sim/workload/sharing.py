"""What prompts have in common, and the best that a prefix cache of a given size could make of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from sim.workload import content
from sim.workload.table import RequestBlock

MOST_PIECES = 1_000_000
"""Pieces of prompts that are looked at; of a longer trace its beginning."""
_SIZES = 8


@dataclass
class Sharing:
    """Pieces of prompts in order: ``key`` [n], ``tokens`` [n], and whether a piece begins a prompt. Fed block by block."""

    keys: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    begins: list[bool] = field(default_factory=list)
    requests: int = 0
    prompt_tokens: int = 0
    whole: bool = True
    """All requests were looked at."""

    def add(self, block: RequestBlock) -> None:
        """The prompts of a block, and the answers that later prompts may repeat."""
        if len(self.keys) >= MOST_PIECES:
            self.whole = False
            return
        off, ids, start, length = (x.tolist() for x in block.spans)
        own = block.out_content.tolist()
        outputs = block.output_tokens.tolist()
        repeated = bool(((block.span_id >= content.OUTPUT) & (block.span_id < content.PROMPT)).any())
        for row, prompt in enumerate(block.prompt_tokens.tolist()):
            self.requests += 1
            self.prompt_tokens += prompt
            for k in range(off[row], off[row + 1]):
                self.keys.append(ids[k] if start[k] == 0 else hash((ids[k], start[k])))
                self.tokens.append(length[k])
                self.begins.append(k == off[row])
            if repeated and off[row + 1] > off[row]:
                self.keys.append(own[row])  # what was generated lies in the cache too
                self.tokens.append(outputs[row])
                self.begins.append(False)

    def hit_rates(self) -> list[tuple[int, float]]:
        """(cache size in tokens, best possible share of prompt tokens found in it), the last one for a cache without end.

        A piece is found only when all before it in its prompt are. Which piece goes is decided by Belady's rule (the one that is needed again
        last), which no real cache can know. Empty when nothing is shared.
        """
        if not self.keys:
            return []
        keys = np.unique(np.array(self.keys, np.int64), return_inverse=True)[1]
        size = np.zeros(int(keys.max()) + 1, np.int64)
        np.maximum.at(size, keys, self.tokens)
        footprint = int(size.sum())
        endless = self._best(keys.tolist(), footprint)
        if endless == 0:
            return []
        sizes = np.unique((footprint * np.geomspace(1e-3, 0.5, _SIZES)).astype(np.int64))
        return [*((int(s), self._best(keys.tolist(), int(s))) for s in sizes if s > 0), (footprint, endless)]

    def _best(self, keys: list[int], capacity: int) -> float:
        n = len(keys)
        following = [n] * n
        last: dict[int, int] = {}
        for i in range(n - 1, -1, -1):
            following[i] = last.get(keys[i], n)
            last[keys[i]] = i
        held: dict[int, int] = {}  # key → tokens
        due: dict[int, int] = {}
        farthest: list[tuple[int, int]] = []
        used = found = 0
        whole = True
        for i, key in enumerate(keys):
            whole = True if self.begins[i] else whole
            tokens = self.tokens[i]
            have = held.get(key, 0)
            if whole:
                found += min(have, tokens)
                whole = have >= tokens
            if following[i] == n:
                used -= held.pop(key, 0)
                due.pop(key, None)
                continue
            used += max(tokens, have) - have
            held[key], due[key] = max(tokens, have), following[i]
            heapq.heappush(farthest, (-following[i], key))
            while used > capacity:
                when, worst = heapq.heappop(farthest)
                if due.get(worst) == -when:
                    used -= held.pop(worst)
                    del due[worst]
        return found / self.prompt_tokens if self.prompt_tokens else 0.0


def sharing_of(blocks: Iterable[RequestBlock]) -> Sharing:
    """Everything that the requests have in common."""
    made = Sharing()
    for block in blocks:
        made.add(block)
    return made
