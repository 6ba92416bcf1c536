"""Answers that somebody looked at once and that stay as they are: `same` compares with the recorded one, every figure of it.

An answer that changes is looked at, and recorded again with the reason in the commit: ``SERVESIM_RECORD=1 pytest tests/fleet/test_whole_answers.py``.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import lzma
import math
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden" / "answers"
AGAIN = bool(os.environ.get("SERVESIM_RECORD"))
"""Whether answers are recorded instead of compared."""
DIGITS = 9
"""Significant digits of a recorded number: the last bits of a sum differ between compilers."""
SHOWN = 25


@cache
def _known(room: str) -> dict[str, Any]:
    """All answers of a room that are recorded."""
    file = FOLDER / f"{room}.json.xz"
    return dict(json.loads(lzma.decompress(file.read_bytes()))) if file.exists() else {}


_changed: set[str] = set()


def _write() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for room in _changed:
        text = json.dumps(dict(sorted(_known(room).items())), ensure_ascii=False, separators=(",", ":"))
        (FOLDER / f"{room}.json.xz").write_bytes(lzma.compress(text.encode(), preset=6))


if AGAIN:
    atexit.register(_write)


def same(room: str, world: str, found: Any) -> None:
    """Compare the answer of a world with the recorded one."""
    found = json.loads(json.dumps(plain(found)))
    known = _known(room)
    if AGAIN:
        if world not in known or list(unlike(known[world], found)):
            known[world] = found
            _changed.add(room)
        return
    assert world in known, f"{world} was never recorded: SERVESIM_RECORD=1 pytest …"
    told = list(unlike(known[world], found))
    more = [f"… and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    assert not told, "\n".join([f"{room}, {world}: not as recorded:", *told[:SHOWN], *more])


def worlds(room: str) -> set[str]:
    """Whose answers are recorded."""
    return set(_known(room))


def unlike(known: Any, found: Any, at: str = "") -> Iterator[str]:
    """A line for each difference: where, what was recorded, what was found."""
    if isinstance(known, dict) and isinstance(found, dict):
        for key in sorted(known.keys() | found.keys()):
            if key not in known or key not in found:
                yield f"{at}.{key}: {'new' if key not in known else 'gone'}: {json.dumps(known.get(key, found.get(key)))[:200]}"
            else:
                yield from unlike(known[key], found[key], f"{at}.{key}")
    elif isinstance(known, list) and isinstance(found, list):
        if len(known) != len(found):
            yield f"{at}: {len(known)} recorded, {len(found)} found"
        for i, (a, b) in enumerate(zip(known, found, strict=False)):
            yield from unlike(a, b, f"{at}[{i}]")
    elif isinstance(known, float | int) and isinstance(found, float | int) and bool not in (type(known), type(found)):
        if not math.isclose(known, found, rel_tol=1e-6, abs_tol=1e-10):
            yield f"{at}: {known} recorded, {found} found"
    elif known != found or type(known) is not type(found):
        yield f"{at}: {known!r} recorded, {found!r} found"


def plain(value: Any) -> Any:
    """Ready for JSON: dataclasses and models by their fields, numbers to `DIGITS` digits, what is no number in words."""
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, bool) or value is None or isinstance(value, int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Path):
        return value.name
    raise TypeError(f"{type(value).__name__} has no plain form")
