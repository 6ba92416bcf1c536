"""genai-perf: ``profile_export.json``, the times of every response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sim.document import loads
from sim.ledger import Values as Array
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Requests, Run, of_figures, of_requests, refusal, statistics
from sim.study.bench._sent import Sent

_TOKENS = ("prompt_tokens", "completion_tokens")


@register("bench")
class GenAiPerfRaw(Bench):
    """``{"experiments": [{"experiment": {"mode", "value"}, "requests": [{"timestamp", "response_timestamps", "response_outputs"}]}]}``, in ns.

    Tokens are those that the server's own ``usage`` tells in the last response; where it tells none, the file gives latencies and lacks lengths.

    Source: triton-inference-server/client, perf_analyzer docs: profile export.
    """

    name = "genai-perf-raw"
    title = "genai-perf profile_export.json"
    beside = ("inputs.json",)

    def fits(self, document: Document) -> bool:
        """By its list of experiments."""
        found = document.first.get("experiments")
        return isinstance(found, list) and bool(found) and isinstance(found[0], Mapping) and "requests" in found[0]

    def runs(self, document: Document) -> Iterator[Run]:
        """One run an experiment."""
        found = document.first["experiments"]
        assert isinstance(found, list)  # or it would not fit
        for i, one in enumerate(found):
            keys = Keys(document.path, one, f"experiments[{i}]")
            yield self._run(keys, f"{document.path.name}[{i + 1}]" if len(found) > 1 else document.path.name)

    def _run(self, keys: Keys, name: str) -> Run:
        rows = keys.needed("requests")
        if not isinstance(rows, list):
            keys.fail("requests", "must be a list", rows)
        table, gaps = [], []
        for j, row in enumerate(rows):
            one = Keys(keys.path, row, f"{keys.inside}.requests[{j}]")
            at, times = one.number("timestamp"), one.column("response_timestamps") * 1e-9
            if at is None:
                one.needed("timestamp")
            start = (at or 0.0) * 1e-9
            served = len(times) > 0 and one.raw("success") is not False
            table.append(
                [
                    start,
                    *(times[[0, -1]] - start if served else (np.nan, np.nan)),
                    *(_usage(one.raw("response_outputs")) if served else (0, 0)),
                    served,
                ]
            )
            gaps.append(np.diff(times))
        a: Array = np.array(table, float).reshape(-1, 6)
        ok = a[:, 5] > 0
        if not ok.any():
            return refusal(self.name, name, f"no request was served: {len(a)} of {len(a)} failed; that is no operating point")
        mode = keys.sub("experiment")
        concurrency = mode.count("value", low=1) if mode.raw("mode") == "concurrency" else None
        if (a[ok, 3] < 1).any() or (a[ok, 4] < 1).any():
            span = float((a[ok, 0] + a[ok, 2]).max() - a[ok, 0].min())
            measured = statistics("ttft_s", a[ok, 1]) | statistics("e2e_s", a[ok, 2])
            measured |= {"requests_per_s": ok.sum() / span} if span > 0 else {}
            sent = f"{concurrency} in flight" if concurrency else "see experiment"
            lacks = ("how long prompts and answers were: no response has a usage", f"how requests were sent ({sent})")
            return of_figures(self.name, name, measured, lacks)
        requests = Requests(a[:, 3], a[:, 4], a[:, 1], a[:, 2], ok, np.concatenate(gaps) if gaps else None)
        return of_requests(self.name, name, requests, Sent(start=a[:, 0], concurrency=concurrency))


def _usage(outputs: object) -> tuple[int, int]:
    """Tokens of prompt and answer as the server tells them; 0 where it does not."""
    for output in reversed(outputs if isinstance(outputs, list) else []):
        text = str(output.get("response") or "") if isinstance(output, Mapping) else ""
        for part in reversed(text.split("data: ")):
            if '"usage"' not in part:
                continue
            try:
                usage = loads(part).get("usage")
            except (ValueError, AttributeError):
                continue
            if isinstance(usage, Mapping) and all(isinstance(usage.get(k), int) and 0 <= usage[k] < 1 << 40 for k in _TOKENS):
                return usage[_TOKENS[0]], usage[_TOKENS[1]]
    return 0, 0
