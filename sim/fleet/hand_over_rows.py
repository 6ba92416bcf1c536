"""Rows of requests that were handed over: one for each, from what the sides have recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.ledger import FAILED, FINISHED, IN_FLIGHT, RETURNED
from sim.ledger import Values as Array

if TYPE_CHECKING:
    from sim.fleet.build import Plan

Columns = dict[str, Array]


class HandOverRows:
    """``speaks``: the side whose first token the client sees first (``prefill`` or ``decode``). Engines' rows are by rank."""

    def __init__(self, plans: Sequence[Plan], speaks: str) -> None:
        self._is_decode = np.array([p.role == "decode" for p in plans for _ in range(p.replicas * p.rank_count)])
        self._speaks = speaks
        self.ended_on_p: list[int] = []
        """Requests of one token: P has it."""
        self.failed_on_p: list[int] = []
        """Requests that found no decode replica."""
        self.left_on_p: list[int] = []
        """Requests whose clients had gone when P had computed them."""
        self.lost: list[int] = []
        """Requests whose KV was on its way, or to come, when the prefill replica died."""
        self.alone = 0
        """Requests whose prompts the decode side computed itself, as their router had it."""
        self.returned = 0
        """Times that a decode replica gave a request back."""

    def totals(self) -> dict[str, float]:
        """Figures for the summary."""
        alone = {"fleet_decode_only": float(self.alone)} if self.alone else {}
        return {"fleet_returned": float(self.returned), "fleet_no_decode": float(len(self.failed_on_p))} | alone

    def notes(self) -> list[str]:
        """The same in sentences."""
        out = []
        if self.returned:
            out.append(f"{self.returned:,} requests lost their memory on a decode replica and were prefilled again")
        if self.alone:
            out.append(f"{self.alone:,} requests were not handed over: the decode side computed their prompts itself")
        if self.failed_on_p:
            out.append(f"{len(self.failed_on_p):,} requests found no decode replica after their prefill and failed")
        return out

    def ended(self, rows: Columns) -> int:
        """How many of the rows are the last of their request."""
        decode = self._decodes(rows["replica"])
        status = rows["status"]
        return int(np.count_nonzero(np.where(decode, status != RETURNED, status != FINISHED)))

    def _decodes(self, replica: Array) -> Array:
        found: Array = self._is_decode[replica] & (replica >= 0)
        return found

    def join(self, rows: Columns, times: Sequence[object]) -> Columns:
        """One row per request that reached a replica: what P and D say of it, and the times between them (`sim.metrics.hand_over`).

        ``times``: request, when D had memory, when its KV was there.
        """
        numbers, ids = np.unique(rows["id"], return_inverse=True)  # attempts of clients have numbers of their own
        n = len(numbers)
        rows = rows | {"id": ids}
        decode = self._decodes(rows["replica"])
        order = np.lexsort((rows["arrival_s"], ids))
        p_rows, d_rows = (
            order[~decode[order]],
            order[decode[order]],
        )  # in order of time within a request: the last assignment stays
        out = {name: np.zeros(n, a.dtype) for name, a in rows.items()}
        nan = np.full(n, np.nan)
        out["id"] = numbers.astype(np.int64)
        for name in ("arrival_s", "taken_s", "first_scheduled_s"):
            values = nan.copy()
            np.fmin.at(values, ids, rows[name])
            out[name] = values
        firsts = order[::-1]
        out["prompt_tokens"][ids[firsts]] = rows["prompt_tokens"][firsts]
        earliest_p = p_rows[::-1]
        out["cached_tokens"][ids[earliest_p]] = rows["cached_tokens"][earliest_p]
        np.add.at(out["preemptions"], ids, rows["preemptions"])
        # tokens, and the first of them
        np.add.at(out["output_tokens"], ids[d_rows], rows["output_tokens"][d_rows])
        first_token = nan.copy()
        speaks = order if self._speaks == "prefill" else d_rows
        np.fmin.at(first_token, ids[speaks], rows["first_token_s"][speaks])
        out["first_token_s"] = first_token
        # where it ended, or is
        last_p, last_d = np.full(n, -1), np.full(n, -1)
        last_p[ids[p_rows]] = p_rows
        last_d[ids[d_rows]] = d_rows
        alone = np.flatnonzero((last_p < 0) & (last_d >= 0))
        out["cached_tokens"][alone] = rows["cached_tokens"][last_d[alone]]
        at_p = last_d < 0
        at_p[~at_p] = rows["status"][last_d[~at_p]] == RETURNED
        refused = (last_p >= 0) & (rows["status"][last_p] != FINISHED) & (rows["status"][last_p] != IN_FLIGHT)
        last = np.where(at_p | refused, last_p, last_d)
        for name in ("replica", "finish_s", "status"):
            out[name] = rows[name][last].copy()
        computed = at_p & (out["status"] == FINISHED)  # on its way from P to D, unless it ended there
        final = np.zeros(n, bool)
        failed = np.searchsorted(numbers, self.failed_on_p + self.left_on_p)
        final[np.searchsorted(numbers, self.ended_on_p)] = True
        final[failed] = True
        out["status"][failed] = FAILED
        if self._speaks == "prefill":
            out["output_tokens"][computed] += 1
        between = computed & ~final
        out["status"][between] = IN_FLIGHT
        out["finish_s"][between] = np.nan
        out["prefill_replica"] = np.where(last_p >= 0, rows["replica"][last_p], -1).astype(np.int32)
        known = [np.searchsorted(numbers, np.array(times[0])), *times[1:]]
        return out | self._stage_times(rows, n, p_rows, d_rows, known, np.searchsorted(numbers, self.lost))

    def _stage_times(self, rows: Columns, n: int, p_rows: Array, d_rows: Array, times: Sequence[object], lost: Array) -> Columns:
        """Of the latest try of each request; NaN where it did not happen, as of those whose KV was ``lost``."""
        ids = rows["id"]
        found = {name: np.full(n, np.nan) for name in ("prefill_end_s", "kv_allocated_s", "kv_arrived_s", "decode_start_s")}
        ended = p_rows[rows["status"][p_rows] == FINISHED]
        found["prefill_end_s"][ids[ended]] = rows["finish_s"][ended]
        found["decode_start_s"][ids[d_rows]] = rows["first_scheduled_s"][d_rows]
        number = np.array(times[0]).astype(np.int64)
        for name, column in zip(("kv_allocated_s", "kv_arrived_s"), times[1:], strict=True):
            values = np.array(column)
            known = ~np.isnan(values)
            found[name][number[known]] = values[known]
        found["kv_arrived_s"][lost] = np.nan
        # MindIE counts a request as scheduled when it has memory
        found["decode_start_s"] = np.fmax(found["decode_start_s"], found["kv_arrived_s"])
        return found
