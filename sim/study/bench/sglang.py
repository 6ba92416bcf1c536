"""``sglang.bench_serving``: JSON lines, one object a run, appended to ``{backend}_{date}_….jsonl``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Requests, Run, of_aggregates, of_requests, refusal, same_length
from sim.study.bench._sent import Sent
from sim.study.bench.vllm import figures, gap_lists, texts

if TYPE_CHECKING:
    from sim.document import Json

Lengths = float | tuple[int, int]
"""A mean, or the ends of a range."""
_NAMES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2e_latency": "e2e_s"}


@register("bench")
class SglangBench(Bench):
    """``python -m sglang.bench_serving``: aggregates, and with ``--output-details`` the lists of every request.

    ``median_itl_ms`` and its kin are of gaps between chunks. Source: SGLang, python/sglang/bench_serving.py.
    """

    name = "sglang-bench"
    title = "sglang.bench_serving JSONL"

    def fits(self, document: Document) -> bool:
        """By keys that only this tool writes."""
        head = document.first
        return (
            any(k in head for k in ("total_output_tokens_retokenized", "random_input_len", "sharegpt_output_len"))
            and "backend" in head
        )

    def runs(self, document: Document) -> Iterator[Run]:
        """One run a line."""
        several = len(document.records) > 1
        for number, record in enumerate(document.records, 1):
            inside = f"[{number}]" if several else ""
            yield _run(Keys(document.path, record, inside), document.path.name + inside)


def _run(keys: Keys, name: str) -> Run:
    said: dict[str, Json] = {k: v for k, v in (("engine", keys.text("backend")), ("model", keys.text("model_id"))) if v}
    info = keys.raw("server_info")
    if isinstance(info, Mapping):
        said |= {k: info[k] for k in ("model_path", "version", "tp_size") if info.get(k)}
    sent = Sent(rate=keys.rate("request_rate"), concurrency=keys.count("max_concurrency"))
    if sent.rate is None and not sent.concurrency:
        sent = Sent(rate=math.inf)
    if isinstance(keys.raw("ttfts"), list) and isinstance(keys.raw("input_lens"), list) and keys.raw("ttfts"):
        return _detailed(keys, name, sent, said)
    done, total_in, total_out = keys.count("completed"), keys.number("total_input_tokens"), keys.number("total_output_tokens")
    if done is None:
        keys.needed("completed")
    if not done or not total_out:
        return refusal(
            "sglang-bench",
            name,
            f"no request was served: completed {done}, total_output_tokens {total_out}; that is no operating point",
            said,
        )
    if not total_in:
        return refusal("sglang-bench", name, "does not say how long prompts were: key 'total_input_tokens' is missing", said)
    prompt, output, notes = _lengths(keys, total_in / done, total_out / done)
    # until 0.4 the names had no unit; they were ms all the same
    measured = figures(keys, _NAMES, ending="") | figures(keys, _NAMES) | {k: v for k, v in _throughput(keys).items() if v}
    return of_aggregates(
        "sglang-bench", name, requests=done, prompt=prompt, output=output, measured=measured, sent=sent, said=said, notes=notes
    )


def _throughput(keys: Keys) -> dict[str, float]:
    done, duration = keys.number("completed"), keys.number("duration")
    told = {
        "requests_per_s": keys.number("request_throughput") or (done / duration if done and duration else None),
        "output_tokens_per_s": keys.number("output_throughput"),
        "input_tokens_per_s": keys.number("input_throughput"),
    }
    return {k: v for k, v in told.items() if v}


def _lengths(keys: Keys, prompt: float, output: float) -> tuple[Lengths, Lengths, list[str]]:
    """With the data set ``random`` lengths are uniform between ``ratio·len`` and ``len``: drawn so when their mean agrees with the totals."""
    found: list[Lengths] = []
    ratio = keys.number("random_range_ratio", default=0.0) or 0.0
    for mean, key in ((prompt, "random_input_len"), (output, "random_output_len")):
        most = keys.count(key)
        low = max(1, int((most or 0) * ratio))
        if keys.text("dataset_name") == "random" and most and ratio < 1 and abs((low + most) / 2 / mean - 1) < 0.15:
            found.append((low, most))
        else:
            found.append(mean)
    return found[0], found[1], []


def _detailed(keys: Keys, name: str, sent: Sent, said: Mapping[str, Json]) -> Run:
    prompt, output, ttft = keys.column("input_lens"), keys.column("output_lens"), keys.column("ttfts")
    lists = keys.needed("itls")
    same_length(str(keys.path), input_lens=prompt, output_lens=output, ttfts=ttft, itls=lists)
    errors = texts(keys, "errors", len(ttft))
    gaps = gap_lists(keys, lists)
    ok = np.array([not e for e in errors])
    e2e = np.where(output >= 1, ttft + np.array([g.sum() for g in gaps]), np.nan)
    flat = [g for g, good in zip(gaps, ok, strict=True) if good and g.size]
    requests = Requests(prompt, output, ttft, e2e, ok, np.concatenate(flat) if flat else None, zero_ttft=True, errors=errors)
    return of_requests("sglang-bench", name, requests, sent, said=said, told=_throughput(keys))
