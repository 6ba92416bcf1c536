"""Settings of live migration (`sim.fleet.migration` does it)."""

from __future__ import annotations

from dataclasses import dataclass

from sim.units import Bytes, Seconds


@dataclass(frozen=True)
class MigrationParams:
    """How a running request is copied. ``bandwidth`` in bytes per second of one transfer; ``overhead`` and ``commit`` in seconds.

    ``max_stages`` of copying beside decoding; the request stops when at most ``last_stage_max_blocks`` are left. ``concurrency``: migrations
    that an instance takes part in at once.
    """

    bandwidth: Bytes
    overhead: Seconds
    commit: Seconds
    max_stages: int = 3
    last_stage_max_blocks: int = 16
    concurrency: int = 1
