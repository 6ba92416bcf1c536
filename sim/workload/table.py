"""`RequestBlock`: a run of requests as a struct of arrays, the only form in which traffic travels through the package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.errors import DataError
from sim.ledger import Values
from sim.workload import content
from sim.workload.waits import Waits

MAX_TOKENS = 2**30 - 1
"""Longest prompt or output: prompt + output must fit 32 bits."""

BLOCK_ROWS = 16_384
"""Rows in which sources draw and hand out requests; memory is proportional to it."""

MOST_SPANS = 1 << 20
"""A block with more spans than this is handed out before it has all its rows."""

_DTYPES = {
    "arrival_s": np.float64,
    "prompt_tokens": np.int32,
    "output_tokens": np.int32,
    "max_tokens": np.int32,
    "priority": np.int32,
    "session": np.int64,
    "lora": np.int32,
    "klass": np.int32,
    "tenant": np.int32,
    "out_content": np.int64,
}
PER_ROW = tuple(_DTYPES)
"""Columns [n]."""
_SPANS = ("span_off", "span_id", "span_start", "span_len")
GivenSpans: TypeAlias = tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]
"""Offsets, content ids, starts and lengths, as the columns of these names have them."""
Columns: TypeAlias = tuple[
    NDArray[np.float64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int64],
]
"""What an engine takes of a block, see `RequestBlock.columns`."""


class Given(TypedDict, total=False):
    """Columns of a block that a source gives beside lengths and times (`RequestBlock.of`)."""

    max_tokens: ArrayLike
    priority: ArrayLike
    session: ArrayLike
    lora: ArrayLike
    klass: ArrayLike
    tenant: ArrayLike
    out_content: ArrayLike
    spans: GivenSpans
    waits: Waits | None


@dataclass(slots=True)
class RequestBlock:
    """``n`` requests in order of arrival.

    *Shape*: every column [n], except ``span_off`` [n+1] and the span columns [``span_off[n]``].
    A request's prompt is the concatenation of its spans (content id, start, length); no spans at all means content that nobody
    shares. Spans are canonical: two adjacent spans never continue each other within one content id.
    """

    arrival_s: NDArray[np.float64]
    """Seconds from the start of the traffic, sorted."""
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    """Tokens that will really be generated."""
    max_tokens: NDArray[np.int32]
    """The client's limit on generated tokens, at least ``output_tokens``."""
    priority: NDArray[np.int32]
    """As the engine reads it; 0 unless the traffic says otherwise."""
    session: NDArray[np.int64]
    """−1: none."""
    lora: NDArray[np.int32]
    """0: the base model."""
    klass: NDArray[np.int32]
    """Client class, 0 unless the traffic mixes classes."""
    tenant: NDArray[np.int32]
    """Number of the tenant in `Traffic.tenants`; 0: none."""
    out_content: NDArray[np.int64]
    """Content id of the generated tokens, unique."""
    span_off: NDArray[np.int64]
    span_id: NDArray[np.int64]
    span_start: NDArray[np.int64]
    span_len: NDArray[np.int64]
    waits: Waits | None = None
    """Who waits for whose answer; None: nobody."""

    @classmethod
    def of(
        cls,
        arrival_s: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        first: int = 0,
        *,
        max_tokens: ArrayLike | None = None,
        priority: ArrayLike | None = None,
        session: ArrayLike | None = None,
        lora: ArrayLike | None = None,
        klass: ArrayLike | None = None,
        tenant: ArrayLike | None = None,
        out_content: ArrayLike | None = None,
        spans: GivenSpans | None = None,
        waits: Waits | None = None,
    ) -> RequestBlock:
        """A block from what differs; the other columns get their defaults. ``first`` is the number of the first request.

        ``spans=(off, id, start, length)`` gives the prompts' content.
        """
        arrival = np.ascontiguousarray(arrival_s, np.float64)
        n = len(arrival)
        none: GivenSpans = np.zeros(n + 1, np.int64), (), (), ()
        off, ids, start, length = (np.ascontiguousarray(x, np.int64) for x in (none if spans is None else spans))
        return cls(
            arrival,
            np.ascontiguousarray(prompt_tokens, np.int32),
            np.ascontiguousarray(output_tokens, np.int32),
            np.ascontiguousarray(output_tokens if max_tokens is None else max_tokens, np.int32),
            np.zeros(n, np.int32) if priority is None else np.ascontiguousarray(priority, np.int32),
            np.full(n, -1) if session is None else np.ascontiguousarray(session, np.int64),
            np.zeros(n, np.int32) if lora is None else np.ascontiguousarray(lora, np.int32),
            np.zeros(n, np.int32) if klass is None else np.ascontiguousarray(klass, np.int32),
            np.zeros(n, np.int32) if tenant is None else np.ascontiguousarray(tenant, np.int32),
            content.OUTPUT + first + np.arange(n) if out_content is None else np.ascontiguousarray(out_content, np.int64),
            off,
            ids,
            start,
            length,
            waits,
        )

    @classmethod
    def concat(cls, blocks: Sequence[RequestBlock]) -> RequestBlock:
        """One block of all rows, in the order given."""
        if len(blocks) == 1:
            return blocks[0]
        if not blocks:
            return cls.of((), (), ())
        columns: dict[str, Values] = {
            name: np.concatenate([getattr(b, name) for b in blocks]) for name in (*_DTYPES, *_SPANS[1:])
        }
        base = np.cumsum([0, *(len(b.span_id) for b in blocks)])
        columns["span_off"] = np.concatenate(
            [b.span_off[(i > 0) :] + at for i, (b, at) in enumerate(zip(blocks, base[:-1], strict=True))]
        )
        return cls(**columns, waits=Waits.concat([b.waits for b in blocks], [len(b) for b in blocks]))

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __getitem__(self, rows: slice) -> RequestBlock:
        """Rows ``[lo:hi]`` as views (``span_off`` is copied, to start at 0)."""
        lo, hi, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("a block is sliced in steps of 1")
        hi = max(lo, hi)
        a, b = self.span_off[lo], self.span_off[hi]
        columns: dict[str, Values] = {name: getattr(self, name)[lo:hi] for name in _DTYPES}
        columns["span_off"] = self.span_off[lo : hi + 1] - a
        columns |= {name: getattr(self, name)[a:b] for name in _SPANS[1:]}
        return RequestBlock(**columns, waits=None if self.waits is None else self.waits.rows(lo, hi))

    def where(self, keep: NDArray[np.bool_]) -> RequestBlock:
        """A new block of the rows for which ``keep`` [n] holds."""
        count = np.diff(self.span_off)
        columns: dict[str, Values] = {name: getattr(self, name)[keep] for name in _DTYPES}
        columns["span_off"] = np.concatenate([[0], np.cumsum(count[keep])])
        columns |= {name: getattr(self, name)[np.repeat(keep, count)] for name in _SPANS[1:]}
        return RequestBlock(**columns, waits=None if self.waits is None else self.waits.take(np.flatnonzero(keep)))

    def take(self, rows: NDArray[np.int64]) -> RequestBlock:
        """A new block of the rows in that order; arrivals need not be sorted any more."""
        count = np.diff(self.span_off)[rows]
        columns: dict[str, Values] = {name: getattr(self, name)[rows] for name in _DTYPES}
        off = columns["span_off"] = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        at = np.repeat(self.span_off[:-1][rows] - off[:-1], count) + np.arange(off[-1])
        columns |= {name: getattr(self, name)[at] for name in _SPANS[1:]}
        return RequestBlock(**columns, waits=None if self.waits is None else self.waits.take(rows))

    @property
    def columns(self) -> Columns:
        """Arrival, prompt, output, limit, priority, LoRA and output content, in the order an engine takes them."""
        return (
            self.arrival_s,
            self.prompt_tokens,
            self.output_tokens,
            self.max_tokens,
            self.priority,
            self.lora,
            self.out_content,
        )

    @property
    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Offsets, content ids, starts and lengths, in the order an engine takes them."""
        return self.span_off, self.span_id, self.span_start, self.span_len

    def with_prompts(self, prompt_tokens: ArrayLike, spans: GivenSpans) -> RequestBlock:
        """The same requests with other prompts; ``spans`` as `of` takes them."""
        return RequestBlock.of(
            self.arrival_s,
            prompt_tokens,
            self.output_tokens,
            max_tokens=self.max_tokens,
            priority=self.priority,
            session=self.session,
            lora=self.lora,
            klass=self.klass,
            tenant=self.tenant,
            out_content=self.out_content,
            spans=spans,
            waits=self.waits,
        )

    def limited(self, max_tokens: int | None) -> RequestBlock:
        """The same requests under a client limit of ``max_tokens``, where longer outputs end. None: unchanged."""
        if max_tokens is None:
            return self
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        changed["output_tokens"] = np.minimum(self.output_tokens, np.int32(max_tokens))
        changed["max_tokens"] = np.full(len(self), max_tokens, np.int32)
        return RequestBlock(**changed)

    def validate(self, source: str = "requests") -> RequestBlock:
        """Itself, when every promise above holds. Raises `DataError` naming the first row that breaks one."""
        n = len(self)
        for name, dtype in (*_DTYPES.items(), *((s, np.int64) for s in _SPANS)):
            column = getattr(self, name)
            want = n if name in _DTYPES else n + 1 if name == "span_off" else len(self.span_id)
            if column.shape != (want,) or column.dtype != dtype:
                raise DataError(
                    source, f"column {name!r} must be {np.dtype(dtype)}[{want}], is {column.dtype}{list(column.shape)}"
                )
        a = self.arrival_s
        _refuse(source, "arrival_s", a, ~(np.isfinite(a) & (a >= 0)), "must be a finite time of at least 0")
        _refuse(source, "arrival_s", a, np.concatenate([np.zeros(min(n, 1), bool), np.diff(a) < 0]), "must not run backwards")
        for name in ("prompt_tokens", "output_tokens"):
            x = getattr(self, name)
            _refuse(source, name, x, (x < 1) | (x > MAX_TOKENS), f"must be in [1, {MAX_TOKENS}]")
        _refuse(source, "max_tokens", self.max_tokens, self.max_tokens < self.output_tokens, "must be at least output_tokens")
        _refuse(source, "lora", self.lora, self.lora < 0, "must be at least 0")
        self._validate_spans(source)
        return self

    def _validate_spans(self, source: str) -> None:
        off, ids, start, length = self.spans
        per_row = np.diff(off)
        if off[0] != 0 or off[-1] != len(ids) or (per_row < 0).any():
            raise DataError(source, "column 'span_off' must rise from 0 to the number of spans")
        row = np.repeat(np.arange(len(self)), per_row)
        _refuse(source, "span_len", length, length < 1, "must be at least 1", row)
        _refuse(source, "span_start", start, start < 0, "must be at least 0", row)
        _refuse(source, "span_id", ids, ids < 0, "must be at least 0", row)
        total = np.zeros(len(self), np.int64)
        np.add.at(total, row, length)
        wrong = (per_row > 0) & (total != self.prompt_tokens)
        _refuse(source, "span_len", total, wrong, "spans must add up to prompt_tokens")
        joins = (row[1:] == row[:-1]) & (ids[1:] == ids[:-1]) & (start[1:] == start[:-1] + length[:-1])
        _refuse(source, "span_id", ids[1:], joins, "adjacent spans that continue each other must be merged", row[1:])


def _refuse(source: str, column: str, x: Values, bad: NDArray[np.bool_], rule: str, row: NDArray[np.int64] | None = None) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        raise DataError(source, f"row {i if row is None else row[i]}, column {column!r}: {rule} (got {x[i].item()!r})")


def reblock(blocks: Iterable[RequestBlock], rows: int) -> Iterator[RequestBlock]:
    """The same requests in blocks of ``rows``, fewer at the end and where prompts have very many spans."""
    held: list[RequestBlock] = []
    count = spans = 0
    for block in blocks:
        if not held and len(block) == rows:
            yield block
            continue
        held.append(block)
        count, spans = count + len(block), spans + len(block.span_id)
        if count < rows and spans < MOST_SPANS:
            continue
        whole = RequestBlock.concat(held)
        cut = count - count % rows if spans < MOST_SPANS else count
        yield from (whole[lo : min(lo + rows, cut)] for lo in range(0, cut, rows))
        held, count = ([whole[cut:]], count - cut) if cut < count else ([], 0)
        spans = sum(len(b.span_id) for b in held)
    if count:
        yield RequestBlock.concat(held)
