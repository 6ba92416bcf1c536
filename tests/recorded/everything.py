"""All that is recorded, by name: `group: what`. Each group is a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tests.recorded.defaults import settled
from tests.recorded.harder import several
from tests.recorded.loads import loads
from tests.recorded.records import known
from tests.recorded.runs import runs
from tests.recorded.trace import Trace, trace
from tests.recorded.worlds import World, worlds


@cache
def _makers() -> dict[str, Callable[[], Trace]]:
    def of(world: World, summary: bool) -> Callable[[], Trace]:
        return lambda: trace(world, summary)

    out = {name: of(world, name.startswith("fleet")) for name, world in worlds().items()}
    out |= {f"runs: {name}": of(world, True) for name, world in runs().items()}
    out |= {f"settings: {name}": maker for name, maker in settled().items()}
    out |= {f"several: {name}": of(world, False) for name, world in several()}
    out |= {f"loads: {name}": maker for name, maker in loads().items()}
    return out | {f"records: {name}": maker for name, maker in known().items()}


def names() -> list[str]:
    """Of all that is recorded."""
    return list(_makers())


def made(name: str) -> Trace:
    """What becomes of it now."""
    return _makers()[name]()
