"""Where objects begin and end in JSON text, found in arrays: no byte is looked at in Python, and nothing is decoded."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from sim.brackets import NEWLINE, RETURN, STEP, marks

if TYPE_CHECKING:
    import pyarrow as pa

_BLANK = np.zeros(256, bool)
_BLANK[[ord(c) for c in " \t\r\n"]] = True
_COMMA = _BLANK.copy()
_COMMA[ord(",")] = True
_WIDEST = 64
"""Bytes between two objects; more is left to the decoder."""
_READ_SIZE = 1 << 26
_DEEPEST = 64
"""Arrow's parser calls itself for every level."""


def as_lines(data: bytes, commas: bool) -> tuple[bytes, int, int, int] | None:
    """(text with one object a line, objects, bytes of ``data`` up to the end of the last one, depth) of objects with blanks (and ``commas``) between.

    An object that does not end is left out. None: this is something else, which a decoder may name.
    """
    found = marks(data)
    if found.broken:
        return None
    at, char, depth = found.at, found.char, found.depth
    if not len(at):
        return b"", 0, 0, 0
    top = depth == 0
    if char[0] != ord("{") or depth.min() < 0 or (char[top] != ord("}")).any():
        return None
    last = at[top]
    first = at[(depth == 1) & (STEP[char] > 0)][: len(last)]
    if not len(last):
        return b"", 0, 0, 0
    stop = int(last[-1]) + 1
    out = np.frombuffer(data[:stop], np.uint8).copy()
    before = np.concatenate([[0], last[:-1] + 1])
    gap = first - before
    if gap.max() > _WIDEST or (gap[1:] < 1).any():
        return None
    blank = _COMMA if commas else _BLANK
    for k in range(int(gap.max())):
        place = before[gap > k] + k
        if not blank[out[place]].all():
            return None
        out[place] = ord(" ")
    out[(out == NEWLINE) | (out == RETURN)] = ord(" ")
    out[last[:-1] + 1] = NEWLINE
    return out.tobytes() + b"\n", len(last), stop, found.deepest


def parsed(lines: bytes, deepest: int, fields: pa.Schema, others: bool) -> pa.Table | None:
    """A ``pyarrow.Table`` of JSON lines, nested ``deepest``: of ``fields`` (a schema; what an object lacks is null) and, when asked for, all ``others``.

    None where some value is of another kind, or the text is no JSON.
    """
    import pyarrow as pa
    import pyarrow.json as pj

    if deepest > _DEEPEST:
        return None
    options = pj.ParseOptions(explicit_schema=fields, unexpected_field_behavior="infer" if others else "ignore")
    try:
        return pj.read_json(io.BytesIO(lines), pj.ReadOptions(block_size=_READ_SIZE), options)
    except (pa.ArrowException, ValueError):
        return None
