# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Rows and columns made from their declaration: the functions that fill, widen, write and move them are generated, so that none is forgotten.

A column of requests in flight is declared once, in `SlotColumns` (or in a class of a scheduler's own); one of the recorder's rows once, in
`sim.ledger.COLUMNS`.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from sim.jit import f8s, i4s, i8s, inline
from sim.ledger import COLUMNS

_TYPES: Final = {"f8": (f8s, "np.float64"), "i8": (i8s, "np.int64"), "i4": (i4s, "np.int32")}


@inline
def grown(a, n):
    """A copy of a one-dimensional column with room for ``n`` rows; the new ones are zero."""
    out = np.empty(n, a.dtype)
    for i in range(a.size):
        out[i] = a[i]
    for i in range(a.size, n):
        out[i] = 0
    return out


@inline
def without(a, n, x):
    """Take ``x`` out of the first ``n`` entries of ``a``, which keep their order; returns how many are left."""
    left = 0
    for i in range(n):
        if a[i] != x:
            a[left] = a[i]
            left += 1
    return left


@inline
def without_pair(a, b, n, x):
    """The same, with the entries of ``b`` that go with them."""
    left = 0
    for i in range(n):
        if a[i] != x:
            a[left] = a[i]
            b[left] = b[i]
            left += 1
    return left


def _made(name: str, arguments: str, lines: list[str], **more: Any) -> Callable[..., Any]:
    scope: dict[str, Any] = {"np": np, "grown": grown} | more
    exec(f"def {name}({arguments}):\n" + "\n".join(f"    {line}" for line in lines), scope)
    return inline(scope[name])


def columns_of(cls: type) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``fill(s, n)`` (zeros) and ``widen(s, n)`` for the columns that the class declares: arrays with one entry per slot."""
    kinds = {types: dtype for types, dtype in _TYPES.values()}
    names = cls.__annotations__
    fill = [f"s.{name} = np.zeros(n, {kinds[kind]})" for name, kind in names.items()]
    return _made("fill", "s, n", fill), _made("widen", "s, n", [f"s.{name} = grown(s.{name}, n)" for name in names])


class SlotColumns:
    """Columns of requests in flight that every engine has."""

    r_id: i8s
    r_sent: f8s  # when the client sent it
    r_arrival: f8s  # when the engine gets it
    r_taken: f8s  # when its scheduler sees it first: between two steps
    r_prompt: i4s
    r_output: i4s  # tokens the model will really generate (an EOS comes then if output < max)
    r_max: i4s  # the client's limit
    r_priority: i4s
    r_lora: i4s
    r_watch: i4s
    r_out_content: i8s  # content id of the generated tokens
    r_span: i8s  # first span in the span pool
    r_spans: i4s  # how many (0: unique content)
    r_done: i4s  # tokens delivered so far
    r_first_scheduled: f8s
    r_first_token: f8s
    r_last_token: f8s
    r_cached: i4s
    r_preempt: i4s


fill_slots, widen_slots = columns_of(SlotColumns)


class RowColumns:
    """Columns of the recorder's rows: `sim.ledger.COLUMNS`."""

    __annotations__ = {c.field: _TYPES[c.dtype][0] for c in COLUMNS}


fill_rows, widen_rows = columns_of(RowColumns)

_TOLD: Final = {"replica": "s.replica", "finish": "t", "status": "status"}
write_row = _made(
    "write_row",
    "r, n, s, slot, t, status",
    [f"r.{c.field}[n] = " + (f"s.{c.slot}[slot]" if c.slot else _TOLD[c.field]) for c in COLUMNS],
)
"""Row ``n`` of the recorder ``r``: of a request that leaves the engine ``s`` at ``t``."""
rows_of = _made("rows_of", "r", [f"return ({', '.join(f'r.{c.field}' for c in COLUMNS)},)"])
"""The columns of the recorder, in the order of `COLUMNS`."""
new_rows = _made("new_rows", "n", [f"return ({', '.join(f'np.empty(n, {_TYPES[c.dtype][1]})' for c in COLUMNS)},)"])
"""Columns of ``n`` rows outside a recorder."""
copy_row = _made(
    "copy_row",
    "rows, n, s, slot, t, status",
    [f"rows[{i}][n] = " + (f"s.{c.slot}[slot]" if c.slot else _TOLD[c.field]) for i, c in enumerate(COLUMNS)],
)
"""As `write_row`, into `new_rows`."""


_STAYS: Final = ("r_arrival", "r_span", "r_spans")  # of this engine only
_TRAVELS: Final = tuple(name for name in SlotColumns.__annotations__ if name not in _STAYS)
Passenger: Any = NamedTuple("Passenger", [(n, float if SlotColumns.__annotations__[n] == f8s else int) for n in _TRAVELS])
Passenger.__module__ = __name__
Passenger.__doc__ = "What a request takes along from one engine to another: its columns, by name."

take_passenger = _made(
    "take_passenger", "s, slot", [f"return Passenger({', '.join(f's.{n}[slot]' for n in _TRAVELS)})"], Passenger=Passenger
)
"""The columns of a request."""
put_passenger = _made("put_passenger", "s, slot, p", [f"s.{n}[slot] = p.{n}" for n in _TRAVELS])
"""Into another engine."""
