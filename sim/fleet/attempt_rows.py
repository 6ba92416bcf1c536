"""Rows of attempts (`sim.fleet.attempts`) become one row per request: the outcome that its client saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.ledger import FINISHED, IN_FLIGHT, Values
from sim.metrics.clients import Waste

MORE: Final = 1 << 40
"""Numbers of attempts after the first begin here; a first attempt has the number of its request."""
_NAN: Final = (
    *("taken_s", "first_scheduled_s", "first_token_s", "finish_s"),
    *("prefill_end_s", "kv_allocated_s", "kv_arrived_s", "decode_start_s"),
)
_ZERO: Final = ("output_tokens", "cached_tokens", "preemptions")


class Folded(NamedTuple):
    """What became of a request whose row is not just that of its first attempt.

    ``time``: of the end, as the client sees it. ``leg``: number of the attempt that counts; −1: none. ``row``: replica, as rows count them.
    ``arrival``, ``prompt``: of the request; ``attempts``: how often it was sent, ``sent``: when the last time, or the one that was answered.
    ``carried``: tokens that came from replicas which died, ``kept``: the numbers under which it was there.
    """

    status: int
    time: float
    leg: int
    row: int
    arrival: float
    prompt: int
    attempts: int
    sent: float
    carried: int = 0
    kept: tuple[int, ...] = ()


def fold(rows: dict[str, Values], odd: Mapping[int, Folded]) -> tuple[dict[str, Values], Waste]:
    """One row for each request, and what was computed in vain. ``rows``: all that engines and stations have left, by number of attempts.

    A request that is not in ``odd`` has the row of its first attempt.
    """
    ids = rows["id"]
    numbers = np.array(sorted(odd), np.int64)
    plain = (ids < MORE) & ~np.isin(ids, numbers)
    outcomes = [odd[k] for k in numbers.tolist()]
    status = np.array([o.status for o in outcomes], np.int32)
    source, served = _rows_of(ids, np.array([o.leg for o in outcomes], np.int64))
    served &= (status == FINISHED) | (status == IN_FLIGHT)
    used = plain.copy()
    used[source[served]] = True
    made = {name: _taken(column, source, served, name) for name, column in rows.items()}
    made["id"], made["status"] = numbers, status
    alone = np.flatnonzero(~served)
    for name, values in (
        ("arrival_s", [o.arrival for o in outcomes]),
        ("prompt_tokens", [o.prompt for o in outcomes]),
        ("replica", [o.row for o in outcomes]),
        ("finish_s", [o.time for o in outcomes]),
    ):
        if alone.size:
            made[name][alone] = np.array(values, made[name].dtype)[alone]
    made["finish_s"][status == IN_FLIGHT] = np.nan
    for i, o in enumerate(outcomes):
        if o.kept and served[i]:
            _together(made, i, o, rows, used)
    out = {name: np.concatenate([column[plain], made[name]]) for name, column in rows.items()}
    once = int(np.count_nonzero(plain))
    out["attempts"] = np.concatenate([np.ones(once), [o.attempts for o in outcomes]]).astype(np.int32)
    out["sent_s"] = np.concatenate([rows["arrival_s"][plain], [o.sent for o in outcomes]]).astype(np.float64)
    return out, _waste(rows, ~used)


def _together(made: dict[str, Values], i: int, o: Folded, rows: dict[str, Values], used: NDArray[np.bool_]) -> None:
    """One row of the parts that a request left on its way from replica to replica."""
    parts = np.flatnonzero(np.isin(rows["id"], o.kept))
    used[parts] = True
    first = parts[np.argmin(rows["first_token_s"][parts])]
    for name in ("taken_s", "first_scheduled_s", "first_token_s"):
        made[name][i] = rows[name][first]
    made["prompt_tokens"][i] = o.prompt
    made["output_tokens"][i] += o.carried
    made["cached_tokens"][i] = rows["cached_tokens"][first]
    made["preemptions"][i] += rows["preemptions"][parts].sum()


def _rows_of(ids: Values, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of the wanted numbers is, and whether it is anywhere."""
    if not ids.size:
        return np.zeros(wanted.size, np.int64), np.zeros(wanted.size, bool)
    order = np.argsort(ids, kind="stable")
    found = order[np.minimum(np.searchsorted(ids[order], wanted), ids.size - 1)]
    return found, ids[found] == wanted


def _taken(column: Values, source: NDArray[np.int64], served: NDArray[np.bool_], name: str) -> Values:
    out = column[source].copy() if column.size else np.zeros(source.size, column.dtype)
    if name in _NAN:
        out[~served] = np.nan
    elif name in _ZERO:
        out[~served] = 0
    elif name == "prefill_replica":
        out[~served] = -1
    return out


def _waste(rows: dict[str, Values], lost: NDArray[np.bool_]) -> Waste:
    begun = lost & ~np.isnan(rows["first_scheduled_s"])
    gap = rows["finish_s"][lost] - rows["first_token_s"][lost]
    return Waste(
        attempts=int(begun.sum()),
        prompt_tokens=int((rows["prompt_tokens"][begun] - rows["cached_tokens"][begun]).sum()),
        output_tokens=int(rows["output_tokens"][lost].sum()),
        gap_s=float(np.nansum(np.maximum(gap, 0.0))),
    )
