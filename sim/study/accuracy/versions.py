"""Which release of an engine a free text means: ``0.15.1``, ``0.2-0.3 (early 2024)``, ``2025-05``, ``main 182b75ea (2026)``."""

from __future__ import annotations

import re
from collections.abc import Iterable

# First month of a release line, from the projects' release pages.
_DATES: dict[str, tuple[tuple[str, str], ...]] = {
    "vllm": (
        ("2023-06", "0.1"), ("2023-09", "0.2"), ("2024-03", "0.4"), ("2024-07", "0.5"), ("2024-09", "0.6"), ("2025-01", "0.7"),
        ("2025-03", "0.8"), ("2025-07", "0.10"), ("2025-10", "0.11"), ("2025-12", "0.12"), ("2026-01", "0.14"), ("2026-03", "0.17"),
    ),
    "sglang": (("2024-01", "0.2"), ("2024-12", "0.4"), ("2025-08", "0.5")),
    "vllm-ascend": (("2025-03", "0.7"), ("2025-07", "0.9.2"), ("2025-10", "0.11"), ("2025-12", "0.13"),
        ("2026-02", "0.15"), ("2026-04", "0.18"), ("2026-06", "0.20"), ("2026-08", "0.24"),
    ),
}  # fmt: skip
_EAGER_DAYS = re.compile(r"\b(early )?(20\d\d)(?:-(\d\d))?")


def release(engine: str, text: str | None, assumed: Iterable[str] = ()) -> str | None:
    """The version as ``major.minor[.patch]``; None: nothing is known, take the engine's newest line.

    A text without a version is read as a date; ``assumed`` sentences are searched for a year where the text says nothing.
    """
    if text:
        found = re.search(r"(?<![\w-])(\d+\.\d+(?:\.\d+)?)", text)
        if found and not re.match(r"20\d\d\.", found[1]):
            return found[1]
    dated = _dated(text) if text else next((d for d in map(_dated, assumed) if d), None)
    table = _DATES.get(engine)
    if dated is None or table is None:
        return None
    at = [version for month, version in table if month <= dated]
    return at[-1] if at else table[0][1]


def _dated(text: str) -> str | None:
    found = _EAGER_DAYS.search(text)
    return f"{found[2]}-{found[3] or ('01' if found[1] else '12')}" if found else None
