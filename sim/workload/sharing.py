"""What prompts have in common, and the best that a prefix cache of a given size could make of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sim.ledger import Values as Array
from sim.workload import content
from sim.workload.table import RequestBlock

MOST_PIECES = 1_000_000
"""Pieces of prompts that are looked at; of a longer trace its beginning."""
_SIZES = 8


@dataclass
class Sharing:
    """Pieces of prompts in order: ``key`` [n], ``tokens`` [n], and whether a piece begins a prompt. Fed block by block."""

    keys: list[Array] = field(default_factory=list)
    tokens: list[Array] = field(default_factory=list)
    begins: list[Array] = field(default_factory=list)
    pieces: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    whole: bool = True
    """All requests were looked at."""

    def add(self, block: RequestBlock) -> None:
        """The prompts of a block, and the answers that later prompts may repeat."""
        if self.pieces >= MOST_PIECES:
            self.whole = False
            return
        off, ids, start, length = block.spans
        count = np.diff(off)
        keys = np.where(start == 0, ids, _mixed(ids, start))
        begins = np.zeros(len(ids), bool)
        begins[off[:-1][count > 0]] = True
        if ((ids >= content.OUTPUT) & (ids < content.PROMPT)).any():  # what was generated lies in the cache too
            some = count > 0
            at = off[1:][some]
            keys, length = np.insert(keys, at, block.out_content[some]), np.insert(length, at, block.output_tokens[some])
            begins = np.insert(begins, at, False)
        self.requests += len(block)
        self.prompt_tokens += int(block.prompt_tokens.astype(np.int64).sum())
        self.pieces += len(keys)
        for have, more in ((self.keys, keys), (self.tokens, length), (self.begins, begins)):
            have.append(more)

    def hit_rates(self) -> list[tuple[int, float]]:
        """(cache size in tokens, best possible share of prompt tokens found in it), the last one for a cache without end.

        A piece is found only when all before it in its prompt are. Which piece goes is decided by Belady's rule (the one that is needed again
        last), which no real cache can know. Empty when nothing is shared.
        """
        if not self.pieces:
            return []
        from sim.workload.belady import tokens_found

        keys = np.unique(np.concatenate(self.keys), return_inverse=True)[1].astype(np.int64)
        tokens, begins = np.concatenate(self.tokens).astype(np.int64), np.concatenate(self.begins)
        size = np.zeros(int(keys.max()) + 1, np.int64)
        np.maximum.at(size, keys, tokens)
        footprint = int(size.sum())
        order = np.argsort(keys, kind="stable")
        following = np.full(len(keys), len(keys), np.int64)
        same = keys[order[1:]] == keys[order[:-1]]
        following[order[:-1][same]] = order[1:][same]

        def best(capacity: int) -> float:
            found = int(tokens_found(keys, tokens, begins, following, capacity))
            return found / self.prompt_tokens if self.prompt_tokens else 0.0

        endless = best(footprint)
        if endless == 0:
            return []
        sizes = np.unique((footprint * np.geomspace(1e-3, 0.5, _SIZES)).astype(np.int64))
        return [*((int(s), best(int(s))) for s in sizes if s > 0), (footprint, endless)]


def _mixed(ids: Array, start: Array) -> Array:
    """One number for a content and a place in it."""
    mixed: Array = ids ^ (start * np.int64(-7046029254386353131))
    return mixed
