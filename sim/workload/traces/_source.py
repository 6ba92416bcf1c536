"""A file with traffic in it, whole or in pieces, and errors that say where in it something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from sim.errors import DataError, brief
from sim.workload import textfile

_PARQUET = b"PAR1"
PIECE = 1 << 24
"""Bytes of text that are turned into requests at a time."""
LARGEST = 1 << 32
"""Bytes of a format that has to be held as a whole."""


class Source:
    """The content of a text file (gzip and zstd unpacked), or a piece of it that begins at line ``first_line``."""

    def __init__(self, path: Path, data: bytes | None = None, first_line: int = 1) -> None:
        self.path, self.first_line = path, first_line
        self.header_lines = 0
        """Lines before the first row; set by a reader of a format with a header."""
        if data is not None:
            self.data = data

    @cached_property
    def data(self) -> bytes:
        """The bytes. Raises `DataError` when there is no such file, or nothing in it, or no text."""
        parts, total = [], 0
        for piece in textfile.chunks(self.path):
            total += len(piece)
            if total > LARGEST:
                self.fail(f"unpacks to more than {LARGEST >> 30} GiB, the most that this format can have")
            parts.append(piece)
        raw = b"".join(parts)
        if not raw.strip():
            self.fail("is empty")
        if raw[:4] != _PARQUET:
            textfile.check_text(self.path, raw)
        return raw

    def pieces(self, size: int = PIECE) -> Iterator[Source]:
        """The file in whole lines, about ``size`` bytes at a time, each checked to be text. Raises `DataError` as `data` does."""
        held: list[bytes] = []
        count, line, some = 0, 1, False
        for chunk in textfile.chunks(self.path, min(size, textfile.READ)):
            held.append(chunk)
            count += len(chunk)
            if count < size:
                continue
            whole = b"".join(held)
            cut = whole.rfind(b"\n") + 1
            if not cut:
                if count > textfile.LONGEST_LINE:
                    self.fail(f"line {line}: is longer than {textfile.LONGEST_LINE >> 20} MiB")
                held = [whole]
                continue
            held, count = [whole[cut:]], len(whole) - cut
            piece = self._checked(whole[:cut], line)
            line += whole.count(b"\n", 0, cut)
            if piece is not None:
                some = True
                yield piece
        piece = self._checked(b"".join(held), line)
        if piece is not None:
            some = True
            yield piece
        if not some:
            self.fail("is empty")

    def _checked(self, data: bytes, line: int) -> Source | None:
        if not data or data.isspace():
            return None
        textfile.check_text(self.path, data)
        return Source(self.path, data, line)

    def line(self, row: int) -> int:
        """Line number, from 1, of data row ``row``, from 0; blank lines hold no rows."""
        lines = (i for i, text in enumerate(self.data.splitlines(), self.first_line) if text.strip())
        return next(n for k, n in enumerate(lines) if k == row + self.header_lines)

    def fail(self, problem: str, hint: str = "") -> NoReturn:
        """Raise a `DataError` about the file as a whole."""
        raise DataError(str(self.path), problem, hint)

    def fail_at(self, row: int, column: str, value: object, rule: str) -> NoReturn:
        """Raise a `DataError` about one value."""
        place = f"row {row + 1}" if self.data[:4] == _PARQUET else f"line {self.line(row)}"
        raise DataError(str(self.path), f"{place}, column {column!r}: {rule} (got {_show(value)})")


def _show(value: object) -> str:
    return brief(repr(value.item() if hasattr(value, "item") else value))
