"""Replay of recorded rounds of the MindIE-LLM scheduler: time, mode, members, chunks, preempted requests, queues, free blocks.

A recording is a JSON-lines file of rounds beside its ``scenarios.json`` (settings and requests), or one JSON document whose scenarios hold
settings, requests and rounds; gzip or not.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.document import loads
from sim.errors import DataError
from sim.places import files_below
from sim.study.conformance.base import Case, Difference

if TYPE_CHECKING:
    from sim.document import Json
    from sim.engine.state import EngineState

Row = dict[str, Any]
SETTINGS = "scenarios.json"
DEFAULTS: Row = {
    "maxSeqLen": 2560, "maxPrefillTokens": 8192, "maxPrefillBatchSize": 50, "maxBatchSize": 200, "cacheBlockSize": 128, "cpuBlockNum": 0,
    "npuBlockNum": 1000, "maxPreemptCount": 0, "supportSelectBatch": 0, "stageSelectPolicy": 0, "prefillTimeMsPerReq": 150,
    "decodeTimeMsPerReq": 50, "maxQueueDelayMicroseconds": 5000, "maxFirstTokenWaitTime": 2500, "speculationGamma": 0,
    "enablePrefixCache": 0, "dynamicBatchSizeEnable": 0, "prefillExpectedTime": 1500, "decodeExpectedTime": 50, "enableChunkedPrefill": 0,
    "prefillChunkSize": 0, "maxNumPartialPrefills": 64, "longPrefillTokenThreshold": 1024, "maxLongPartialPrefills": 8,
    "maxIterTimes": 512, "max_iters": 60,
}  # fmt: skip
_OWN = ("cpuBlockNum", "npuBlockNum", "speculationGamma", "max_iters", "maxIterTimes")
_FLAGS = ("supportSelectBatch", "enablePrefixCache", "dynamicBatchSizeEnable", "enableChunkedPrefill")
_BASE = 20000.0  # µs of any batch
_LONGEST_RUN = 600_000_000  # µs
_MODES = ("", "PREFILL", "DECODE", "MIXED")


def recordings(folder: Path) -> list[Path]:
    """Recordings of a folder; the settings belong to one of them."""
    names = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
    return [p for p in files_below(folder) if p.name.endswith(names) and p.name not in (SETTINGS, SETTINGS + ".gz")]


def check(path: Path) -> Iterator[Case]:
    """Replay one recording file. Raises `DataError` for a file that is no such recording."""
    try:
        text = _read(path)
        if path.name.startswith(SETTINGS):
            return
        if ".jsonl" in path.name:
            yield from _lines(path, text)
        else:
            document = loads(text)
            defaults = DEFAULTS | document.get("defaults_when_not_overridden", {})
            for name, scenario in document["scenarios"].items():
                settings = defaults | scenario["config_overrides"]
                yield _case(name, settings, scenario["requests"], [_short(r) for r in scenario["rows"]])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(str(path), f"not a recording of MindIE: {type(error).__name__} {error}") from error


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(str(path), f"cannot be read: {error}") from error


def _lines(path: Path, text: str) -> Iterator[Case]:
    beside = [path.with_name(SETTINGS), path.with_name(SETTINGS + ".gz")]
    found = next((p for p in beside if p.is_file()), None)
    if found is None:
        raise DataError(str(path), f"its settings are missing: no {SETTINGS} beside it")
    document = loads(_read(found))
    defaults = DEFAULTS | document.get("defaults_when_not_overridden", {})
    rows: dict[str, list[Row]] = {}
    for line in text.splitlines():
        if line.strip():
            row = loads(line)
            rows.setdefault(row["scenario"], []).append(_long(row))
    if not rows:
        raise DataError(str(path), "holds no recording")
    for name, recorded in rows.items():
        scenario = document["scenarios"][name]
        yield _case(name, defaults | scenario["config_overrides"], scenario["requests"], recorded)


def _long(row: Row) -> Row:
    """A row of a JSON-lines recording, as far as it is compared."""
    before, after = row["before"], row["after"]
    out: Row = {"t": row["t_us"], "mode": row["mode"], "batch": row["batch"], "recomputed": row["recompute_preempted"]}
    out |= {"waiting": before["waiting"], "running": before["running"], "swapped": before["swapped"]}
    out |= {"free": before["free_npu_blocks"], "empties": row["empties_since_last"]}
    if "maxBatchSize" in before:
        out["limits"] = [before["maxBatchSize"], before["maxPrefillBatchSize"]]
    out["after"] = [after["waiting"], after["running"], after["swapped"], after["free_npu_blocks"]]
    swapped = [row["n_swap_out_blocks"], row["n_swap_in_blocks"]]
    return out | {"swaps": swapped, "ignored": row["ignored"], "us": row["batch_us"]}


def _short(row: list[Json]) -> Row:
    """A row of a recording in one document."""
    keys = ("t", "mode", "batch", "recomputed", "waiting", "running", "swapped", "free", "empties")
    return dict(zip(keys, row, strict=True))


def _case(name: str, settings: Row, requests: list[Row], recorded: list[Row]) -> Case:
    steps = len(recorded)
    ours = replay(settings, requests)
    for i, theirs in enumerate(recorded):
        mine = next(ours, None)
        if mine is None:
            return Case(name, steps, i, Difference(i, theirs, {}))
        if len(theirs["batch"]) and len(theirs["batch"][0]) == 2:
            mine["batch"] = [b[:2] for b in mine["batch"]]
        mine = {k: mine[k] for k in theirs}
        if mine != theirs:
            return Case(name, steps, i, Difference(i, theirs, mine))
    if (more := next(ours, None)) is not None:
        return Case(name, steps, steps, Difference(steps, {}, more))
    return Case(name, steps, steps)


def replay(settings: Row, requests: list[Row]) -> Iterator[Row]:
    """Run the scheduler on integer microseconds, yielding the rounds that scheduled or preempted something."""
    from sim.cost.features import DECODE_ROWS, SPARE
    from sim.cost.step import new_linear_cost
    from sim.engine.contract import Site
    from sim.engine.loop import PLANNED, STOPPED, turn
    from sim.engine.schedulers.mindie import Mindie, MindieParams
    from sim.engine.schedulers.mindie import state as m
    from sim.engine.schedulers.mindie.replay import clear_log, start_log
    from sim.engine.state import new_recorder

    known = {k: v for k, v in settings.items() if k in MindieParams.model_fields and k not in _OWN}
    for name, value in known.items():
        if not isinstance(value, int) or value < (name in ("maxBatchSize", "cacheBlockSize")):
            raise ValueError(f"{name}: {value!r}")
    # the scheduler alone was recorded: the server's limits on its settings do not hold
    given: Row = {k: bool(v) if k in _FLAGS else v for k, v in known.items()}
    params = MindieParams.model_construct(**given)
    update = {"stageSelectPolicy": 1 if params.supportSelectBatch else params.stageSelectPolicy}
    params = params.model_copy(update=update | {"maxPrefillBatchSize": params.maxPrefillBatchSize or params.maxBatchSize})
    chunked, caching = bool(params.enableChunkedPrefill), bool(params.enablePrefixCache)
    longest = max([r["input_len"] + r["output_len"] for r in requests], default=1) + 1
    extra = {"recording": True, "gamma": settings["speculationGamma"], "cpu_blocks": settings["cpuBlockNum"], "longest": longest}
    extra["empty_batch"] = _BASE
    cost = new_linear_cost(
        np.array([_BASE, _BASE]),
        np.array([SPARE, DECODE_ROWS], np.int64),
        np.array([[100.0, 0.0] if chunked else [0.0, 200.0], [100.0, 0.0]]),
    )
    recorder = new_recorder(1, 0, 1.0, max(len(requests), 1), 8, 1.0, 1.0)
    s = Mindie.new_state(params, Site(extra=extra), settings["npuBlockNum"], 0, recorder, cost)
    start_log(s)
    _submit(s, requests)
    ids = [r["id"] for r in requests]
    rounds = batches = 0
    while batches < settings["max_iters"] and (what := turn(s, np.inf)) != STOPPED:
        if what != PLANNED or s.n_rounds == rounds:
            continue
        rounds = int(s.n_rounds)
        if int(s.now) >= _LONGEST_RUN:
            return
        before = [int(v) for v in s.before]
        mode, slots = int(s.mode), []
        if s.q_len > 0 or s.resume > s.now:
            batches += 1
        if s.q_len > 0:
            slots = [int(slot) for slot in s.run[s.n_run - s.q_rows[s.q_head] : s.n_run]]
        batch = []
        for slot in slots:
            decoding = mode == m.DECODE or (mode == m.MIXED and s.x[slot, m.PROMPT] == 0)
            hit = None if mode == m.DECODE else int(s.x[slot, m.HIT]) if caching and not decoding else 0
            batch.append([ids[int(s.r_id[slot])], 1 if decoding else int(s.x[slot, m.CHUNK]), hit])
        events = [(int(k), int(a), int(b)) for k, a, b in s.log[: s.log_n]]
        clear_log(s)
        yield {
            "t": int(s.now),
            "mode": _MODES[mode],
            "batch": batch,
            "recomputed": [ids[a] for k, a, _ in events if k == m.RECOMPUTED],
            "waiting": before[0],
            "running": before[1],
            "swapped": before[2],
            "free": before[3],
            "empties": before[6],
            "limits": before[4:6],
            "after": [int(s.w_len), int(s.n_run), int(s.n_swap), int(s.free_blocks)],
            "swaps": [sum(b for k, _, b in events if k == kind) for kind in (m.SWAPPED_OUT, m.SWAPPED_IN)],
            "ignored": [ids[a] for k, a, _ in events if k == m.IGNORED],
            "us": int(s.q_end[s.q_head] - s.q_start[s.q_head]) if slots else int(max(s.resume - s.now, 0.0)),
        }


def _submit(s: EngineState, requests: list[Row]) -> None:
    from sim.engine.loop import submit

    n = len(requests)
    lengths = np.array([r["input_len"] for r in requests], np.int32)
    outputs = np.array([r["output_len"] for r in requests], np.int32)
    columns = (
        np.array([r["arrive_us"] for r in requests], np.float64),
        lengths,
        outputs,
        outputs,
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.arange(n, dtype=np.int64) + 2**40,
    )
    off, ids, starts, sizes = [0], [], [], []
    for i, r in enumerate(requests):
        shared = min(r.get("prefix_len", 0), r["input_len"]) if r.get("prefix_group", 0) > 0 else 0
        if shared > 0:
            pieces = [(r["prefix_group"], shared), (2**41 + i, r["input_len"] - shared)]
            for content, size in pieces:
                if size > 0:
                    ids.append(content)
                    starts.append(0)
                    sizes.append(size)
        off.append(len(ids))
    submit(s, 0, n, 0, columns, tuple(np.array(a, np.int64) for a in (off, ids, starts, sizes)))
