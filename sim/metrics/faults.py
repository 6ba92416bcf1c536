"""What broke in a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Incident:
    """``kind``: name of the fault; ``start_s`` to ``end_s``: until it was mended; ``replica``: −1 for the fleet; ``hurt``: requests that it cut off."""

    kind: str
    start_s: float
    end_s: float
    replica: int
    words: str
    hurt: int = 0
