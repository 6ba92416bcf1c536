"""Consistent hashing as the gateways do it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from hashlib import md5

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


def _digest(text: str) -> int:
    return int(md5(text.encode(), usedforsecurity=False).hexdigest(), 16)
