"""A file with traffic in it, and errors that say where in it something is wrong."""

from __future__ import annotations

import gzip
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from sim.errors import DataError, did_you_mean

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Source:
    """The whole content of a text file, unpacked when it is gzip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header_lines = 0
        """Lines before the first row; set by a reader of a format with a header."""

    @cached_property
    def data(self) -> bytes:
        """The bytes. Raises `DataError` when there is no such file, or nothing in it, or no text."""
        try:
            raw = self.path.read_bytes()
            if raw.startswith(_GZIP):
                raw = gzip.decompress(raw)
        except FileNotFoundError:
            near = did_you_mean(self.path.name, [p.name for p in self.path.parent.iterdir()] if self.path.parent.is_dir() else [])
            raise DataError(str(self.path), "no such file", near) from None
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.fail("is not a whole gzip file")
        except OSError as error:
            self.fail(f"cannot be read ({error.strerror or error})")
        raw = raw.removeprefix(_BYTE_ORDER_MARK)
        if not raw.strip():
            self.fail("is empty")
        if raw[:4] != _PARQUET:
            if b"\0" in raw:
                self.fail("is not a text file")
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError:
                self.fail("is not a text file in UTF-8")
        return raw

    def line(self, row: int) -> int:
        """Line number, from 1, of data row ``row``, from 0; blank lines hold no rows."""
        lines = (i for i, text in enumerate(self.data.splitlines(), 1) if text.strip())
        return next(n for k, n in enumerate(lines) if k == row + self.header_lines)

    def fail(self, problem: str, hint: str = "") -> NoReturn:
        """Raise a `DataError` about the file as a whole."""
        raise DataError(str(self.path), problem, hint)

    def fail_at(self, row: int, column: str, value: Any, rule: str) -> NoReturn:
        """Raise a `DataError` about one value."""
        place = f"row {row + 1}" if self.data[:4] == _PARQUET else f"line {self.line(row)}"
        raise DataError(str(self.path), f"{place}, column {column!r}: {rule} (got {_show(value)})")


def _show(value: Any) -> str:
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= 60 else text[:57] + "…"
