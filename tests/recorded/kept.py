"""What was recorded, in one compressed file for each group of worlds under `tests/golden/worlds`; and why, in `why.json` beside them."""

from __future__ import annotations

import difflib
import hashlib
import json
import lzma
from functools import cache
from pathlib import Path

from tests.recorded.trace import Trace

FOLDER = Path(__file__).parents[1] / "golden" / "worlds"
WHY = FOLDER / "why.json"
LONG = ("series",)
"""Sections of which only a digest is kept."""
SHOWN = 60
"""Lines of a difference."""


def short(trace: Trace) -> Trace:
    """As it is kept."""
    return {k: [hashlib.sha256("\n".join(v).encode()).hexdigest()[:16]] if k in LONG else v for k, v in trace.items()}


def file_of(group: str) -> Path:
    """Where a group is kept."""
    return FOLDER / f"{group}.json.xz"


@cache
def recorded(group: str) -> dict[str, Trace]:
    """Traces of a group by name."""
    return dict(json.loads(lzma.decompress(file_of(group).read_bytes()))) if file_of(group).exists() else {}


def keep(group: str, traces: dict[str, Trace]) -> None:
    """Write a group down."""
    FOLDER.mkdir(exist_ok=True)
    file_of(group).write_bytes(lzma.compress(json.dumps(traces).encode(), preset=9))


def difference(name: str, now: Trace) -> str:
    """What is not as recorded, by section, as a diff; empty: nothing."""
    was = recorded(name.partition(":")[0]).get(name)
    if was is None:
        return f"{name} was never recorded"
    out: list[str] = []
    for section in dict.fromkeys([*was, *now]):
        a, b = was.get(section, []), now.get(section, [])
        if a != b:
            out += difflib.unified_diff(a, b, f"{section}, recorded", f"{section}, now", lineterm="", n=1)
    return "\n".join(out[:SHOWN])
