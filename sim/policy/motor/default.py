"""The ``default_scheduler`` of single nodes: round robin, or the node that has the conversation in its cache.

*Source*: ``algorithm/round_robin/RoundRobinExecutor.cpp``, ``algorithm/cache_affinity/{PrefixCacheExecutor,LRUCache}.cpp``. A conversation is
known by a hash of its messages but the last two, which after each turn is replaced by the hash of them all; here by its session.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable


class RoundRobin:
    """Nodes in turn; one that is not available is passed over."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._at = -1

    def choose(self, available: Callable[[int], bool]) -> int:
        """−1: none is available."""
        self._at = (self._at + 1) % self._nodes
        first = self._at
        while not available(self._at):
            self._at = (self._at + 1) % self._nodes
            if self._at == first:
                return -1
        return self._at


class CacheAffinity:
    """The node that answered the last turn of a conversation while it is among the ``cache_size`` latest; others by round robin."""

    def __init__(self, nodes: int, cache_size: int) -> None:
        self._turns = RoundRobin(nodes)
        self._size = cache_size
        self._node: OrderedDict[Hashable, int] = OrderedDict()

    def choose(self, conversation: Hashable, available: Callable[[int], bool]) -> int:
        """−1: none is available, and nothing has changed."""
        node = self._node.get(conversation)
        if node is None or not available(node):
            node = self._turns.choose(available)
            if node < 0:
                return -1
            self._node.pop(conversation, None)
            if len(self._node) == self._size:
                self._node.popitem(last=False)
        self._node[conversation] = node
        self._node.move_to_end(conversation)
        return node
