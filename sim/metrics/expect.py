"""Whether a run gave what its scenario expects: scenarios are claims that can be checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.config.scenario import Expectation


def unmet(summary: Mapping[str, object], expect: Mapping[str, Expectation]) -> list[str]:
    """A sentence for every expectation that does not hold. ``expect``: dotted path in the summary → ``min, max, value, tolerance``.

    Members of lists are known by number or name: ``classes.0``.
    """
    out = []
    for path, bound in expect.items():
        found: object = summary
        for part in path.split("."):
            found = _inside(found, part)
        if isinstance(found, bool) or not isinstance(found, int | float):
            out.append(f"{path}: the result has no such figure")
            continue
        low, high = bound.min, bound.max
        if bound.value is not None:
            margin = abs(bound.value) * (bound.tolerance or 0.0)
            low, high = bound.value - margin, bound.value + margin
        if (low is not None and found < low) or (high is not None and found > high):
            allowed = " and ".join(f"{word} {x:.6g}" for word, x in (("at least", low), ("at most", high)) if x is not None)
            out.append(f"{path} is {found:.6g}, expected {allowed}")
    return out


def _inside(found: object, part: str) -> object:
    if isinstance(found, Mapping):
        return found.get(part)
    if isinstance(found, Sequence) and not isinstance(found, str):
        named = [x for x in found if isinstance(x, Mapping) and x.get("name") == part]
        return named[0] if named else found[int(part)] if part.isdigit() and int(part) < len(found) else None
    return None
