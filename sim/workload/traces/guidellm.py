"""guidellm's minimal trace: times in seconds."""

from __future__ import annotations

from sim.registry import register
from sim.workload.traces._base import Head
from sim.workload.traces.mooncake import Mooncake


@register("trace")
class Guidellm(Mooncake):
    """One JSON object per line: ``timestamp`` (s), ``input_length``, ``output_length``.

    A Mooncake file without ``hash_ids`` has the same names and counts in ms: ``format: auto`` takes times with fractions for seconds.

    *Source*: guidellm, trace replay data.
    """

    name = "guidellm"
    unit_s = 1.0
    holds = frozenset(("times",))

    def fits(self, head: Head) -> bool:
        """JSON lines with its names, no hash ids, and times with fractions."""
        names = set(head.keys)
        return (
            head.kind == "jsonl"
            and names >= {"timestamp", "input_length", "output_length"}
            and "hash_ids" not in names
            and (any(isinstance(r, dict) and isinstance(r.get("timestamp"), float) and r["timestamp"] % 1 for r in head.rows))
        )
