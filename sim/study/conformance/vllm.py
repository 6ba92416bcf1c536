# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Replay of recorded vLLM V1 decisions: JSON lines (gzip or plain), first the scenario, then one row per ``schedule()`` call.

Compared: every field of every row (times of decision, execution and update, batch with tokens and computed lengths, admissions with cached
tokens, preemptions, drafts, queue lengths, free blocks, outputs, finishes, transfers), in integer microseconds.

``dp_lb*.json`` is a list of cases of the data-parallel load balancer: engines, API servers, where the scan starts, and events (route with the
engine chosen, finish, stats as published). Compared: every choice of `sim.policy.routing.vllm_dp`.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import numpy as np

from sim.cost.features import SPARE, TOKENS
from sim.cost.step import new_linear_cost
from sim.document import loads
from sim.engine.contract import Site
from sim.engine.loop import COMPLETED, PLANNED, STOPPED, submit, turn
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm.params import VllmParams
from sim.engine.schedulers.vllm.state import COMP, FINISH, KV_WAIT, NEW, OUT, PREEMPTION, RECV_DONE, RESUMED, SEND_DONE
from sim.engine.state import EngineState, new_recorder
from sim.errors import ConfigError, DataError
from sim.jit import kernel
from sim.policy.routing.vllm_dp import Balancer
from sim.study.conformance import _vllm_groups
from sim.study.conformance.base import Case, Difference

if TYPE_CHECKING:
    from sim.document import Json


class Request(TypedDict):
    """Times in µs; ``prompt``: (content, length)."""

    id: str
    arrival_us: float
    prompt: list[tuple[int, int]]
    out_seg: int
    max_tokens: int
    priority: NotRequired[int]
    lora: NotRequired[int]


class Scenario(TypedDict):
    """What was recorded: arguments of the engine, the cost of a step, the requests."""

    engine: Any
    duration_us: dict[str, float]
    requests: list[Request]
    connector: NotRequired[dict[str, str | float]]
    accept_pattern: NotRequired[list[int]]
    kv_plan: NotRequired[_vllm_groups.Plan]


class Routed(TypedDict):
    """A case of the load balancer. ``events``: (route, request, engine), (finish, request), (stats, [(waiting, running, usage) of each engine])."""

    case: NotRequired[str]
    num_engines: int
    client_count: int
    client_index: NotRequired[int]
    start_index: int
    events: list[Any]


_STALLED = 100_000
_SAME = (
    "block_size",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "long_prefill_token_threshold",
    "long_prefill_token_threshold_adaptive",
    "scheduler_reserve_full_isl",
    "watermark",
    "prefill_schedule_interval",
    "max_num_active_seqs",
    "max_loras",
    "prefix_cache_retention_interval",
    "prefix_match_unit",
    "disable_hybrid_kv_cache_manager",
    "disable_lookahead_block_hashes",
)
_OTHER = (
    "num_gpu_blocks",
    "policy",
    "async_scheduling",
    "num_speculative_tokens",
    "spec_method",
    "pipeline_parallel_size",
    "idle_sleep_us",
    "kv",
)


@kernel
def _switch_log(s):
    s.log_on = True


@kernel
def _clock(s):
    return s.now, s.q_len, s.stage_free.copy()


@kernel
def _log(s):
    n = s.log_n
    s.log_n = 0
    return s.log[:n].copy()


@kernel
def _decision(s):
    """The batch just planned: (id, tokens, computed before, drafts) per row; times; queue lengths; free blocks; totals."""
    p = (s.q_head + s.q_len - 1) % s.q_rows.size
    rows = s.q_rows[p]
    out = np.empty((rows, 4), np.int64)
    for i in range(rows):
        slot = s.q_slot[p, i]
        out[i, 0] = s.r_id[slot]
        out[i, 1] = s.q_tok[p, i]
        out[i, 2] = s.r_x[slot, COMP] - s.q_tok[p, i]
        out[i, 3] = s.q_aux[p, i] >> 1
    waiting = s.wq.len + s.kvq.len
    return out, s.q_start[p], s.q_end[p], s.n_run, waiting, s.kv.free, s.q_feat[p, TOKENS], s.q_feat[p, SPARE]


@kernel
def _updated(s):
    return s.t_got, s.kv.free, s.n_run + s.wq.len + s.kvq.len


def read(path: Path) -> tuple[Scenario, list[dict[str, Json]]]:
    """Scenario and rows of a recording. Raises `DataError`."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            lines = [loads(line) for line in file if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(str(path), f"not a recording ({error})") from error
    scenario = lines[0] if lines and isinstance(lines[0], dict) else {}
    missing = [key for key in ("engine", "duration_us", "requests") if key not in scenario]
    if missing or not all(isinstance(row, dict) for row in lines):
        raise DataError(
            str(path), f"not a vLLM recording: no {', '.join(missing)}", "the first line is the scenario, then one row per step"
        )
    return cast("Scenario", scenario), lines[1:]


def settings(scenario: Scenario) -> tuple[VllmParams, Site, int]:
    """The recording's engine arguments, layout and KV blocks."""
    e = dict(scenario["engine"])
    unknown = [key for key in e if key not in _SAME + _OTHER]
    if unknown:
        raise ConfigError(f"engine.{unknown[0]}", e[unknown[0]], "this setting of a recording is not modelled")
    arguments = {key: e[key] for key in _SAME if e.get(key) is not None}
    if "prefix_cache_retention_interval" in e:
        arguments["prefix_cache_retention_interval"] = e["prefix_cache_retention_interval"]
    arguments["scheduling_policy"] = e.get("policy", "fcfs")
    arguments["async_scheduling"] = e.get("async_scheduling", False)
    arguments.setdefault("scheduler_reserve_full_isl", True)
    if e.get("num_speculative_tokens"):
        arguments["speculative_config"] = {
            "method": e.get("spec_method") or "ngram",
            "num_speculative_tokens": e["num_speculative_tokens"],
        }
    connector = scenario.get("connector")
    if connector:
        arguments["kv_transfer_config"] = {
            "kv_role": "kv_producer" if connector["role"] == "prefill" else "kv_consumer",
            "transfer_base": float(connector["x_us"]),
            "transfer_per_token": float(connector["y_us"]),
            "idle_poll": float(e.get("idle_sleep_us", 1000)),
        }
    extra = {"accept_pattern": scenario.get("accept_pattern") or [0], "recording": True}
    if "kv_plan" in scenario:
        extra["kv_plan"] = _vllm_groups.plan_of(scenario["kv_plan"], e["kv"])
    return VllmParams(**arguments), Site(pp=e.get("pipeline_parallel_size", 1), extra=extra), e["num_gpu_blocks"]


def start(scenario: Scenario, lone: bool = False) -> tuple[EngineState, list[str]]:
    """An engine core that has the recording's requests in its inbox, and the request names by our numbers; ``lone`` as in `send`."""
    params, site, blocks = settings(scenario)
    params = Vllm.resolve(params, site)
    a, b, c = (float(scenario["duration_us"][key]) for key in "abc")
    cost = new_linear_cost(np.array([a, a]), np.array([TOKENS, SPARE], np.int64), np.array([[b, c], [b, c]]))
    recorder = new_recorder(1, 0, 1.0, len(scenario["requests"]) + 1, 8, 1.0, 1.0)
    state = Vllm.new_state(params, site, blocks, 0, recorder, cost)
    return state, send(state, scenario, lone)


def _shared(requests: list[Request]) -> set[int]:
    """Contents of which more than one request has tokens."""
    seen: Counter[int] = Counter()
    for r in requests:
        seen.update({*(piece[0] for piece in r["prompt"]), r["out_seg"]})
    return {content for content, n in seen.items() if n > 1}


def send(state: EngineState, scenario: Scenario, lone: bool = False) -> list[str]:
    """The recording's requests into the inbox of an engine core whose log is switched on; their names by our numbers.

    ``lone``: a prompt that shares nothing with any other comes without its content, as traffic of unique prompts does.
    """
    shared = _shared(scenario["requests"])
    requests = sorted(scenario["requests"], key=lambda r: r["arrival_us"])
    names = sorted(r["id"] for r in requests)  # ties under the priority policy go by the name
    number = {name: i for i, name in enumerate(names)}
    _switch_log(state)
    types = (np.float64, np.int32, np.int32, np.int32, np.int32, np.int32, np.int64)
    for r in requests:
        pieces = [piece for piece in r["prompt"] if piece[1] > 0]
        tokens = sum(n for _, n in pieces)
        if lone and shared.isdisjoint([r["out_seg"], *(content for content, _ in pieces)]):
            pieces = []
        values = (r["arrival_us"], tokens, r["max_tokens"], r["max_tokens"], r.get("priority", 0), r.get("lora", 0), r["out_seg"])
        columns = tuple(np.array([v], t) for v, t in zip(values, types, strict=True))
        ids = np.array([piece[0] for piece in pieces], np.int64)
        lengths = np.array([piece[1] for piece in pieces], np.int64)
        spans = (np.array([0, len(pieces)], np.int64), ids, np.zeros(len(pieces), np.int64), lengths)
        submit(state, 0, 1, number[r["id"]], columns, spans)
    return names


def _number(value: float) -> int | float:
    value = float(value)
    return int(value) if value.is_integer() else value


def replay(scenario: Scenario, lone: bool = False) -> Iterator[dict[str, Json]]:
    """Our decisions in the recording's format, in order of the calls; a row is complete when its batch has been processed."""
    state, names = start(scenario, lone)
    grouped = "kv_plan" in scenario
    speculative = bool(scenario["engine"].get("num_speculative_tokens"))
    connector = bool(scenario.get("connector"))
    idle_until_arrival = None  # a synchronous core without work notes the next arrival as the end of its empty step
    in_flight: list[dict[str, Json]] = []
    calls = 0
    stalled = 0
    while stalled < _STALLED:
        now, queued, stages = _clock(state)
        event = turn(state, np.inf)
        if event == STOPPED:
            break
        log = [(int(kind), names[int(a)], int(b)) for kind, a, b in _log(state)]
        if event == COMPLETED:
            row = in_flight.pop(0)
            t_got, free, unfinished = _updated(state)
            row["t_upd"] = _number(t_got)
            outputs: list[Json] = [[name, n] if speculative else name for kind, name, n in log if kind == OUT]
            events: tuple[tuple[str, Sequence[Json]], ...] = (
                ("out", outputs),
                ("finished", [name for kind, name, _ in log if kind == FINISH]),
                ("recv_done", [name for kind, name, _ in log if kind == RECV_DONE]),
                ("send_done", [name for kind, name, _ in log if kind == SEND_DONE]),
            )
            for key, values in events:
                if values:
                    row[key] = values
            row["free_blocks_after"] = int(free)
            if (
                not connector
                and row["ntok"] == 0
                and unfinished
                and not in_flight
                and "preempted" not in row
                and _depth(scenario) == 1
            ):
                idle_until_arrival = row
                continue
            if not connector or row["ntok"] or any(key in row for key in _EVENTS):
                yield row
        if event != PLANNED or _clock(state)[1] == queued:
            continue
        if idle_until_arrival is not None:
            idle_until_arrival["t_upd"] = _number(now)
            yield idle_until_arrival
            idle_until_arrival = None
        batch, t_start, t_end, running, waiting, free, tokens, past = _decision(state)
        row = {"i": calls, "t_sched": _number(now), "ntok": int(tokens), "ndec": int(past)}
        calls += 1
        stalled = 0 if row["ntok"] else stalled + 1
        row["sched"] = [[names[int(i)], int(n), int(before)] for i, n, before, _ in batch]
        for key, kind in (("new", NEW), ("resumed", RESUMED), ("kv_wait", KV_WAIT)):
            values = [[name, n] for k, name, n in log if k == kind]
            if values:
                row[key] = values
        preempted = [name for k, name, _ in log if k == PREEMPTION]
        if preempted:
            row["preempted"] = preempted
        drafts = {names[int(i)]: int(n) for i, _, _, n in batch if n}
        if drafts:
            row["spec"] = drafts
        if not row["ntok"]:  # on the device an empty step is a point in time
            t_start = max(now, stages[0])
            t_end = max(now, *stages)
        row |= {"running": int(running), "waiting": int(waiting), "free_blocks": int(free)}
        row |= {"t_start": _number(t_start), "t_end": _number(t_end)}
        if grouped:
            row |= _vllm_groups.fields(state, log, names)
        in_flight.append(row)


_EVENTS = ("new", "resumed", "preempted", "finished", "kv_wait", "recv_done", "send_done")


def _depth(scenario: Scenario) -> int:
    e = scenario["engine"]
    return int(e.get("pipeline_parallel_size", 1)) + (1 if e.get("async_scheduling") else 0)


def compare(scenario: Scenario, recorded: list[dict[str, Json]], name: str, lone: bool = False) -> Case:
    """Replay one recording up to the first difference.

    ``lone``: prompts that share nothing come without their content (`send`); how many hashes are known is then not compared.
    """
    ours = replay(scenario, lone)
    for step, row in enumerate(recorded):
        mine = next(ours, {})
        wrong = [key for key in sorted(set(row) | set(mine)) if row.get(key) != mine.get(key) and not (lone and key == "nhash")]
        if wrong:
            wrong = list(dict.fromkeys(["t_sched", *wrong]))
            return Case(
                name, len(recorded), step, Difference(step, {k: row.get(k) for k in wrong}, {k: mine.get(k) for k in wrong})
            )
    extra = next(ours, None)
    if extra is not None:
        return Case(name, len(recorded), len(recorded), Difference(len(recorded), {}, extra))
    return Case(name, len(recorded), len(recorded))


def read_balancer(path: Path) -> list[Routed]:
    """Cases of a recording of the load balancer. Raises `DataError`."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            cases = loads(file.read())
    except (OSError, EOFError, ValueError) as error:
        raise DataError(str(path), f"not a recording ({error})") from error
    keys = {"num_engines", "client_count", "start_index", "events"}
    if not isinstance(cases, list) or not cases or not all(isinstance(c, dict) and keys <= set(c) for c in cases):
        raise DataError(
            str(path), "not a recording of the vLLM load balancer", f"expected a list of cases with {', '.join(sorted(keys))}"
        )
    return cases


def compare_balancer(case: Routed, name: str) -> Case:
    """Replay one case up to the first choice that differs; a step is a routed request."""
    engines = int(case["num_engines"])
    if not 0 < engines <= 65_536:
        raise ValueError(f"num_engines must be 1 to 65,536 (got {engines})")
    balancer = Balancer(engines, case["client_count"], case.get("client_index", 0))
    balancer.start = case["start_index"]
    inflight = [0] * engines
    engine_of: dict[str, int] = {}
    steps = sum(event[0] == "route" for event in case["events"])
    step = 0
    for kind, *rest in case["events"]:
        if kind == "stats":
            balancer.publish([(waiting, running, usage) for waiting, running, usage in rest[0]])
        elif kind == "finish":
            inflight[engine_of.pop(rest[0])] -= 1
        elif kind == "route":
            request, recorded = rest
            ours = balancer.choose(inflight)
            if ours != recorded:
                return Case(
                    name, steps, step, Difference(step, {"id": request, "engine": recorded}, {"id": request, "engine": ours})
                )
            inflight[ours] += 1
            engine_of[request] = ours
            step += 1
        else:
            raise ValueError(f"unknown event {kind!r}")
    return Case(name, steps, steps)


def check(path: Path) -> Iterator[Case]:
    """Replay one recording file. Raises `DataError` if it is not one."""
    name = path.name.removesuffix(".gz")
    try:
        if name.startswith("dp_lb") and name.endswith(".json"):
            for i, recorded in enumerate(read_balancer(path)):
                yield compare_balancer(recorded, f"{name.removesuffix('.json')}/{recorded.get('case', i)}")
            return
        scenario, rows = read(path)
        case = compare(scenario, rows, name.removesuffix(".jsonl"))
    except (KeyError, TypeError, IndexError, ValueError, ZeroDivisionError) as error:
        raise DataError(str(path), f"not a vLLM recording ({type(error).__name__}: {error})") from error
    yield case
