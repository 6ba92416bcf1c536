"""What requests carry beside their lengths: the adapter they name and their priority, drawn for any source of traffic."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.errors import ConfigError
from sim.streams import stream
from sim.workload.base import Traffic
from sim.workload.changed import ChangedTraffic
from sim.workload.mixed import MixedTraffic
from sim.workload.settings import as_mapping
from sim.workload.table import RequestBlock

_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Draw:
    """A label for each request: ``values`` with ``weights``, by what the request is and not by where it stands.

    The same request has the same label at any rate, in any block size, and whatever else is left out; turns of a session have one label.
    """

    def __init__(self, seed: int, name: str, values: ArrayLike, weights: ArrayLike) -> None:
        self._salt = stream(seed, name).integers(0, 2**63, dtype=np.uint64)
        self._values = np.asarray(values, np.int32)
        self._cdf = np.cumsum(np.asarray(weights, np.float64)) / np.sum(weights)

    def __call__(self, block: RequestBlock) -> NDArray[np.int32]:
        """The labels of the requests [n]."""
        who = np.where(block.session >= 0, block.session, block.out_content).astype(np.uint64)
        with np.errstate(over="ignore"):
            x = (who + self._salt) * _GOLDEN  # SplitMix64
            x = (x ^ (x >> np.uint64(30))) * _MIX_1
            x = (x ^ (x >> np.uint64(27))) * _MIX_2
            x ^= x >> np.uint64(31)
        u = (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return self._values[np.minimum(np.searchsorted(self._cdf, u, side="right"), len(self._values) - 1)]


class LabelledTraffic(ChangedTraffic):
    """Another traffic whose requests name adapters or have priorities."""

    def __init__(self, inner: Traffic, draws: Mapping[str, Draw]) -> None:
        super().__init__(inner)
        self._draws = draws

    def _changed(self, block: RequestBlock) -> RequestBlock:
        block = copy.copy(block)
        for column, draw in self._draws.items():
            setattr(block, column, draw(block))
        return block

    def _around(self, inner: Traffic) -> Traffic:
        return LabelledTraffic(inner, self._draws)


def labelled(traffic: Traffic, section: Mapping[str, Any], seed: int, field: str = "traffic") -> Traffic:
    """The traffic with the ``adapters`` and ``priorities`` of its section (a validated ``traffic`` section as a mapping).

    Raises `ConfigError` where the traffic has its own.
    """
    draws: dict[str, Draw] = {}
    if section.get("adapters") is not None:
        weights = _adapter_weights(as_mapping(section["adapters"]))
        draws["lora"] = Draw(seed, "adapters", np.arange(len(weights)), weights)
    if section.get("priorities") is not None:
        given = sorted(section["priorities"].items())
        draws["priority"] = Draw(seed, "priorities", [p for p, _ in given], [w for _, w in given])
    if not draws:
        return traffic
    first = next(iter(traffic.blocks()), None)
    for column in draws:
        if first is not None and getattr(first, column).any():
            name = "adapters" if column == "lora" else "priorities"
            raise ConfigError(f"{field}.{name}", "set", f"the trace has a column of its own ({column})", "leave it out")
    return LabelledTraffic(traffic, draws)


def _adapter_weights(given: Mapping[str, Any]) -> NDArray[np.float64]:
    """Share of the base model (0) and of adapters 1, 2, …"""
    if given.get("shares") is not None:
        shares = np.asarray(given["shares"], np.float64)
        return np.concatenate([[max(1.0 - shares.sum(), 0.0)], shares])
    popularity = np.arange(1, given["count"] + 1, dtype=np.float64) ** -float(given.get("zipf", 0.0))
    share = float(given.get("share", 1.0))
    return np.concatenate([[1.0 - share], share * popularity / popularity.sum()])


def carried(traffic: Traffic) -> frozenset[str]:
    """Which of ``adapters``, ``priorities`` and ``shared prefixes`` the first requests of a traffic have."""
    if isinstance(traffic, MixedTraffic):
        return traffic.carries()
    block = next(iter(traffic.blocks()), None)
    if block is None:
        return frozenset()
    ids = np.unique(block.span_id)
    found = {
        "adapters": bool(block.lora.any()),
        "priorities": bool((block.priority != block.priority[0]).any()),
        "shared prefixes": len(ids) < len(block.span_id) or bool(np.isin(block.span_id, block.out_content).any()),
    }
    return frozenset(name for name, there in found.items() if there)
