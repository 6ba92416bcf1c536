"""The objects of a file of JSON lines or of a JSON array, some megabytes at a time, as columns of Arrow or one by one."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from sim.brackets import deeper
from sim.document import DEEPEST, Table, loads, once
from sim.errors import DataError
from sim.workload import textfile
from sim.workload.table import MAX_TOKENS
from sim.workload.traces import _scan
from sim.workload.traces._source import PIECE, _show

if TYPE_CHECKING:
    import pyarrow as pa

_LONGEST = 1 << 28
_SOME = 4096


@dataclass(frozen=True)
class Item:
    """One object of a file: its place (``item 3`` or ``line 3``) and value; `fail` names a key of it."""

    path: Path
    place: str
    value: Table

    def fail(self, key: str, rule: str, value: object = None) -> NoReturn:
        """Raise a `DataError` about a key of this object."""
        raise DataError(str(self.path), f"{self.place}, key {key!r}: {rule} (got {_show(value)})")

    def number(self, key: str, where: Table, low: float = 0.0, name: str = "") -> float:
        """A finite number of at least ``low`` in ``where``, a part of this object."""
        value = where.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, int) and abs(value) >= 1 << 62):
            self.fail(name or key, f"must be a number of at least {low:g}", value)
        if not low <= value < float("inf"):
            self.fail(name or key, f"must be a number of at least {low:g}", value)
        return float(value)

    def tokens(self, key: str, where: Table, low: float = 1, name: str = "") -> int:
        """A whole number of tokens, at least ``low``, in ``where``."""
        value = self.number(key, where, low, name)
        if value != int(value) or value > MAX_TOKENS:
            self.fail(name or key, "must be a whole number of tokens", value)
        return int(value)


@dataclass(frozen=True)
class Objects:
    """Some objects of a file, the first of which has number ``first`` (from 0).

    ``lines``: they are well formed so far as brackets tell, one a line; else ``rest`` decodes them and says what is wrong.
    """

    path: Path
    first: int
    lines: bytes = b""
    count: int = 0
    deepest: int = 0
    rest: Iterator[Item] | None = None

    def __iter__(self) -> Iterator[Item]:
        """One by one. Raises `DataError` for what is no JSON, or no object."""
        if self.rest is not None:
            yield from self.rest
            return
        for k, line in enumerate(self.lines.splitlines(), self.first + 1):
            try:
                value = loads(line)
            except ValueError as error:
                raise DataError(str(self.path), f"item {k}: is not JSON ({str(error)[:80]})") from None
            yield Item(self.path, f"item {k}", value)

    def table(self, fields: pa.Schema, others: bool = False) -> pa.Table | None:
        """A ``pyarrow.Table`` of ``fields`` (a schema; what an object lacks is null) and, when asked for, all ``others``.

        None where some value is of another kind: the objects one by one say which.
        """
        found = None if self.rest is not None else _scan.parsed(self.lines, self.deepest, fields, others)
        return None if found is None else found.combine_chunks()


T = TypeVar("T")


def columns(
    path: Path, fields: pa.Schema, fast: Callable[[pa.Table], T | None], slow: Callable[[list[Item]], T], others: bool = False
) -> Iterator[tuple[int, T]]:
    """(number of the first object, what is made of some objects): ``fast`` of a table of ``fields``, ``slow`` of objects where that is none.

    ``slow`` raises for what is wrong and must else make the same of the same objects.
    """
    for piece in pieces(path):
        table = piece.table(fields, others)
        made = None if table is None else fast(table)
        if made is not None:
            yield piece.first, made
            continue
        each, first = iter(piece), piece.first
        while some := list(islice(each, _SOME)):
            yield first, slow(some)
            first += len(some)


def pieces(path: Path, size: int = PIECE) -> Iterator[Objects]:
    """The objects of a JSON array, of JSON lines, or the one object of a file: no more of the file is held than ``size``, or its largest object.

    Raises `DataError` for what is no text, and `Objects` for what is no JSON.
    """
    chunks = textfile.chunks(path, min(size, textfile.READ))
    buffer, want, number = b"", size, 0
    array: bool | None = None
    more = True
    while more:
        parts = [buffer]
        while more and want > 0:
            piece = next(chunks, None)
            more = piece is not None
            parts.append(piece or b"")
            want -= len(piece or b"")
        buffer = b"".join(parts)
        if array is None and (start := buffer.lstrip(b" \t\r\n")):
            array = start[:1] == b"["
            buffer = start[1:] if array else start
        closed = buffer.rstrip(b" \t\r\n") if not more else buffer
        ending = array and not more and closed.endswith(b"]")
        found = _scan.as_lines(closed[:-1] if ending else closed, bool(array))
        if found is None or (not more and (closed[found[2] :].strip(b" \t\r\n,") != (b"]" if array else b""))):
            yield Objects(path, number, rest=_decoded(path, chain([buffer], chunks), number, array))
            return
        lines, count, stop, deepest = found
        if not count and len(buffer) > _LONGEST:
            raise DataError(str(path), f"item {number + 1}: is longer than {_LONGEST >> 20} MiB")
        if count:
            textfile.check_text(path, lines)
            yield Objects(path, number, lines, count, deepest)
            number += count
        buffer = buffer[stop:]
        want = max(size - len(buffer), len(buffer) if not count else 0, 1)
    if not number:
        raise DataError(str(path), "is empty" if array is None else "has no objects")


def items(path: Path, size: int = PIECE) -> Iterator[Item]:
    """The objects of a file, one by one."""
    return chain.from_iterable(pieces(path, size))


def _decoded(path: Path, chunks: Iterator[bytes], number: int, array: bool | None) -> Iterator[Item]:
    """The objects of what is left of a file, by a decoder that says what is wrong in the first that is none; ``number`` came before."""
    decode = json.JSONDecoder(object_pairs_hook=once).raw_decode
    space = re.compile(r"[ \t\r\n]*").match
    buffer, at, ended = "", 0, False
    utf8 = _text(path, chunks)
    more, cut = True, False
    while True:
        at = space(buffer, at).end()  # type: ignore[union-attr]
        if array and at < len(buffer) and buffer[at] in ",]":
            ended = buffer[at] == "]"
            at += 1
            if ended and (buffer[at:].strip() or any(text.strip() for text in utf8)):
                raise DataError(str(path), "is not JSON: something follows its array")
            continue
        if at < len(buffer):
            if len(buffer) - at > _LONGEST:
                raise DataError(str(path), f"item {number + 1}: is longer than {_LONGEST >> 20} MiB")
            try:
                value, end = decode(buffer, at)
            except ValueError as error:
                if not more:
                    what = "nested too deeply" if cut and getattr(error, "pos", 0) >= len(buffer) else str(error)[:80]
                    raise DataError(str(path), f"item {number + 1}: is not JSON ({what})") from None
                value, end = None, -1
            if end > 0 and (end < len(buffer) or not more):
                number += 1
                if not isinstance(value, dict):
                    raise DataError(str(path), f"item {number}: must be a JSON object (got {_show(value)})")
                yield Item(path, f"item {number}", value)
                at = end
                continue
        if not more:
            break
        # a value that is not whole yet needs as much again before another try
        grown = [buffer[at:]]
        size = max(len(buffer) - at, 1 << 16)
        at = 0
        while more and size > 0:
            piece = next(utf8, None)
            if piece is None:
                more = False
            else:
                grown.append(piece)
                size -= len(piece)
        buffer = "".join(grown)
        deep = deeper(buffer, DEEPEST)
        if deep is not None:  # the decoder comes no further than there
            buffer, more, cut = buffer[:deep], False, True
    if array and not ended:
        raise DataError(str(path), "is not JSON: its array does not end")
    if not number:
        raise DataError(str(path), "has no objects")


def _text(path: Path, chunks: Iterator[bytes]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in chunks:
            yield decode.decode(chunk)
        decode.decode(b"", True)
    except UnicodeDecodeError:
        raise DataError(str(path), "is not a text file in UTF-8") from None
