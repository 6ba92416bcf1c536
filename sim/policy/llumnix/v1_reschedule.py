"""Rescheduling of the v1 scheduler: which instances, which way (``pkg/scheduler/policy/rescheduling*.go``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sim.policy.llumnix.v1_slo import TPOT_SLO
from sim.policy.llumnix.v1_status import Account, kv_cache_usage_ratio_projected

INTERVAL: Final = 0.5
"""Seconds between two looks."""
LOAD_THRESHOLD: Final = 1.0
LOAD_DIFFERENCE: Final = 0.7
TOKENS: Final = 1024
"""Most tokens moved by one pair, shortest running requests first."""
ALL: Final = -1


@dataclass(frozen=True, slots=True)
class Move:
    """Up to ``tokens`` (−1: everything) from one instance to another; ``policy`` names the rule."""

    source: int
    destination: int
    tokens: int
    policy: str


def decode_load(
    accounts: Sequence[Account], threshold: float = LOAD_THRESHOLD, difference: float = LOAD_DIFFERENCE, tokens: int = TOKENS
) -> list[Move]:
    """The most with the least loaded, by projected KV use: source ≥ threshold > destination, and apart by ``difference`` or more."""
    load = kv_cache_usage_ratio_projected
    out = sorted((a for a in accounts if a.status.healthy and load(a) >= threshold), key=load, reverse=True)
    into = sorted((a for a in accounts if a.status.healthy and a.status.schedulable and load(a) < threshold), key=load)
    return [
        Move(a.status.instance, b.status.instance, tokens, "decode_load")
        for a, b in zip(out, into, strict=False)
        if load(a) - load(b) >= difference
    ]


def failover(accounts: Sequence[Account], infer_type: str = "neutral") -> list[Move]:
    """Everything away from instances that are not healthy, to the healthy ones of the type in turn."""
    mine = [a for a in accounts if a.status.infer_type == infer_type]
    well = [a for a in mine if a.status.healthy and a.status.schedulable]
    ill = [a for a in mine if not a.status.healthy]
    if not well:
        return []
    return [
        Move(a.status.instance, well[n % len(well)].status.instance, ALL, f"{infer_type}_failover") for n, a in enumerate(ill)
    ]


def _into_fullest(
    accounts: Sequence[Account], is_source: Callable[[Account], bool], tpot: float, tokens: int, name: str
) -> list[Move]:
    into = sorted((a for a in accounts if a.predicted_tpot < 0.85 * tpot), key=lambda a: -a.predicted_tpot)
    moves = []
    for a in (a for a in accounts if is_source(a)):
        target = next(
            (b for b in into if b is not a and (name == "binpacking_mitigation" or b.predicted_tpot >= a.predicted_tpot)), None
        )
        if target is not None:
            moves.append(Move(a.status.instance, target.status.instance, tokens, name))
    return moves


def binpacking_mitigation(accounts: Sequence[Account], tpot: float = TPOT_SLO, tokens: int = TOKENS) -> list[Move]:
    """From instances predicted above 0.95 of the SLO to the fullest below 0.85."""
    return _into_fullest(accounts, lambda a: a.predicted_tpot > 0.95 * tpot, tpot, tokens, "binpacking_mitigation")


def binpacking_consolidation(accounts: Sequence[Account], tpot: float = TPOT_SLO) -> list[Move]:
    """From instances predicted below 0.60 of the SLO to the fullest, so that some become empty."""
    busy = [a for a in accounts if a.status.num_running > 0]
    return _into_fullest(busy, lambda a: a.predicted_tpot < 0.60 * tpot, tpot, ALL, "binpacking_consolidation")
