"""``vllm bench serve``: one JSON object a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import numpy as np

from sim.document import Json
from sim.errors import DataError
from sim.ledger import Values as Array
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys, numbers
from sim.study.bench._run import Requests, Run, of_aggregates, of_requests, refusal, same_length
from sim.study.bench._sent import Sent

_NAMES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
_STATISTICS = {"mean": "mean", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
_LISTS = ("input_lens", "output_lens", "ttfts", "itls")


@register("bench")
class VllmBench(Bench):
    """``vllm bench serve --save-result``, with or without ``--save-detailed``, appended (``--append-result``), and folders of ``vllm bench sweep``.

    Lists are in seconds, aggregates in ms. A success without a token counts with a TTFT of 0, as the tool counts it. Files that keep the
    lists of lengths and drop those of times (InferenceX) are read as aggregates with these lengths. Source: vLLM, vllm/benchmarks/serve.py.
    """

    name = "vllm-bench"
    title = "vllm bench serve JSON"
    beside = ("*.pytorch.json", "summary.json", "summary.csv")

    def fits(self, document: Document) -> bool:
        """By its own key names."""
        head = document.first
        if "num_prompts" in head and ("request_throughput" in head or "mean_ttft_ms" in head or "input_lens" in head):
            return True
        return (
            all(k in head for k in _LISTS) or ("elapsed_time" in head and "requests_per_second" in head) or "avg_latency" in head
        )

    def runs(self, document: Document) -> Iterator[Run]:
        """One run an object."""
        several = document.kind == "jsonl" or isinstance(document.value, list)
        for number, record in enumerate(document.records, 1):
            inside = f"[{number}]" if several else ""
            yield _run(Keys(document.path, record, inside), document.path.name + inside)


def _run(keys: Keys, name: str) -> Run:
    said = _said(keys)
    if "elapsed_time" in keys or "avg_latency" in keys:
        what = "latency" if "avg_latency" in keys else "throughput"
        return refusal(
            "vllm-bench",
            name,
            f"is of `vllm bench {what}`, which serves no requests and gives no TTFT; needs `vllm bench serve`",
            said,
        )
    if "mean_e2el_ms" in keys and "total_input_sequences" in keys:
        return refusal("vllm-bench", name, "is of an embedding model, which is not modelled", said)
    sent = _sent(keys)
    if all(isinstance(keys.raw(k), list) for k in _LISTS):
        return _detailed(keys, name, sent, said)
    lengths = _LISTS[:2]
    if all(isinstance(keys.raw(k), list) for k in lengths) and not any(k in keys for k in _LISTS[2:]) and keys.raw("completed"):
        return _aggregate(keys, name, sent, said)
    missing = [k for k in _LISTS if k in keys]
    if missing:
        for key in _LISTS:
            if not isinstance(keys.needed(key), list):
                raise DataError(str(keys.path), f"key {key!r}: must be a list (got {keys.raw(key)!r:.60})")
    return _aggregate(keys, name, sent, said)


def _said(keys: Keys) -> dict[str, Json]:
    return {k: v for k, v in (("model", keys.text("model_id")), ("client", keys.text("backend"))) if v}


def _sent(keys: Keys) -> Sent:
    starts = keys.raw("start_times")
    ramp = None
    if keys.text("ramp_up_strategy"):
        first, last = keys.number("ramp_up_start_rps"), keys.number("ramp_up_end_rps")
        if first and last:
            ramp = (str(keys.text("ramp_up_strategy")), first, last)
    return Sent(
        start=keys.column("start_times", low=None) if starts else None,
        rate=keys.rate("request_rate"),
        concurrency=keys.count("max_concurrency"),
        burstiness=keys.number("burstiness", low=1e-6, default=1.0) or 1.0,
        ramp=ramp,
    )


def _detailed(keys: Keys, name: str, sent: Sent, said: Mapping[str, Json]) -> Run:
    prompt, output = keys.column("input_lens"), keys.column("output_lens")
    ttft = keys.column("ttfts")
    lists = keys.raw("itls")
    parallel = {"input_lens": prompt, "output_lens": output, "ttfts": ttft, "itls": lists}
    parallel |= {k: keys.raw(k) for k in ("errors", "latencies", "start_times") if keys.raw(k)}
    same_length(str(keys.path), **parallel)
    errors = texts(keys, "errors", len(ttft))
    gaps = gap_lists(keys, lists)
    ok = np.array([not e for e in errors])
    summed = ttft + np.array([g.sum() for g in gaps])
    e2e = keys.column("latencies") if keys.raw("latencies") else np.where(output >= 1, summed, np.nan)
    flat = [g for g, good in zip(gaps, ok, strict=True) if good and g.size]
    requests = Requests(prompt, output, ttft, e2e, ok, np.concatenate(flat) if flat else None, zero_ttft=True, errors=errors)
    notes = []
    if sent.rate is None and not sent.concurrency and sent.start is None:
        sent, notes = Sent(rate=math.inf), ["the file has no request_rate: all requests sent at once, the tool's default"]
    return of_requests("vllm-bench", name, requests, sent, said=said, notes=notes, told=_throughput(keys))


def texts(keys: Keys, name: str, n: int) -> list[str]:
    """A list of texts, or ``n`` empty ones where there is none."""
    found = keys.raw(name) or [""] * n
    if not isinstance(found, list) or len(found) != n:
        raise DataError(str(keys.path), f"key {name!r}: must be a list of {n} texts (got {found!r:.60})")
    return [str(e or "") for e in found]


def gap_lists(keys: Keys, lists: Sequence[Json]) -> list[Array]:
    """The lists of gaps of every request, checked."""
    return [_gaps(keys, i, x) for i, x in enumerate(lists)]


def _gaps(keys: Keys, i: int, value: object) -> Array:
    def fail(j: int, rule: str, v: object) -> NoReturn:
        raise DataError(str(keys.path), f"key 'itls[{i}][{j}]': {rule} (got {v!r:.60})")

    if not isinstance(value, list):
        raise DataError(str(keys.path), f"key 'itls[{i}]': must be a list (got {value!r:.60})")
    return numbers(value, fail)


def _throughput(keys: Keys) -> dict[str, float]:
    told = {"requests_per_s": keys.number("request_throughput"), "output_tokens_per_s": keys.number("output_throughput")}
    return {k: v for k, v in told.items() if v}


def figures(keys: Keys, names: Mapping[str, str] = _NAMES, unit: float = 1e-3, ending: str = "_ms") -> dict[str, float]:
    """Aggregates ``mean_ttft_ms, p99_itl_ms …`` by our names, in s; a figure of 0 was not measured."""
    found = {}
    for theirs, ours in names.items():
        for prefix, statistic in _STATISTICS.items():
            value = keys.number(f"{prefix}_{theirs}{ending}")
            if value:
                found[f"{ours}.{statistic}"] = value * unit
    return found


def _aggregate(keys: Keys, name: str, sent: Sent, said: Mapping[str, Json]) -> Run:
    done = keys.count("completed")
    if done is None:
        keys.needed("completed")
    total_in, total_out = keys.number("total_input_tokens"), keys.number("total_output_tokens")
    asked = keys.count("num_prompts") or done or 0
    failed = keys.count("failed") if "failed" in keys else max(asked - (done or 0), 0)
    if not done or not total_out:
        return refusal(
            "vllm-bench",
            name,
            f"no request was served: completed {done}, total_output_tokens {total_out}; that is no operating point",
            said,
        )
    if total_in is None:
        return refusal("vllm-bench", name, "does not say how long prompts were: key 'total_input_tokens' is missing", said)
    prompt: float | Array = total_in / done
    output: float | Array = total_out / done
    if isinstance(keys.raw("input_lens"), list):
        prompt, output = _served_lengths(keys, done, total_in, total_out)
    return of_aggregates(
        "vllm-bench", name, requests=done, prompt=prompt, output=output, measured=figures(keys) | _throughput(keys), sent=sent, said=said,
        failed=failed or 0,
    )  # fmt: skip


def _served_lengths(keys: Keys, done: int, total_in: float, total_out: float) -> tuple[float | Array, float | Array]:
    """Lengths of the served requests where they are certain: all were, and the lists have the sums that the file states; else means."""
    prompt, output = keys.column("input_lens"), keys.column("output_lens")
    same_length(str(keys.path), input_lens=prompt, output_lens=output)
    whole = len(prompt) == done and prompt.sum() == total_in and output.sum() == total_out
    if whole and (prompt >= 1).all() and (output >= 1).all():
        return prompt, output
    return total_in / done, total_out / done
