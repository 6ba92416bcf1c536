"""aiperf's ``profile_export.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from sim.ledger import IN_FLIGHT, REJECTED
from sim.registry import register
from sim.report.exports._base import Export

if TYPE_CHECKING:
    from sim.document import Json
    from sim.ledger import Values
    from sim.metrics.result import Result

_ERRORS = ("", "rejected", "failed", "in flight at the end")


@register("export")
class AiPerfRecords(Export):
    """One record a request: ``metadata`` with times in ns from the start of the simulation, ``metrics`` with units, ``error``.

    ``inter_token_latency`` is (E2E − TTFT) / (output − 1), as in aiperf. A request that the end of the run cut off was cancelled.
    """

    name = "aiperf"
    file = "profile_export.jsonl"

    def text(self, result: Result) -> Iterator[str]:
        """One JSON object a line."""
        c = result.columns
        talks, turns = _talks(c)
        for i in range(len(c["id"])):
            status = int(c["status"][i])
            start, end = float(c["arrival_s"][i]), float(c["finish_s"][i])
            about: dict[str, Json] = {
                "session_num": int(c["id"][i]), "x_request_id": f"request-{int(c['id'][i])}", "conversation_id": talks[i], "turn_index": turns[i],
                "request_start_ns": round(start * 1e9), "request_ack_ns": None, "request_end_ns": round(end * 1e9) if np.isfinite(end) else None,
                "worker_id": "servesim", "benchmark_phase": "profiling", "was_cancelled": status == IN_FLIGHT,
            }  # fmt: skip
            error = (
                {"code": 503 if status == REJECTED else 500, "type": "servesim", "message": _ERRORS[status]}
                if status in (1, 2)
                else None
            )
            yield json.dumps({"metadata": about, "metrics": _metrics(c, i), "error": error}, allow_nan=False) + "\n"


def _talks(c: Mapping[str, Values]) -> tuple[list[str | None], list[int]]:
    """The session of every request, and its place in it by arrival."""
    session = c["session"] if "session" in c else np.full(len(c["id"]), -1)
    turns = np.zeros(len(session), np.int64)
    order = np.lexsort((c["arrival_s"], session))
    begins = np.flatnonzero(np.diff(session[order], prepend=session[order][:1] - 1))
    turns[order] = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    return [f"session-{s}" if s >= 0 else None for s in session.tolist()], np.where(session >= 0, turns, 0).tolist()


def _metrics(c: Mapping[str, Values], i: int) -> dict[str, Json]:
    out: dict[str, Json] = {"input_sequence_length": {"value": int(c["prompt_tokens"][i]), "unit": "tokens"}}
    if int(c["output_tokens"][i]):
        out["output_sequence_length"] = {"value": int(c["output_tokens"][i]), "unit": "tokens"}
    for name, key in (("time_to_first_token", "ttft_s"), ("inter_token_latency", "tpot_s"), ("request_latency", "e2e_s")):
        value = float(c[key][i])
        if np.isfinite(value):
            out[name] = {"value": 1e3 * value, "unit": "ms"}
    gap = 1e3 * float(c["tpot_s"][i])
    if np.isfinite(gap) and gap > 0:
        out["output_token_throughput_per_user"] = {"value": 1e3 / gap, "unit": "tokens/sec/user"}
    return out
