"""LLMServingSim's measured runs: JSON lines with times taken inside vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Requests, Run, of_requests
from sim.study.bench._sent import Sent

_NAMES = ("arrival_time", "queued_ts", "first_token_ts", "last_token_ts", "input_toks", "output_toks")


@register("bench")
class LlmServingSimBench(Bench):
    """``{input_toks, output_toks, arrival_time, queued_ts, scheduled_ts, first_token_ts, last_token_ts}``, one a line; two clocks, both in s.

    Latencies count from ``queued_ts``, when the engine had the request: compared without what a client adds.
    """

    name = "llmservingsim"
    title = "LLMServingSim requests.jsonl"

    def fits(self, document: Document) -> bool:
        """By its names."""
        return {"queued_ts", "first_token_ts", "last_token_ts"} <= set(document.first)

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        rows = {k: np.full(len(document.records), np.nan) for k in _NAMES}
        for i, record in enumerate(document.records):
            keys = Keys(document.path, record, f"[{i + 1}]")
            for name in _NAMES:
                value = keys.number(name)
                if value is None and name in ("arrival_time", "queued_ts", "input_toks"):
                    keys.needed(name)
                rows[name][i] = np.nan if value is None else value
        ttft, e2e = rows["first_token_ts"] - rows["queued_ts"], rows["last_token_ts"] - rows["queued_ts"]
        ok = np.isfinite(e2e) & (e2e >= 0) & (ttft >= 0)
        requests = Requests(rows["input_toks"], np.nan_to_num(rows["output_toks"]), ttft, e2e, ok)
        yield replace(of_requests(self.name, document.path.name, requests, Sent(start=rows["arrival_time"])), inside=True)
