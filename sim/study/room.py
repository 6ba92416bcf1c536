"""Whether a run has room in the memory of this machine, said before it begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sim.errors import ConfigError
from sim.metrics.on_disk import HELD_ROWS, has_room
from sim.units import show_bytes

if TYPE_CHECKING:
    from sim.fleet.build import Plan
    from sim.workload.base import Traffic

REQUEST_BYTES: Final = 600.0
"""Of a simulated request, from its arrival to the summary; measured on 1,000,000 of them."""
SPILT_BYTES: Final = 120.0
"""The same where rows go to disk (`sim.metrics.on_disk`); measured on 10,000,000 of them: 72."""
REPLICA_BYTES: Final = 150e3
"""Of an engine with its time series; measured on 4,000 of them."""
_CGROUP: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_room(plans: Sequence[Plan], traffic: Traffic, until: float, held: bool = False) -> None:
    """Raise `ConfigError` for a run that needs more memory than there is: it would end without an answer.

    ``held``: rows are needed all at once (`sim.fleet.kept`), so that none goes to disk.
    """
    requests = float(traffic.total or 0)
    rate = traffic.mean_rate
    if isfinite(until) and isfinite(rate):
        requests = min(requests, 2 * rate * until)
    engines = sum(p.replicas * p.rank_count for p in plans)
    there = memory_bytes()
    spilt = requests > HELD_ROWS and not held and has_room(requests)
    for field, count, what, each, first in (
        ("traffic", requests, "requests", SPILT_BYTES if spilt else REQUEST_BYTES, HELD_ROWS * REQUEST_BYTES if spilt else 0.0),
        ("deployment.replicas", engines, "engines", REPLICA_BYTES, 0.0),
    ):
        if first + count * each > there:
            need = f"would need about {show_bytes(first + count * each)} of memory; this machine has {show_bytes(there)}"
            raise ConfigError(field, int(count), f"so many {what} {need}", f"up to about {int((there - first) / each):,}")


def memory_bytes() -> float:
    """Bytes of memory that this machine, or the container this runs in, has; infinite where nobody says."""
    found = inf
    with suppress(OSError, ValueError, AttributeError):
        found = float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    for file in _CGROUP:
        with suppress(OSError, ValueError):
            found = min(found, float(Path(file).read_text(encoding="ascii")))
    return found if found > 0 else inf
