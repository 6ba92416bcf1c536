"""Routing logic of vLLM production-stack. Source: vllm-project/production-stack src/vllm_router @ a6c01db0 (routing_logic.py, hashtrie.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence

from sim.policy.gateways.prompts import Prompt
from sim.policy.gateways.rings import Md5Ring

CHUNK = 128
MOST_SETS = 1024


class RoundRobin:
    """A counter for each set of endpoints, in sorted order; a set that comes back goes on where it was."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, ...], int] = {}

    def choose(self, urls: Sequence[str]) -> str:
        """The next one."""
        key = tuple(sorted(urls))
        if key not in self._counters and len(self._counters) >= MOST_SETS:
            self._counters.clear()
        count = self._counters.get(key, 0)
        self._counters[key] = count + 1
        return key[count % len(key)]


def lowest_qps(urls: Sequence[str], qps: Mapping[str, float]) -> str:
    """The first endpoint without any statistics, else the one with the strictly lowest rate."""
    best, least = "", float("inf")
    for url in urls:
        if url not in qps:
            return url
        if qps[url] < least:
            best, least = url, qps[url]
    return best


class Session:
    """Consistent hashing of the session; without one, the lowest rate."""

    def __init__(self) -> None:
        self._ring = Md5Ring()

    def choose(self, urls: Sequence[str], session: str | None, qps: Mapping[str, float]) -> str:
        """The session's endpoint."""
        self._ring.set_nodes(urls)
        return lowest_qps(urls, qps) if session is None else self._ring.owner(session)


class Arrivals:
    """Requests routed to each endpoint in the last ``window`` seconds: what this router calls QPS."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._times: dict[str, deque[float]] = {}

    def add(self, url: str, now: float) -> None:
        """One more, now."""
        self._times.setdefault(url, deque()).append(now)

    def qps(self, now: float) -> dict[str, float]:
        """By endpoint; only those that ever got a request."""
        for times in self._times.values():
            while times and times[0] < now - self._window:
                times.popleft()
        return {url: len(times) / self._window for url, times in self._times.items()}


class _Node:
    __slots__ = ("children", "endpoints")

    def __init__(self) -> None:
        self.children: dict[Hashable, _Node] = {}
        self.endpoints: set[str] = set()


class HashTrie:
    """Chunks of a prompt as a trie; every node knows the endpoints that got such a prefix. Nothing is ever evicted."""

    def __init__(self, chunk: int = CHUNK) -> None:
        self._chunk = chunk
        self._root = _Node()

    def match(self, prompt: Prompt, urls: Sequence[str]) -> tuple[int, set[str]]:
        """(matched units, a whole chunk counted for a partial one; endpoints of the deepest node among ``urls``)."""
        node, found, length = self._root, set(urls), 0
        for chunk in prompt.blocks(self._chunk, partial=True):
            child = node.children.get(chunk)
            if child is None or not (child.endpoints & found):
                break
            node = child
            found &= child.endpoints
            length += self._chunk
        return length, found

    def insert(self, prompt: Prompt, url: str) -> None:
        """The endpoint got this prompt."""
        node = self._root
        for chunk in prompt.blocks(self._chunk, partial=True):
            node = node.children.setdefault(chunk, _Node())
            node.endpoints.add(url)


def named(replica: int) -> str:
    """The endpoint of a replica; the order of names is that of the numbers."""
    return f"http://engine-{replica:06d}:8000"


def replica_of(url: object) -> int:
    """Undoes `named`."""
    return int(str(url)[14:20])
