"""Brackets of JSON text outside its strings, found in arrays: no byte is looked at in Python, and nothing is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUOTE, NEWLINE, RETURN = ord('"'), ord("\n"), ord("\r")
STEP = np.zeros(256, np.int32)
"""What a byte adds to the depth."""
STEP[[ord("{"), ord("[")]] = 1
STEP[[ord("}"), ord("]")]] = -1
_MARKS = bytes(int(step != 0 or c in (QUOTE, NEWLINE, RETURN)) for c, step in enumerate(STEP.tolist()))
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True)
class Marks:
    """Brackets outside strings: where (``at``), what (``char``), and how deep it is after each (``depth``).

    ``quoted``: the text ends within a string; ``broken``: a line ends within one, which no JSON has.
    """

    at: NDArray[np.int64]
    char: NDArray[np.uint8]
    depth: NDArray[np.int64]
    quoted: bool
    broken: bool

    @property
    def deepest(self) -> int:
        """How deeply brackets are nested."""
        return int(self.depth.max(initial=0))


def marks(data: bytes, quoted: bool = False) -> Marks:
    """The brackets of text that begins outside strings, or within one that is ``quoted``."""
    plain = data.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in data else data
    at = np.flatnonzero(np.frombuffer(plain.translate(_MARKS), bool))
    char = np.frombuffer(plain, np.uint8)[at]
    inside = np.logical_xor.accumulate(char == QUOTE) ^ quoted if len(char) else np.zeros(0, bool)
    broken = bool((inside & ((char == NEWLINE) | (char == RETURN))).any())
    ends = bool(inside[-1]) if len(char) else quoted
    outside = ~inside & (STEP[char] != 0)
    at, char = at[outside], char[outside]
    return Marks(at, char, np.cumsum(STEP[char], dtype=np.int64), ends, broken)


def deeper(text: str, most: int, piece: int = _PIECE) -> int | None:
    """Where the brackets of JSON text first nest more deeply than ``most``; None where they never do."""
    if text.count("[") + text.count("{") <= most:
        return None
    depth, quoted, start = 0, False, 0
    while start < len(text):
        end = start + piece
        while end < len(text) and text[end - 1] == "\\":  # what is escaped stays with its backslash
            end += 1
        found = marks(text[start:end].encode("latin-1", "replace"), quoted)  # a byte for each character
        over = np.flatnonzero(found.depth + depth > most)
        if len(over):
            return start + int(found.at[over[0]])
        if len(found.depth):
            depth += int(found.depth[-1])
        quoted, start = found.quoted, end
    return None
