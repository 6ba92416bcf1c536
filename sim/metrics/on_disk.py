"""Requests of a run that are too many to hold: a table whose columns lie on disk, one file (`sim.scratch`) each, and are read when they are asked for.

What reads a table column by column needs no more memory than
for the columns that it holds at once; what goes through it in blocks of rows (`DiskTable.change`) needs that of a block.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import IO, Final

import numpy as np

from sim import scratch
from sim.ledger import Values as Array

Columns = MutableMapping[str, Array]
_Files = dict[str, tuple[IO[bytes], np.dtype[np.generic]]]

HELD_ROWS: Final = 2_000_000
"""Rows that a run keeps in memory; of more, all go to disk."""
BLOCK_ROWS: Final = 1 << 20
"""Rows of a block, and of a row group in Parquet."""
ROW_BYTES: Final = 300
"""On disk, of a row and of what is derived of it, while the rows are brought into order."""


class DiskTable(Columns):
    """Columns of one length, by name.

    ``table[name]`` is a fresh array: to change it changes nothing here. Copies and pickles hold their columns in memory.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._files: _Files = {}
        weakref.finalize(self, _close, self._files)

    def __getitem__(self, name: str) -> Array:
        return self._read(name, 0, self.rows)

    def __setitem__(self, name: str, values: Array) -> None:
        if self._files and len(values) != self.rows:
            raise ValueError(f"{name} has {len(values)} rows, the table {self.rows}")
        self.rows = len(values)
        if name in self._files:
            del self[name]
        file = self._new(name, values.dtype)
        for lo in range(0, self.rows, BLOCK_ROWS):
            _write(file, values[lo : lo + BLOCK_ROWS])

    def __delitem__(self, name: str) -> None:
        self._files.pop(name)[0].close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (dict(self),)

    @classmethod
    def of(cls, columns: Columns) -> DiskTable:
        """A table of these columns, which are taken out of ``columns`` one by one."""
        table = cls()
        for name in list(columns):
            table[name] = columns.pop(name)
        return table

    def append(self, rows: Mapping[str, Array]) -> None:
        """Further rows, with the columns that the first ones had."""
        if not self._files:
            for name, values in rows.items():
                self._new(name, values.dtype)
        for name, (file, dtype) in self._files.items():
            file.seek(self.rows * dtype.itemsize)
            _write(file, rows[name].astype(dtype, copy=False))
        self.rows += len(next(iter(rows.values())))

    def blocks(self, names: Iterable[str] | None = None) -> Iterator[dict[str, Array]]:
        """The table in blocks of at most `BLOCK_ROWS` rows."""
        names = list(self if names is None else names)
        for lo in range(0, self.rows, BLOCK_ROWS):
            yield {name: self._read(name, lo, min(lo + BLOCK_ROWS, self.rows)) for name in names}

    def change(self, of: Callable[[dict[str, Array]], Mapping[str, Array]]) -> None:
        """Columns that depend on their own row alone: ``of`` gives those that are new or other for each block."""
        at = 0
        for block in self.blocks():
            for name, values in of(block).items():
                if name not in self._files:
                    self._new(name, values.dtype)
                file, dtype = self._files[name]
                file.seek(at * dtype.itemsize)
                _write(file, values.astype(dtype, copy=False))
            at += len(next(iter(block.values())))

    def sort(self, name: str) -> None:
        """All rows in the order of a column."""
        order = np.argsort(self[name], kind="stable")
        for column in list(self):
            values = self[column][order]
            del self[column]
            self[column] = values

    def arrange(self, names: Iterable[str]) -> None:
        """The columns in this order; others are dropped."""
        kept = {name: self._files[name] for name in names if name in self._files}
        for name in self._files.keys() - kept.keys():
            del self[name]
        self._files.clear()
        self._files |= kept

    def _new(self, name: str, dtype: np.dtype[np.generic]) -> IO[bytes]:
        file = scratch.new_file()
        self._files[name] = file, dtype
        return file

    def _read(self, name: str, lo: int, hi: int) -> Array:
        file, dtype = self._files[name]
        out = np.empty(hi - lo, dtype)
        file.seek(lo * dtype.itemsize)
        if hi > lo and file.readinto(out.view(np.uint8)) != out.nbytes:  # type: ignore[attr-defined]
            raise OSError("a temporary file is shorter than what was written to it")
        return out


def _close(files: _Files) -> None:
    for file, _ in files.values():
        file.close()


def _write(file: IO[bytes], values: Array) -> None:
    if len(values):
        file.write(np.ascontiguousarray(values).view(np.uint8).data)


def put(columns: Columns, of: Callable[[Columns], Mapping[str, Array]]) -> None:
    """Columns that depend on their own row alone: into a table on disk block by block, into one in memory at once."""
    if isinstance(columns, DiskTable):
        columns.change(of)
    else:
        columns.update(of(columns))


def has_room(rows: float) -> bool:
    """Whether there is room on disk for so many rows."""
    with suppress(OSError):
        return shutil.disk_usage(scratch.place()).free > rows * ROW_BYTES
    return False
