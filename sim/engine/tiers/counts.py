"""What is counted of tiers: one vector of sums per engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

ASKED: Final = 0  # tokens of prompts (and of what preempted requests had) that were looked up
DEVICE: Final = 1  # of those, found on the accelerator
LOADS: Final = 2  # requests that had something loaded
WAITED: Final = 3  # seconds from their admission to the end of the load, summed
LONGEST: Final = 4  # the longest of these
STALLED: Final = 5  # seconds by which steps were longer
LATE: Final = 6  # loads that took longer than the engine's time-out
TIER: Final = 7  # the first tier's; then the next one's
HIT, BLOCKS_READ, BLOCKS_WRITTEN, BLOCKS_SKIPPED = (
    0,
    1,
    2,
    3,
)  # tokens found; blocks moved; blocks not kept, as too much was in use
PER_TIER: Final = 4
TIERS: Final = 3
N_COUNTS: Final = TIER + PER_TIER * TIERS


def tiers_use(
    counts: NDArray[Any],
    media: Sequence[Mapping[str, Any]],
    places: Sequence[int],
    block_bytes: float,
    evicted: NDArray[Any],
    replicas: int,
) -> dict[str, Any]:
    """What the tiers of a pool did, for `sim.metrics.sections.kv_tiers`: sums over replicas, in tokens, bytes and seconds.

    ``counts`` f8[replica, `N_COUNTS`], blocks ``evicted`` by tier; ``media``: name, blocks, shared of each, which is tier ``places``.
    """
    sums = counts.sum(axis=0)
    rows = []
    for i, m in zip(places, media, strict=True):
        at = TIER + PER_TIER * i
        moved = {"read": BLOCKS_READ, "written": BLOCKS_WRITTEN, "skipped": BLOCKS_SKIPPED}
        rows.append(
            {"name": m["name"], "capacity": m["blocks"] * block_bytes, "stores": 1 if m["shared"] else replicas}
            | {"hit_tokens": float(sums[at + HIT]), "evicted": float(evicted[i]) * block_bytes}
            | {name: float(sums[at + k]) * block_bytes for name, k in moved.items()}
        )
    named = {"asked": ASKED, "device": DEVICE, "loads": LOADS, "waited": WAITED, "stalled": STALLED, "late": LATE}
    told: dict[str, Any] = {name: float(sums[k]) for name, k in named.items()}
    return told | {"longest": float(counts[:, LONGEST].max()), "tiers": rows}
