# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Replay of recorded SGLang decisions: one JSON file (gzip or plain) with ``meta``, ``requests`` and ``trace`` per recording.

Compared: time, mode, extended requests, decode rows, retracted and preempted ids, evicted tokens, ratio, memory, queue, flags, start and
end on the device, finished ids, memory after the result. Times in integer microseconds; ``t``, ``ts``, ``te`` and ``ratio`` may differ by
2e-6 (the recording rounds them). With ``pp_size`` > 1 among the server arguments only launched batches are rows, not visits without one.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from sim.cost.features import DECODE_ROWS, PREFILL_TOKENS
from sim.cost.step import new_linear_cost
from sim.document import Json, loads, number
from sim.engine.contract import Site
from sim.engine.loop import COMPLETED, PLANNED, STOPPED, submit, turn
from sim.engine.schedulers.sglang import Sglang
from sim.engine.schedulers.sglang.params import SglangParams
from sim.engine.schedulers.sglang.state import IGNORE_EOS, LOG_FINISH, LOG_PREEMPT, LOG_RETRACT, MODES
from sim.engine.state import EngineState, new_recorder
from sim.errors import ConfigError, DataError
from sim.jit import kernel
from sim.study.conformance.base import Case, Difference


class Request(TypedDict):
    """Time in s, lengths, and the prompt as (content, start, length)."""

    id: str
    t: float
    plen: int
    out: int
    out_stream: int
    prompt: list[int]
    max_new: NotRequired[int]
    priority: NotRequired[int | None]
    ignore_eos: NotRequired[bool]


class Meta(TypedDict):
    """How it was recorded: the scenario with the server's arguments, and what the server made of them."""

    scenario: Any
    resolved: Any
    overlap: bool


class Recording(TypedDict):
    """One recording: ``trace`` has a row for each pass of the scheduler."""

    meta: Meta
    requests: list[Request]
    trace: list[dict[str, Json]]


_MOST_STALLED = 200_000  # passes without a batch in a row, after which a replay is given up
_MICRO = 1e6
_KEYS = (
    "t",
    "mode",
    "ext",
    "dec",
    "ndec",
    "ret",
    "pre",
    "ev",
    "ratio",
    "avail",
    "evictable",
    "protected",
    "nq",
    "q",
    "full",
    "nrun",
    "swa_avail",
    "swa_evictable",
    "swa_protected",
    "swa_ev",
    "mamba_avail",
    "mamba_evictable",
    "mamba_protected",
    "mamba_ev",
)
_RESULT_KEYS = ("ts", "te", "fin", "avail2", "evictable2", "swa_avail2", "swa_evictable2", "mamba_avail2", "mamba_evictable2")
_POOLS = ("swa", "mamba")  # pools beside that of full KV
_ROUNDED = ("t", "ts", "te", "ratio")
_TOLERANCE = 2e-6
_LAST = 1 << 30


@kernel
def _switch_log(s):
    s.log_on = True


@kernel
def _memory(s):
    return s.tree.free, s.tree.evictable


@kernel
def _beside(s):
    """The pool beside that of full KV: free, evictable, protected, evicted; the last is counted anew."""
    t = s.tree
    return t.w_free, t.w_evictable, t.w_protected, t.w_evicted


@kernel
def _count_anew(s):
    s.tree.w_evicted = 0


@kernel
def _log(s):
    n = s.log_n
    s.log_n = 0
    return s.log[:n].copy()


@kernel
def _ids(s, slots):
    out = np.empty(slots.size, np.int64)
    for i in range(slots.size):
        out[i] = s.r_id[slots[i]]
    return out


@kernel
def _decision(s):
    """The state after a decision: numbers, then ids of the batch's rows, their new tokens and prefixes, and of the queue."""
    t = s.tree
    p = s.last
    queue = _ids(s, s.w_slot[s.w_lo : s.w_hi])
    rows = max(0, s.q_rows[p]) if p >= 0 else 0
    batch = _ids(s, s.q_slot[p, :rows])
    mode = s.p_mode[p] if p >= 0 else 0
    chunked = s.r_id[s.p_chunked[p]] if p >= 0 and s.p_chunked[p] >= 0 else -1
    prefills = s.p_prefills[p] if p >= 0 else 0
    any_left = 1 if s.n_run > 0 or s.chunked >= 0 or queue.size > 0 else 0
    full = 1 if s.run_full else 0
    numbers = (mode, prefills, chunked, t.evicted, t.free, t.evictable, t.protected, full, s.n_run, any_left)
    times = (s.now, s.ratio, s.q_start[p], s.q_end[p])
    return numbers, times, batch, s.q_tok[p, :prefills].copy(), s.q_aux[p, :prefills].copy(), queue


def read(path: Path) -> Recording:
    """A recording. Raises `DataError`."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            recording = loads(file.read())
    except (OSError, EOFError, ValueError) as error:
        raise DataError(str(path), f"not a recording ({error})") from error
    missing = [key for key in ("meta", "requests", "trace") if not isinstance(recording, dict) or key not in recording]
    if missing:
        raise DataError(
            str(path), f"not an SGLang recording: no {', '.join(missing)}", "expected one JSON object with meta, requests, trace"
        )
    found: Recording = recording
    return found


def settings(meta: Meta) -> tuple[SglangParams, int, int]:
    """The recording's server arguments, KV pool (pages) and pipeline stages."""
    arguments = dict(meta["scenario"]["server_args"])
    stages = arguments.pop("pp_size", 1)
    resolved = meta["resolved"]
    page = resolved.get("page_size") or 1
    arguments |= {
        "page_size": page,
        "chunked_prefill_size": resolved["chunked_prefill_size"] or -1,
        "max_prefill_tokens": resolved["max_prefill_tokens"],
        "max_running_requests": resolved["max_running_requests"],
        "context_length": meta["scenario"].get("context_len", 131072),
        "disable_overlap_schedule": not meta["overlap"],
        "enable_mixed_chunk": resolved["mixed"],
        "random_seed": meta["scenario"].get("seed", 0),
    }
    for name, value in SglangParams.model_fields.items():
        if arguments.get(name, 0) is None:
            arguments[name] = value.default
    return SglangParams(**arguments), resolved["kv_tokens"] // page, stages


def start(recording: Recording) -> tuple[EngineState, dict[int, str]]:
    """A scheduler that has the recording's requests in its inbox, and the request names by our numbers."""
    meta = recording["meta"]
    params, blocks, stages = settings(meta)
    pools = {name: meta["scenario"][name] for name in _POOLS if meta["scenario"].get(name)}
    site = Site(pp=stages, extra={"recording": True} | pools)
    params = Sglang.resolve(params, site)
    dur = meta["scenario"]["dur"]
    a, b, c = (round(dur[key] * _MICRO) for key in "abc")
    index = np.array([PREFILL_TOKENS, DECODE_ROWS], np.int64)
    cost = new_linear_cost(np.array([a, a], np.float64), index, np.array([[b, c], [b, c]], np.float64))
    requests = sorted(recording["requests"], key=lambda r: (r["t"], int(r["id"])))
    recorder = new_recorder(1, 0, 1.0, len(requests) + 1, 8, 1.0, 1.0)
    state = Sglang.new_state(params, site, blocks, 0, recorder, cost)
    _switch_log(state)
    for r in requests:
        limit = r.get("max_new", r["out"])
        priority = r.get("priority")
        if priority is None:  # the least urgent of all, if priorities count
            priority = (
                (_LAST if params.schedule_low_priority_values_first else -_LAST) if params.enable_priority_scheduling else 0
            )
        values = (round(r["t"] * _MICRO), r["plen"], min(r["out"], limit), limit, priority, 0, r["out_stream"])
        types = (np.float64, np.int32, np.int32, np.int32, np.int32, np.int32, np.int64)
        columns = tuple(np.array([v], t) for v, t in zip(values, types, strict=True))
        pieces = np.array(r["prompt"], np.int64).reshape(-1, 3)
        spans = (np.array([0, len(pieces)], np.int64), *(np.ascontiguousarray(pieces[:, k]) for k in range(3)))
        submit(state, 0, 1, int(r["id"]), columns, spans, IGNORE_EOS if r.get("ignore_eos", True) else 0)
    return state, {int(r["id"]): r["id"] for r in requests}


def _pool_fields(name: str, free: int, evictable: int, protected: int, evicted: int) -> dict[str, int]:
    row = {f"{name}_avail": free, f"{name}_evictable": evictable, f"{name}_protected": protected}
    return row | {f"{name}_ev": evicted} if evicted else row


def replay(recording: Recording) -> Iterator[dict[str, Json]]:
    """Our decisions in the recording's format, in order; a row is complete when its batch has finished."""
    state, names = start(recording)
    scenario = recording["meta"]["scenario"]
    pipeline = scenario["server_args"].get("pp_size", 1) > 1
    pool = next((name for name in _POOLS if scenario.get(name)), None)
    in_flight: list[dict[str, Json]] = []
    queue: list[str] | None = None
    decoding: list[str] | None = None
    stalled = 0
    while True:
        if pool:
            _count_anew(state)
        event = turn(state, np.inf)
        if event == STOPPED or stalled > _MOST_STALLED:
            yield from in_flight
            return
        log = _log(state)
        if event == COMPLETED:
            row = in_flight.pop(0)
            finished = [names[int(i)] for kind, i, _ in log if kind == LOG_FINISH]
            if finished:
                row["fin"] = finished
            row["avail2"], row["evictable2"] = (int(v) for v in _memory(state))
            if pool:
                row[f"{pool}_avail2"], row[f"{pool}_evictable2"] = (int(v) for v in _beside(state)[:2])
            yield row
            if in_flight and in_flight[0]["mode"] == "none":
                yield in_flight.pop(0)
        if event != PLANNED:
            continue
        numbers, times, batch, new, before, waiting = _decision(state)
        mode, prefills, chunked, evicted, free, evictable, protected, full, running, any_left = (int(v) for v in numbers)
        retracted = [names[int(i)] for kind, i, _ in log if kind == LOG_RETRACT]
        if mode == 0 and (pipeline or (not any_left and not retracted)):
            continue
        row = {"t": times[0] / _MICRO, "mode": MODES[mode]}
        if mode:
            ids = [names[int(i)] for i in batch]
            rows = ids[prefills:]
            row["ndec"] = len(rows)
            if prefills:
                cut = [int(int(i) == chunked) for i in batch[:prefills]]
                row["ext"] = [[a, int(b), int(c), d] for a, b, c, d in zip(ids, before, new, cut, strict=False)]
            if rows != decoding and (rows or MODES[mode] == "mixed"):
                row["dec"] = decoding = rows
            row |= {"ts": times[2] / _MICRO, "te": times[3] / _MICRO}
        if retracted:
            row["ret"] = retracted
        preempted = [names[int(i)] for kind, i, _ in log if kind == LOG_PREEMPT]
        if preempted:
            row["pre"] = preempted
        if evicted:
            row["ev"] = evicted
        row |= {"ratio": times[1], "avail": free, "evictable": evictable, "protected": protected, "nq": len(waiting)}
        if pool:
            row |= _pool_fields(pool, *(int(v) for v in _beside(state)))
        order = [names[int(i)] for i in waiting]
        if order != queue:
            row["q"] = queue = order
        row |= {"full": full, "nrun": running}
        if mode or in_flight:
            in_flight.append(row)
            stalled = 0
        else:
            stalled += 1
            yield row


def _differs(key: str, recorded: object, ours: object) -> bool:
    if key in _ROUNDED and recorded is not None and ours is not None:
        return abs(number(recorded) - number(ours)) > _TOLERANCE
    return recorded != ours


def compare(recording: Recording, name: str, without: frozenset[str] = frozenset()) -> Case:
    """Replay one recording up to the first difference; keys ``without`` are not looked at."""
    trace = recording["trace"]
    ours = replay(recording)
    matched = 0
    for step, recorded in enumerate(trace):
        row = next(ours, {})
        keys = _KEYS if recorded["mode"] == "none" else _KEYS + _RESULT_KEYS
        wrong = [
            key
            for key in keys
            if key not in without and (key in recorded or key in row) and _differs(key, recorded.get(key), row.get(key))
        ]
        if wrong:
            wrong = list(dict.fromkeys(["t", "mode", *wrong]))
            difference = Difference(step, {k: recorded.get(k) for k in wrong}, {k: row.get(k) for k in wrong})
            return Case(name, len(trace), matched, difference)
        matched += 1
    extra = next(ours, None)
    if extra is not None:
        return Case(name, len(trace), matched, Difference(len(trace), {}, extra))
    return Case(name, len(trace), matched)


def check(path: Path) -> Iterator[Case]:
    """Replay one recording file. Raises `DataError` if it is not one."""
    recording = read(path)
    try:
        case = compare(recording, path.name.removesuffix(".gz").removesuffix(".json"))
    except ConfigError as error:
        raise DataError(str(path), f"recorded with settings that are not modelled ({error})") from error
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(str(path), f"not an SGLang recording ({type(error).__name__}: {error})") from error
    yield case
