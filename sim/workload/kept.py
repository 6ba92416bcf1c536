"""Requests that are too many for memory: written once, as columns, to a temporary file, and read again as often as they are asked for."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim import scratch
from sim.errors import DataError
from sim.ledger import Values
from sim.workload.table import PER_ROW, RequestBlock
from sim.workload.waits import Waits

if TYPE_CHECKING:
    import pyarrow as pa

_SPANS = ("span_id", "span_start", "span_len")


@dataclass(eq=False)
class Kept:
    """Blocks of requests on disk (Arrow, LZ4: some 40 bytes a request, 5 a span). `add` them, `done`, then `blocks` at any time.

    The file (`sim.scratch`) has no name and goes with the process; the environment's ``TMPDIR`` says where it lies.
    """

    requests: int = 0
    _file: IO[bytes] = field(init=False)
    _writer: pa.RecordBatchFileWriter | None = None
    _reader: pa.RecordBatchFileReader | None = None
    _waits: list[bool] = field(default_factory=list)

    def add(self, block: RequestBlock) -> None:
        """Write a block. Raises `DataError` when there is no room for it."""
        import pyarrow as pa

        made = _to_arrow(block)
        try:
            if self._writer is None:
                self._file = scratch.new_file()
                weakref.finalize(self, self._file.close)
                self._writer = pa.ipc.new_file(
                    pa.PythonFile(self._file, "w"), made.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
                )
            self._writer.write_batch(made)
        except OSError as error:
            raise _no_room(error) from None
        self.requests += len(block)
        self._waits.append(block.waits is not None)

    def done(self) -> Kept:
        """All blocks are there."""
        import pyarrow as pa

        if self._writer is None:
            return self
        try:
            self._writer.close()
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from None
        self._writer = None
        self._file.seek(0)
        self._reader = pa.ipc.open_file(pa.PythonFile(self._file, "r"))
        return self

    def blocks(self) -> Iterator[RequestBlock]:
        """The blocks in the order in which they came."""
        for i, waits in enumerate(self._waits):
            assert self._reader is not None, "done comes first"
            yield _from_arrow(self._reader.get_batch(i), waits)


def _no_room(error: OSError) -> DataError:
    return DataError(
        scratch.place(), f"a large trace cannot be kept here ({error.strerror or error})", "TMPDIR names another folder"
    )


def _to_arrow(block: RequestBlock) -> pa.RecordBatch:
    import pyarrow as pa

    waits = block.waits or Waits.none(len(block))
    columns = {name: pa.array(getattr(block, name)) for name in PER_ROW}
    columns |= {name: _lists(block.span_off, getattr(block, name)) for name in _SPANS}
    columns |= {"wait_s": pa.array(waits.wait_s), "awaited": pa.array(waits.awaited), "key": _lists(waits.off, waits.key)}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _lists(off: NDArray[np.int64], values: Values) -> pa.Array:
    import pyarrow as pa

    return pa.LargeListArray.from_arrays(pa.array(off), pa.array(values))


def _from_arrow(batch: pa.RecordBatch, waits: bool) -> RequestBlock:
    columns: dict[str, Values] = {name: _own(batch.column(name)) for name in PER_ROW}
    columns |= {name: _own(batch.column(name).values) for name in _SPANS}
    columns["span_off"] = _own(batch.column(_SPANS[0]).offsets)
    if not waits:
        return RequestBlock(**columns, waits=None)
    wait, awaited, key = (batch.column(name) for name in ("wait_s", "awaited", "key"))
    return RequestBlock(**columns, waits=Waits(_own(wait), _own(awaited), _own(key.offsets), _own(key.values)))


def _own(array: pa.Array) -> Values:
    """As NumPy, to be written to: compiled functions take arrays that are not for another type."""
    found: Values = array.to_numpy(zero_copy_only=False, writable=True)
    return found
