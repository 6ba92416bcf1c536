"""The prefix tree of Ray Serve's prefix-aware router: nodes with owners, times, and a list by last use for each owner.

Source: ray 2.60.0 llm/_internal/serve/…/prefix_aware/prefix_tree.py. Unlike SGLang's tree a match stops at a node that no candidate owns, and all
owners of the last node are told.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar, cast

from sim.policy.gateways.prompts import Prompt

U = TypeVar("U", bound=Prompt)


class _Node(Generic[U]):
    __slots__ = ("children", "hi", "lo", "parent", "prompt", "seen")

    def __init__(self, parent: _Node[U] | None, prompt: U, lo: int, hi: int) -> None:
        self.parent, self.prompt, self.lo, self.hi = parent, prompt, lo, hi
        self.children: dict[Hashable, _Node[U]] = {}
        self.seen: dict[str, float] = {}


class OwnerTree(Generic[U]):
    """Owners are names; ``sizes``: characters that each owns."""

    def __init__(self) -> None:
        self._root: _Node[U] = _Node(None, cast("U", None), 0, 0)  # whose own text is never looked at
        self.sizes: dict[str, int] = {}
        self._used: dict[str, dict[_Node[U], None]] = {}  # by last use, the newest at the end

    def add(self, owners: Iterable[str], now: float) -> None:
        """New owners: each owns the root."""
        for owner in owners:
            if owner not in self.sizes:
                self.sizes[owner] = 0
                self._used[owner] = {}
                self._root.seen[owner] = now

    def match(self, prompt: U, candidates: Iterable[str]) -> tuple[int, list[str]]:
        """(units, owners of the last node among the candidates)."""
        able = set(candidates)
        node, at, n = self._root, 0, len(prompt)
        while at < n:
            child = node.children.get(prompt.key(at))
            if child is None or able.isdisjoint(child.seen):
                break
            shared = prompt.common(at, child.prompt, child.lo, child.hi)
            at += shared
            node = child
            if shared < child.hi - child.lo:
                break
        return at, sorted(able & set(node.seen))

    def smallest(self, candidates: Iterable[str] | None = None) -> list[str]:
        """Those that own the fewest characters, of all or of the candidates."""
        sizes = self.sizes if candidates is None else {c: self.sizes[c] for c in candidates if c in self.sizes}
        least = min(sizes.values(), default=0)
        return sorted(k for k, v in sizes.items() if v == least)

    def insert(self, prompt: U, owner: str, now: float) -> None:
        """The owner holds the whole prompt; every node on the way is stamped and is its most recently used."""
        if owner not in self.sizes:
            self.add([owner], now)
        node, at, n = self._root, 0, len(prompt)
        while at < n:
            key = prompt.key(at)
            child = node.children.get(key)
            if child is None:
                child = _Node(node, prompt, at, n)
                node.children[key] = child
                at = n
            else:
                shared = prompt.common(at, child.prompt, child.lo, child.hi)
                if shared < child.hi - child.lo:
                    child = self._split(node, key, child, shared)
                at += shared
            if owner not in child.seen:
                self.sizes[owner] += child.hi - child.lo
            child.seen[owner] = now
            self._used[owner].pop(child, None)
            self._used[owner][child] = None
            node = child

    def _split(self, parent: _Node[U], key: Hashable, child: _Node[U], at: int) -> _Node[U]:
        upper = _Node(parent, child.prompt, child.lo, child.lo + at)
        upper.seen = dict(child.seen)
        child.lo += at
        child.parent = upper
        upper.children[child.prompt.key(child.lo)] = child
        parent.children[key] = upper
        for owner in upper.seen:  # the new node stands beside the old one in each owner's list
            used = self._used[owner]
            later = list(used)[list(used).index(child) + 1 :]
            used[upper] = None
            for node in later:
                del used[node]
                used[node] = None
        return upper

    def evict(self, owner: str, least: int) -> int:
        """Give up nodes last used longest ago, all of one time together, until at least ``least`` characters are gone; how many went."""
        gone = 0
        while gone < least and self._used[owner]:
            oldest = min(node.seen[owner] for node in self._used[owner])
            for node in [x for x in self._used[owner] if x.seen[owner] == oldest]:
                gone += self._leave(node, owner)
        return gone

    def remove(self, owner: str) -> int:
        """The owner is gone; how many characters it held."""
        gone = sum(self._leave(node, owner) for node in list(self._used[owner]))
        self._root.seen.pop(owner, None)
        del self.sizes[owner], self._used[owner]
        return gone

    def _leave(self, node: _Node[U], owner: str) -> int:
        length = node.hi - node.lo
        self.sizes[owner] -= length
        del node.seen[owner]
        del self._used[owner][node]
        if not node.seen and node.parent is not None:
            node.parent.children.pop(node.prompt.key(node.lo), None)
        return length
