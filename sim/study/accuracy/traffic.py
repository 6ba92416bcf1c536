"""Traffic of an operating point: traces, closed loops, stages of a rate, bursts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sim.errors import DataError
from sim.ledger import Values
from sim.streams import stream
from sim.study.accuracy.earlier import in_turn
from sim.study.accuracy.lengths import draw
from sim.study.accuracy.point import Point, Told
from sim.study.accuracy.talks import conversations
from sim.workload import content
from sim.workload.base import Traffic
from sim.workload.closed_loop import ClosedLoop
from sim.workload.recorded import RecordedTraffic
from sim.workload.table import RequestBlock
from sim.workload.traces._columns import csv_pieces, maybe, numbers

# Seconds between the requests of a burst. TGI's batching task is woken by the first and computes it alone (router `infer`, `batching_task`); API servers
# of one event loop gather a burst in a round, whatever its requests are apart.
_SENDING = {"tgi": 50e-6}
_PREFIX_GROUPS = 10  # prompts of a ``unique_prompts`` run fall into so many groups with a common prefix


def traffic_of(point: Point, seed: int = 0) -> Traffic:
    """The requests of a point.

    Warm-up requests are left out: they leave nothing behind that matters. Raises `DataError`.
    """
    t = point.traffic
    kind = t["kind"]
    if kind == "trace":
        return RecordedTraffic(_recorded(point))
    if kind == "closed_loop":
        n, rate = int(t.get("num_requests") or 0), t.get("max_rate")  # rate: drawn as the tools do that have one
        at = np.cumsum(stream(seed, "accuracy.arrivals").exponential(1.0 / rate, n)) if rate else np.zeros(n)
        block = _recorded(point) if point.columns is not None else _drawn(t, at, seed)
        made = RecordedTraffic(block)
        return made.with_closed_loop(ClosedLoop(int(t["concurrency"]), 0.0, made, bool(rate or t.get("paced"))))
    if kind == "stages":
        return RecordedTraffic(_drawn(t, _stages(t, seed), seed))
    if kind == "burst":
        bursts = [_burst(point, run, seed) for run in (*point.earlier, t)]
        return RecordedTraffic(in_turn(bursts) if point.earlier else bursts[0])
    raise DataError(point.id, f"unknown kind of traffic {kind!r}", "trace, closed_loop, stages, burst, static_batch")


def _burst(point: Point, t: Told, seed: int) -> RequestBlock:
    return _drawn(t, np.arange(int(t["num_requests"])) * _SENDING.get(point.engine, 0.0), seed)


def stage_starts(traffic: Told) -> list[float]:
    """Seconds at which the stages begin, and the end of the last."""
    return [float(x) for x in np.cumsum([0.0, *(s["duration"] for s in traffic["stages"])])]


def _stages(t: Told, seed: int) -> Values:
    rng = stream(seed, "accuracy.arrivals")
    parts = []
    for start, stage in zip(stage_starts(t), t["stages"], strict=False):
        n = round(stage["rate"] * stage["duration"])
        if t.get("arrival") == "poisson":
            gaps = rng.exponential(1.0 / stage["rate"], n)
            at = np.cumsum(gaps) - gaps[0] if n else gaps
            parts.append(start + at[at < stage["duration"]])
        else:
            parts.append(start + np.arange(n) / stage["rate"])
    arrivals = np.concatenate(parts)
    return arrivals[: int(t["num_requests"])] if t.get("num_requests") else arrivals


def _drawn(t: Told, arrivals: Values, seed: int) -> RequestBlock:
    n = len(arrivals)
    prompt = draw(t["prompt_tokens"], n, stream(seed, "accuracy.prompts"), "prompt")
    output = draw(t["output_tokens"], n, stream(seed, "accuracy.outputs"), "output")
    unique, shared = t.get("unique_prompts"), t.get("prefix_tokens")
    if not unique and not shared:
        return RequestBlock.of(arrivals, prompt, output)
    number = np.arange(n) % int(unique or n)
    group = number % _PREFIX_GROUPS if unique else np.zeros(n, np.int64)
    prefix = np.minimum(int(shared or 0), prompt - 1)
    return RequestBlock.of(arrivals, prompt, output, spans=_spans(prompt, number, group, prefix))


def _spans(prompt: Values, number: Values, group: Values, prefix: Values) -> tuple[Values, Values, Values, Values]:
    """A shared prefix (where there is one), then the prompt's own text."""
    n = len(prompt)
    count = 1 + (prefix > 0)
    off = np.concatenate([[0], np.cumsum(count)])
    ids, start, length = (np.zeros(off[-1], np.int64) for _ in range(3))
    last = off[1:] - 1
    ids[last], length[last] = content.PROMPT + number, prompt - prefix
    first = off[:-1][prefix > 0]
    ids[first], length[first] = content.SHARED + np.asarray(group)[prefix > 0], prefix[prefix > 0]
    assert len(off) == n + 1
    return off, ids, start, length


def _recorded(point: Point) -> RequestBlock:
    columns = dict(point.columns) if point.columns is not None else read_requests(point.folder / str(point.traffic["file"]))
    if "talk" in columns:
        return conversations(columns, point.traffic["kind"] == "trace")
    order = np.argsort(columns["arrival_s"], kind="stable")
    columns = {k: np.asarray(v)[order] for k, v in columns.items()}
    prompt, output = columns["prompt_tokens"].astype(np.int64), np.maximum(columns["output_tokens"].astype(np.int64), 1)
    if "prompt_id" not in columns:
        return RequestBlock.of(columns["arrival_s"] - columns["arrival_s"][0], prompt, output)
    number = np.where(columns["prompt_id"] >= 0, columns["prompt_id"], (1 << 40) + np.arange(len(prompt)))
    prefix = np.where(columns["prefix_id"] >= 0, np.minimum(columns["prefix_tokens"], prompt - 1), 0)
    spans = _spans(prompt, number, columns["prefix_id"], np.maximum(prefix, 0))
    return RequestBlock.of(columns["arrival_s"], prompt, output, spans=spans)


def read_requests(file: Path) -> dict[str, Values]:
    """Columns of a per-request CSV (plain or gz): ``arrival_s, prompt_tokens, output_tokens`` and, where known, ``prompt_id, prefix_id,
    prefix_tokens`` (−1: unknown), ``ttft_s, e2e_s`` (NaN: unknown). Raises `DataError`.
    """
    wanted = {name: (name,) for name in ("arrival_s", "prompt_tokens", "output_tokens")}
    parts: list[dict[str, Values]] = []
    for piece in csv_pieces(file, wanted, {name: (name,) for name in _OPTIONAL}):
        found = {name: numbers(piece.source, piece[name], "must be a finite number") for name in wanted}
        parts.append(found | {name: maybe(piece.source, piece[name], none) for name, none in _OPTIONAL.items() if name in piece})
    rows = sum(len(part["arrival_s"]) for part in parts)
    out = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name in ("prompt_tokens", "output_tokens", "prompt_id", "prefix_id", "prefix_tokens"):
        if name in out:
            out[name] = out[name].astype(np.int64)
    if "prompt_id" in out:
        for name in ("prefix_id", "prefix_tokens"):
            out.setdefault(name, np.full(rows, -1))
    return out


_OPTIONAL = {"prompt_id": -1.0, "prefix_id": -1.0, "prefix_tokens": -1.0, "ttft_s": float("nan"), "e2e_s": float("nan")}
"""Columns that may be left out, and what an empty cell means."""
