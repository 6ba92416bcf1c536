"""Consistent hashing as the gateways do it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from hashlib import blake2b, md5

_POINTS = 160


class Md5Ring:
    """uhashring 2.5 as production-stack uses it: 160 points per node, md5 of ``node-i``; the owner of a key is the first point above its md5."""

    def __init__(self) -> None:
        self._points: list[int] = []
        self._owners: dict[int, str] = {}
        self.nodes: set[str] = set()

    def set_nodes(self, nodes: Iterable[str]) -> None:
        """Exactly these nodes from now on."""
        wanted = set(nodes)
        if wanted == self.nodes:
            return
        self.nodes = wanted
        self._owners = {_digest(f"{node}-{i}"): node for node in sorted(wanted) for i in range(_POINTS)}
        self._points = sorted(self._owners)

    def owner(self, key: str) -> str:
        """The node of a key."""
        at = bisect_right(self._points, _digest(key))
        return self._owners[self._points[at if at < len(self._points) else 0]]


class HashRing:
    """smg's ring: ``points`` per node, the owner of a key is the first point at or above its hash, clockwise. The hash is BLAKE2b, not the original

    one: nodes and keys of a simulation have made-up names, so that only the spread matters.
    """

    def __init__(self, points: int = 150) -> None:
        self._n = points
        self._nodes: list[int] = []
        self._points: list[int] = []
        self._owners: list[int] = []

    def set_nodes(self, nodes: Iterable[int]) -> None:
        """Exactly these nodes from now on."""
        wanted = sorted(nodes)
        if wanted != self._nodes:
            self._nodes = wanted
            found = sorted((_hash(f"replica-{node}#{i}"), node) for node in wanted for i in range(self._n))
            self._points = [p for p, _ in found]
            self._owners = [n for _, n in found]

    def owner(self, key: object) -> int:
        """The node of a key."""
        at = bisect_left(self._points, _hash(str(key)))
        return self._owners[at if at < len(self._points) else 0]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _digest(text: str) -> int:
    return int(md5(text.encode(), usedforsecurity=False).hexdigest(), 16)
