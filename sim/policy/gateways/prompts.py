"""Prompts as sequences of units that trees and block hashes can compare: letters of a text, or tokens known by where their content is.

A gateway sees text, a simulation sees spans ``(content id, start, length)``. Both are compared piece by piece, never unit by unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from typing import Protocol, Self


class Prompt(Protocol):
    """A sequence of units."""

    def __len__(self) -> int: ...

    def key(self, at: int) -> Hashable:
        """The unit at a place."""

    def common(self, at: int, other: Self, lo: int, hi: int) -> int:
        """How many units from ``at`` on equal those of ``other`` from ``lo`` to ``hi``. ``other`` is of the same class."""

    def blocks(self, size: int, *, partial: bool) -> Iterator[Hashable]:
        """What tells the blocks of ``size`` units from others, in order; with ``partial`` also the last one that is not full."""


class Letters:
    """A text, one unit per character."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    def key(self, at: int) -> Hashable:
        """The character."""
        return self.text[at]

    def common(self, at: int, other: Letters, lo: int, hi: int) -> int:
        """See `Prompt`."""
        mine, theirs = self.text[at : at + hi - lo], other.text[lo:hi]
        return next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))

    def blocks(self, size: int, *, partial: bool) -> Iterator[Hashable]:
        """See `Prompt`."""
        whole = len(self.text) // size * size
        for at in range(0, len(self.text) if partial else whole, size):
            yield self.text[at : at + size]


_unseen = itertools.count(2)  # hash(-1) is hash(-2): two prompts would look like one


class Pieces:
    """Spans of a simulated prompt, one unit per token. ``spans`` empty: content that no other prompt has."""

    __slots__ = ("_at", "ends", "n", "spans")

    def __init__(self, spans: list[tuple[int, int, int]], tokens: int) -> None:
        self.spans = spans or [(-next(_unseen), 0, tokens)]
        self.ends = list(itertools.accumulate([length for _, _, length in self.spans]))
        self.n = self.ends[-1]
        self._at = 0  # the span that was found last: mostly the next one wanted, or its neighbour

    def __len__(self) -> int:
        return self.n

    def _find(self, at: int) -> tuple[int, int]:
        """Number of the span that holds a token, and the token's place in it."""
        ends, i = self.ends, self._at
        if i and ends[i - 1] > at:
            i = 0
        while ends[i] <= at:
            i += 1
        self._at = i
        return i, at - ends[i - 1] if i else at

    def key(self, at: int) -> Hashable:
        """(content, place in it)."""
        i, inside = self._find(at)
        content, start, _ = self.spans[i]
        return content, start + inside

    def common(self, at: int, other: Pieces, lo: int, hi: int) -> int:
        """See `Prompt`."""
        most = min(hi - lo, self.n - at)
        if most <= 0:
            return 0
        i, a = self._find(at)
        j, b = other._find(lo)
        mine, theirs = self.spans, other.spans
        done = 0
        while done < most:
            content, start, length = mine[i]
            content_2, start_2, length_2 = theirs[j]
            if content != content_2 or start + a != start_2 + b:
                break
            left, left_2 = length - a, length_2 - b
            step = left if left < left_2 else left_2
            done += step
            a += step
            b += step
            if step == left:
                i, a = i + 1, 0
            if step == left_2:
                j, b = j + 1, 0
        return done if done < most else most

    def blocks(self, size: int, *, partial: bool) -> Iterator[Hashable]:
        """See `Prompt`."""
        at = i = inside = 0
        while at + size <= self.n or (partial and at < self.n):
            left = min(size, self.n - at)
            at += left
            parts = []
            while left:
                content, start, length = self.spans[i]
                take = min(left, length - inside)
                parts.append((content, start + inside, take))
                left -= take
                inside += take
                if inside == length:
                    i, inside = i + 1, 0
            yield tuple(parts)
