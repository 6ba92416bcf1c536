"""A table of requests with times, as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import numpy as np

from sim.errors import DataError, did_you_mean
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, numbers
from sim.study.bench._run import Requests, Run, of_requests, refusal
from sim.study.bench._sent import Sent

COLUMNS = {
    "arrival_s": ("arrival_s", "arrival_time_s", "start_s", "start_time_s", "send_time_s"),
    "prompt_tokens": ("prompt_tokens", "input_tokens", "input_length", "input_len"),
    "output_tokens": ("output_tokens", "output_length", "output_len", "generated_tokens"),
    "ttft_s": ("ttft_s", "time_to_first_token_s", "ttft"),
    "e2e_s": ("e2e_s", "latency_s", "end_to_end_latency_s", "e2e_latency_s", "latency"),
}
_IDS = ("prompt_id", "prefix_id", "prefix_tokens")


@register("bench")
class Table(Bench):
    """One request a row: ``arrival_s, prompt_tokens, output_tokens`` and ``ttft_s, e2e_s`` (empty: it failed), in s; also under their other names.

    ``prompt_id, prefix_id, prefix_tokens`` say what prompts have in common. A result's own ``requests.csv`` is such a table.
    """

    name = "requests-csv"
    title = "CSV with arrival_s, prompt_tokens, output_tokens, ttft_s, e2e_s"

    def fits(self, document: Document) -> bool:
        """A CSV with a column of arrivals or of latencies."""
        times = {x for k in ("arrival_s", "ttft_s", "e2e_s") for x in COLUMNS[k]}
        return document.kind == "csv" and bool({n.strip() for n in document.value[0]} & times)

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        path, rows = document.path, document.table()
        header = list(rows[0]) if rows else []
        here = {ours: next((n for n in names if n in header), None) for ours, names in COLUMNS.items()}
        for ours in ("arrival_s", "prompt_tokens", "output_tokens"):
            if here[ours] is None:
                near = next((h for n in COLUMNS[ours] if (h := did_you_mean(n, header))), "")
                allowed = ", ".join(COLUMNS[ours])
                raise DataError(
                    str(path), f"column {ours!r} is missing; its columns: {', '.join(header)[:200]}; read are {allowed}", near
                )
        if here["ttft_s"] is None and here["e2e_s"] is None:
            raise DataError(str(path), f"has neither ttft_s nor e2e_s; its columns: {', '.join(header)[:200]}")

        def column(name: str, holes: bool = False, low: float | None = 0.0) -> np.ndarray:
            values = [_number(path, i, name, row[name], holes) for i, row in enumerate(rows, 2)]

            def fail(i: int, rule: str, value: object) -> NoReturn:
                raise DataError(str(path), f"line {i + 2}, column {name!r}: {rule} (got {value!r})")

            return numbers(values, fail, low, holes)

        nothing = np.full(len(rows), np.nan)
        ttft = column(here["ttft_s"], True) if here["ttft_s"] else nothing
        e2e = column(here["e2e_s"], True) if here["e2e_s"] else nothing
        arrival = column(str(here["arrival_s"]), low=None)
        prompt, output = column(str(here["prompt_tokens"])), column(str(here["output_tokens"]))
        ok = np.isfinite(ttft) | np.isfinite(e2e)
        if "status" in header:
            good = ("0", "ok", "success", "finished", "200")
            ok &= np.array([row["status"].strip().lower() in good for row in rows])
        requests = Requests(prompt, output, ttft, e2e, ok)
        order = np.argsort(arrival, kind="stable")
        run = of_requests(self.name, path.name, requests, Sent(start=arrival - arrival[order[0]]))
        ids = {name: column(name, True, None)[ok] for name in _IDS if name in header}
        if ids and not run.refused:
            extra = {k: np.where(np.isfinite(v), v, -1).astype(np.int64) for k, v in ids.items()}
            if "prompt_id" in extra:
                for name in _IDS[1:]:
                    extra.setdefault(name, np.full(int(ok.sum()), -1))
            run = Run(run.tool, run.name, {**run.columns, **extra}, run.traffic, run.measured, run.said, run.notes)
        yield run if run.measured or run.refused else refusal(self.name, path.name, "has no request with a time")


def _number(path: object, line: int, name: str, text: str, holes: bool) -> float | None:
    text = text.strip()
    if not text or text.lower() == "nan":
        if holes:
            return None
        raise DataError(str(path), f"line {line}, column {name!r}: has an empty cell")
    try:
        return float(text)
    except ValueError:
        raise DataError(str(path), f"line {line}, column {name!r}: must be a number (got {text!r})") from None
