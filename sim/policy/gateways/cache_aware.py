"""``cache_aware`` of SGLang's router and of what grew from it, in four versions.

``0.3``: sglang_router 0.3.2 (sgl-model-gateway @ 053b63ff). ``smg-1.8``: lightseekorg/smg @ 73da68ca. ``smg-1.13``: smg 1.13.0, as recorded.
``vllm-router``: PyPI vllm_router 0.1.17, as recorded. They differ in who serves a hit, how ties are broken and what counts as imbalance.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from sim.policy.gateways.prompts import Prompt
from sim.policy.gateways.shared_tree import SharedTree

VERSIONS = ("0.3", "smg-1.8", "smg-1.13", "vllm-router")


def margin(mean: float, balance_abs_threshold: float) -> float:
    """Requests by which smg 1.13 lets the owner of a prefix exceed the mean: as set, but no more than two standard deviations of a Poisson count
    (rounded up, 4 at least). Its ``--help`` says so; the rounding is as recorded.
    """
    return min(balance_abs_threshold, max(ceil(2.0 * sqrt(mean)), 4))


@dataclass(frozen=True)
class Settings:
    """As on the command line; ``max_tree_size`` in units of the tree."""

    version: str
    cache_threshold: float
    balance_abs_threshold: int
    balance_rel_threshold: float


@dataclass(frozen=True)
class Decision:
    """``allowed``: workers that may be chosen (several: drawn uniformly); ``insert``: whether the prompt enters the tree."""

    allowed: tuple[int, ...]
    outcome: str
    insert: bool = True


class CacheAware:
    """One gateway's tree and counters. Workers are numbers in registry order: of equal ones, the first in that order comes first."""

    def __init__(self, settings: Settings, order: Sequence[int]) -> None:
        self.settings = settings
        self.order = list(order)
        self._places = np.array(self.order, np.int64)
        self.tree: SharedTree[Prompt] = SharedTree(list(order))
        self._processed: dict[int, int] = dict.fromkeys(order, 0)

    def decide(self, prompt: Prompt, loads: Sequence[int] | NDArray[np.int64], out: Collection[int] = ()) -> Decision:
        """``loads[worker]``: requests in flight through this gateway. Nothing is changed but what a match itself stamps.

        ``out``: workers that smg 1.13 leaves out as overloaded; where that is all of them, the least loaded has to do.
        """
        s = self.settings
        order = [w for w in self.order if w not in out] if out else self.order
        values = np.asarray(loads)[order or self.order if out else self._places]
        if not order:
            return Decision(self._least(values, int(values.min()), self.order), "overloaded")
        low, high = int(values.min()), int(values.max())
        if s.version != "smg-1.13" and high - low > s.balance_abs_threshold and high > low * s.balance_rel_threshold:
            return Decision(self._least(values, low, order), "imbalanced")
        found = self.tree.match(prompt)
        if not len(prompt) or found.length / len(prompt) <= s.cache_threshold:
            return Decision(self._least(values, low, order), "miss")
        if s.version in ("0.3", "smg-1.8"):
            if found.tenant in self._processed:
                return Decision((int(found.tenant),), "hit")
            return Decision((order[0],), "owner gone", insert=False)
        owners = [w for w in order if w in found.owners]
        if not owners:
            return Decision(self._least(values, low, order), "owner gone")
        least = min(loads[w] for w in owners)
        best = [w for w in owners if loads[w] == least]
        if s.version == "vllm-router":
            return Decision((best[0],), "hit")
        mean = float(values.sum()) / len(order)
        if least > mean + margin(mean, s.balance_abs_threshold) and least > s.balance_rel_threshold * mean:
            return Decision(self._least(values, low, order), "spill")
        return Decision(tuple(best), "hit")

    def chosen(self, worker: int, prompt: Prompt, decision: Decision) -> None:
        """The request goes there."""
        self._processed[worker] += 1
        if decision.insert:
            self.tree.insert(prompt, worker)

    def workers(self, order: Sequence[int]) -> None:
        """Other workers from now on. Who left keeps his nodes until they are evicted, as in smg; 0.3 removes him."""
        gone = [w for w in self.order if w not in order]
        if self.settings.version == "0.3":
            for w in gone:
                self.tree.remove(w)
        self.order = list(order)
        self._places = np.array(self.order, np.int64)
        self._processed = {w: self._processed.get(w, 0) for w in order}
        for w in order:
            self.tree.add(w)

    def _least(self, values: NDArray[np.int64], low: int, order: Sequence[int]) -> tuple[int, ...]:
        """Workers that may be taken for their load; ``values``: loads of the workers in ``order``."""
        if self.settings.version not in ("smg-1.13", "smg-1.8"):
            return (order[int(values.argmin())],)
        ties = [w for w, load in zip(order, values.tolist(), strict=True) if load == low]
        if self.settings.version == "smg-1.13":
            return tuple(ties)
        return (min(ties, key=lambda w: (self._processed[w], order.index(w))),)
