"""Text files that users bring: unpacked (gzip, zstd) within bounds, with or without a byte-order mark, any line ends.

Nothing here holds more of a file than it is asked for, so that a small file that unpacks to a huge one does no harm.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from sim.errors import DataError, did_you_mean
from sim.places import is_folder

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MARK = b"\xef\xbb\xbf"
LARGEST = 1 << 28
"""Bytes, unpacked, of a file that is held as a whole."""
READ = 1 << 22
"""Bytes read at a time."""
LONGEST_LINE = 1 << 26
"""Bytes in one line of text; more is no table and no JSON lines."""


Report = Callable[[int, int | None, str], object]
on_read: ContextVar[Report | None] = ContextVar("on_read", default=None)
"""Told of progress: bytes read, all of them (None where the file is packed), and a label."""


def packed_as(path: Path) -> str | None:
    """``gzip``, ``zstd`` or None, by the first bytes of the file."""
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
    except ValueError:  # a NUL in its name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def opened(path: Path) -> pa.NativeFile:
    """A binary stream of the unpacked content, to be closed by the caller. Raises `DataError`."""
    import pyarrow as pa

    try:
        if path.exists() and not path.is_file():
            raise DataError(str(path), "cannot be read: is no regular file")
        return pa.input_stream(str(path), compression=packed_as(path))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if is_folder(path.parent) else [])
        raise DataError(str(path), "no such file", near) from None
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror or error})") from None


def chunks(path: Path, size: int = READ) -> Iterator[bytes]:
    """The unpacked content in pieces, without a byte-order mark. Raises `DataError`, also for a damaged archive."""
    stream = opened(path)
    kind, report, done = packed_as(path), on_read.get(), 0
    total = path.stat().st_size if kind is None else None
    with stream:
        first = True
        while True:
            try:
                piece: bytes = stream.read(size)
            except OSError as error:
                packed = f"is not a whole {kind} file" if kind else "cannot be read"
                raise DataError(str(path), f"{packed} ({error})") from None
            if not piece:
                return
            if first:
                piece = piece.removeprefix(_MARK)
                first = False
            done += len(piece)
            if report is not None:
                report(done, total, f"reading {path.name}")
            if piece:
                yield piece


def mentions(path: Path, names: Sequence[str]) -> bool:
    """Whether some of these words are anywhere in a file."""
    words = [name.encode() for name in names]
    longest, tail = max(map(len, words)), b""
    for piece in chunks(path):
        if any(word in tail + piece for word in words):
            return True
        tail = piece[1 - longest :]
    return False


def check_size(path: Path, most: int) -> None:
    """Raise `DataError` for a file that is, or unpacks to, more than ``most`` bytes, and for what is no regular file."""
    if path.exists() and packed_as_regular(path) is None:
        if path.stat().st_size > most:
            raise DataError(str(path), f"is larger than {most >> 20} MiB")
        return
    total = 0
    for piece in chunks(path):
        total += len(piece)
        if total > most:
            raise DataError(str(path), f"unpacks to more than {most >> 20} MiB")


def packed_as_regular(path: Path) -> str | None:
    """As `packed_as`, for a regular file; anything else raises `DataError` instead of being waited for."""
    if not path.is_file():
        raise DataError(str(path), "cannot be read: is no regular file")
    return packed_as(path)


def read_all(path: Path, most: int) -> bytes:
    """The whole content. Raises `DataError` when it is more than ``most`` bytes, empty, or no text."""
    parts, total = [], 0
    for piece in chunks(path):
        total += len(piece)
        if total > most:
            raise DataError(str(path), f"unpacks to more than {most >> 20} MiB")
        parts.append(piece)
    data = b"".join(parts)
    check_text(path, data)
    if not data.strip():
        raise DataError(str(path), "is empty")
    return data


def check_text(path: Path, data: bytes) -> None:
    """Raise `DataError` for what is no UTF-8 text."""
    if data.isascii() and b"\0" not in data:
        return
    if b"\0" in data:
        raise DataError(str(path), "is not a text file")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(str(path), "is not a text file in UTF-8") from None
