"""The approximate tree of SGLang's router: one radix tree over all workers, which are its tenants.

Source: lightseekorg/smg crates/kv_index/src/string_tree.rs @ 73da68ca, and sgl-model-gateway @ 053b63ff for sglang_router 0.3.2. The clock is a
global counter. Which tenant of a node is its *last* one is set when the node is made and copied to the upper half at a split; the tree is never
told what the engines evict.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from sim.policy.gateways.prompts import Prompt

_REFRESH = 8  # a match stamps the end node only when the counter is a multiple of this


U = TypeVar("U", bound=Prompt)


class _Node(Generic[U]):
    __slots__ = ("children", "hi", "last", "lo", "parent", "prompt", "tenants")

    def __init__(self, parent: _Node[U] | None, prompt: U, lo: int, hi: int) -> None:
        self.parent, self.prompt, self.lo, self.hi = parent, prompt, lo, hi
        self.children: dict[Hashable, _Node[U]] = {}
        self.tenants: dict[int, int] = {}
        self.last: int | None = None


@dataclass(frozen=True)
class Match:
    """``length`` units; ``tenant``: the last one of the end node; ``owners``: all of it, in the order in which they came."""

    length: int
    tenant: int | None
    owners: tuple[int, ...]


class SharedTree(Generic[U]):
    """Tenants are numbers. Sizes count units (characters, or tokens)."""

    def __init__(self, tenants: list[int]) -> None:
        self._root: _Node[U] = _Node(None, cast("U", None), 0, 0)  # whose own text is never looked at
        self._root.tenants = dict.fromkeys(tenants, 0)
        self._clock = 0
        self.sizes: dict[int, int] = dict.fromkeys(tenants, 0)
        self._walked: tuple[U, list[tuple[Hashable, _Node[U]]], int, int] | None = (
            None  # the last match: a prompt is mostly inserted after it
        )

    def add(self, tenant: int) -> None:
        """A new worker: a tenant of the root."""
        self._root.tenants.setdefault(tenant, 0)
        self.sizes.setdefault(tenant, 0)

    def match(self, prompt: U) -> Match:
        """Walks while whole edges match; on a part of an edge it stops on that node, with the part counted."""
        self._clock += 1
        node, at, n = self._root, 0, len(prompt)
        path: list[tuple[Hashable, _Node[U]]] = []
        part = 0
        while at < n:
            key = prompt.key(at)
            child = node.children.get(key)
            if child is None:
                break
            path.append((key, child))
            shared = prompt.common(at, child.prompt, child.lo, child.hi)
            at += shared
            node = child
            if shared < child.hi - child.lo:
                part = shared
                break
        self._walked = prompt, path, at, part
        if node.last not in node.tenants:
            node.last = next(iter(node.tenants), None)
        if node.last is not None and self._clock % _REFRESH == 0:
            node.tenants[node.last] = self._clock
        return Match(at, node.last, tuple(node.tenants))

    def match_tenant(self, prompt: U, tenant: int) -> int:
        """Units that match along nodes which the tenant holds."""
        node, at, n = self._root, 0, len(prompt)
        while at < n:
            child = node.children.get(prompt.key(at))
            if child is None or tenant not in child.tenants:
                break
            shared = prompt.common(at, child.prompt, child.lo, child.hi)
            at += shared
            node = child
            if shared < child.hi - child.lo:
                break
        return at

    def insert(self, prompt: U, tenant: int) -> None:
        """The tenant holds the whole prompt from now on; only the last node is stamped."""
        self._clock += 1
        self.add(tenant)
        node, at, n = self._root, 0, len(prompt)
        walked, self._walked = self._walked, None
        if walked is not None and walked[0] is prompt:
            _, path, at, part = walked
            for key, known in path:
                node = self._split(node, key, known, part) if part and known is path[-1][1] else known
                self._join(node, tenant)
        while at < n:
            key = prompt.key(at)
            child = node.children.get(key)
            if child is None:
                child = _Node(node, prompt, at, n)
                child.last = tenant
                node.children[key] = child
                at = n
            else:
                shared = prompt.common(at, child.prompt, child.lo, child.hi)
                if shared < child.hi - child.lo:
                    child = self._split(node, key, child, shared)
                at += shared
            self._join(child, tenant)
            node = child
        node.tenants[tenant] = self._clock

    def _join(self, node: _Node[U], tenant: int) -> None:
        if tenant not in node.tenants:
            node.tenants[tenant] = 0
            self.sizes[tenant] += node.hi - node.lo

    def _split(self, parent: _Node[U], key: Hashable, child: _Node[U], at: int) -> _Node[U]:
        upper = _Node(parent, child.prompt, child.lo, child.lo + at)
        upper.tenants = dict(child.tenants)
        upper.last = child.last
        child.lo += at
        child.parent = upper
        upper.children[child.prompt.key(child.lo)] = child
        parent.children[key] = upper
        return upper

    def evict(self, most: int) -> None:
        """Every tenant gives up its oldest leaves (nodes of which no child is its own) until it holds at most ``most`` units."""
        self._walked = None
        for tenant in [t for t, size in self.sizes.items() if size > most]:
            leaves: list[tuple[int, int, _Node[U]]] = []
            count = 0
            stack = [self._root]
            while stack:
                node = stack.pop()
                mine = [c for c in node.children.values() if tenant in c.tenants]
                stack += mine
                if not mine and node is not self._root:
                    leaves.append((node.tenants[tenant], count, node))
                    count += 1
            heapq.heapify(leaves)
            while leaves and self.sizes[tenant] > most:
                _, _, node = heapq.heappop(leaves)
                self._leave(node, tenant)
                above = node.parent
                if above is None or above is self._root or tenant not in above.tenants:
                    continue
                if not any(tenant in c.tenants for c in above.children.values()):
                    count += 1
                    heapq.heappush(leaves, (above.tenants[tenant], count, above))

    def remove(self, tenant: int) -> None:
        """The worker is gone: it holds nothing any more."""
        self._walked = None
        stack = [self._root]
        while stack:
            node = stack.pop()
            stack += [c for c in node.children.values() if tenant in c.tenants]
            if node is not self._root:
                self._leave(node, tenant)
        self._root.tenants.pop(tenant, None)
        self.sizes.pop(tenant, None)

    def _leave(self, node: _Node[U], tenant: int) -> None:
        del node.tenants[tenant]
        self.sizes[tenant] -= node.hi - node.lo
        if not node.tenants and not node.children and node.parent is not None:
            del node.parent.children[node.prompt.key(node.lo)]
