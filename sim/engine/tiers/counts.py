"""What is counted of tiers: one vector of sums per engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sim.engine.seam import F8
    from sim.engine.tiers.plan import Kept

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
HITS, READ, WRITTEN, HELD = range(4)  # of a tier over time: tokens found, blocks read and written; blocks held × time
PER_SERIES: Final = 4
N_SERIES: Final = PER_SERIES * TIERS


class TierUse(TypedDict):
    """What one tier did: bytes, and ``hit_tokens`` found in it. ``series``: f8[bin, 4] hit tokens, bytes read and written, bytes held × time."""

    name: str
    capacity: float
    stores: int
    hit_tokens: float
    evicted: float
    read: float
    written: float
    skipped: float
    series: NDArray[np.float64] | None


class TiersUse(TypedDict):
    """What the tiers of a pool did: tokens ``asked`` for and found on the ``device``, ``loads`` and the seconds they took.

    ``width_s`` of the bins of series.
    """

    asked: float
    device: float
    loads: float
    waited: float
    stalled: float
    late: float
    longest: float
    tiers: list[TierUse]
    width_s: float


def tiers_use(
    counts: F8,
    media: Sequence[Kept],
    places: Sequence[int],
    block_bytes: float,
    evicted: F8,
    replicas: int,
    series: tuple[NDArray[np.float64], float] | None,
) -> TiersUse:
    """What the tiers of a pool did, for `sim.metrics.sections.kv_tiers`: sums over replicas, in tokens, bytes and seconds.

    ``counts`` f8[replica, `N_COUNTS`], blocks ``evicted`` by tier; ``media``: name, blocks, shared of each, which is tier ``places``;
    ``series``: f8[replica, bin, `N_SERIES`] and seconds per bin.
    """
    sums = counts.sum(axis=0)
    rows: list[TierUse] = []
    for i, m in zip(places, media, strict=True):
        at = TIER + PER_TIER * i
        over_time = None
        if series is not None:
            over_time = series[0][:, :, PER_SERIES * i : PER_SERIES * (i + 1)].sum(axis=0) * np.array([1.0, *[block_bytes] * 3])
            if m["shared"]:
                over_time[:, HELD] /= replicas  # each tells what the one store holds
        rows.append(
            {
                "name": m["name"],
                "capacity": m["blocks"] * block_bytes,
                "stores": 1 if m["shared"] else replicas,
                "hit_tokens": float(sums[at + HIT]),
                "evicted": float(evicted[i]) * block_bytes,
                "read": float(sums[at + BLOCKS_READ]) * block_bytes,
                "written": float(sums[at + BLOCKS_WRITTEN]) * block_bytes,
                "skipped": float(sums[at + BLOCKS_SKIPPED]) * block_bytes,
                "series": over_time,
            }
        )
    return {
        "asked": float(sums[ASKED]),
        "device": float(sums[DEVICE]),
        "loads": float(sums[LOADS]),
        "waited": float(sums[WAITED]),
        "stalled": float(sums[STALLED]),
        "late": float(sums[LATE]),
        "longest": float(counts[:, LONGEST].max()),
        "tiers": rows,
        "width_s": series[1] if series is not None else 0.0,
    }
