"""The schedulers of vllm-ascend against the executable reference of vLLM with a schedule of its own, every field of every step."""

from __future__ import annotations

import importlib.util
import json
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.cost.features import SPARE, TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.schedulers.vllm_ascend import VllmAscend, VllmAscendParams
from sim.engine.state import new_recorder
from sim.study.conformance import vllm as conformance
from tests.fuzz import enough
from tests.fuzz.vllm_scenarios import random_scenario, shrink

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "vllm.py"


@pytest.fixture(scope="module")
def reference() -> Any:
    if not REFERENCE.is_file():
        pytest.skip("the reference model is not here")
    spec = importlib.util.spec_from_file_location("vllm_reference", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prefill_first(reference: Any) -> type:
    """The reference with the schedule of AscendScheduler: whole prompts, else decodes."""

    class Pool(reference.Pool):  # type: ignore[misc]
        def release(s, ordered: Any) -> None:  # noqa: N805
            """As before 0.21: all blocks to the end of the queue."""
            for b in ordered:
                s.ref[b] -= 1
                if s.ref[b] == 0:
                    s.free[b] = None

    class PrefillFirst(reference.Sim):  # type: ignore[misc]
        def __init__(s, scenario: dict[str, Any]) -> None:  # noqa: N805
            super().__init__(scenario)
            s.pool = Pool(s.e["num_gpu_blocks"], s.caching)

        def prompts(s) -> list[Any]:  # noqa: N805
            batch, passed, loras, budget = [], deque(), set(), s.budget0
            while len(s.waiting) and budget > 0 and len(s.running) < s.max_run:
                r = s.waiting.peek()
                ok = not (s.max_loras and r.lora and len(loras) == s.max_loras and r.lora not in loras)
                if ok:
                    hit = s.lookup(r)
                    n = r.N - len(hit) * s.bs
                    blocks = reference.cdiv(r.N, s.bs) - len(hit) + sum(s.pool.ref[b] == 0 for b in hit)
                    ok = n <= budget and s.pool.nfree() - blocks >= 0.01 * s.e["num_gpu_blocks"]
                if not ok:
                    passed.append(s.waiting.pop())
                    continue
                if not s.alloc(r, n, hit):
                    break
                s.waiting.pop()
                s.running.append(r)
                batch.append((r, n, len(hit) * s.bs))
                if r.lora:
                    loras.add(r.lora)
                budget -= n
            s.waiting.q.extendleft(reversed(passed))
            return batch

        def decodes(s) -> list[Any]:  # noqa: N805
            batch, loras, i = [], set(), 0
            while i < len(s.running) and len(batch) < s.budget0:
                r = s.running[i]
                if s.max_loras and r.lora and len(loras) == s.max_loras and r.lora not in loras:
                    i += 1
                    continue
                while not s.alloc(r, 1):
                    victim = s.running.pop()
                    s.preempt(victim)
                    if victim is r:
                        return batch
                batch.append((r, 1, r.comp))
                if r.lora:
                    loras.add(r.lora)
                i += 1
            return batch

        def schedule(s) -> Any:  # noqa: N805
            row = s.row = {}
            s.step_no += 1
            batch = s.prompts()
            kinds = {
                key: [[r.id, c] for r, _, c in batch if r.status == status] for key, status in (("new", "W"), ("resumed", "P"))
            }
            for r, _, c in batch:
                r.status, r.comp = reference.RUNNING, c
            batch = batch or s.decodes()
            for r, n, _ in batch:
                r.comp += n
                r.infl += n
                r.is_chunk = False
            s.finished_pending = False
            row.update(
                ntok=sum(n for _, n, _ in batch),
                ndec=sum(c >= r.P for r, _, c in batch),
                sched=[[r.id, n, c] for r, n, c in batch],
                running=len(s.running),
                waiting=len(s.waiting),
                free_blocks=s.pool.nfree(),
                **{key: found for key, found in kinds.items() if found},
            )
            return OrderedDict((r.id, (n, c)) for r, n, c in batch), {r.id: True for r, _, _ in batch}, {}, row

    return PrefillFirst


def short_first(reference: Any) -> type:
    """The reference with three lanes in its waiting queue, chosen at each peek."""

    class Lanes:
        def __init__(self, sim: Any) -> None:
            self.sim = sim
            self.lanes: list[deque[Any]] = [deque(), deque(), deque()]  # again, short, long
            self.since: dict[str, int] = {}

        def lane(self, r: Any) -> deque[Any]:
            if r.status == reference.PREEMPTED or r.nout > 0:
                return self.lanes[0]
            return self.lanes[1 if sum(n for _, n in r.segs) <= self.sim.short else 2]

        def add(self, r: Any) -> None:
            r.segs = [(0, r.P)]
            self.since[r.id] = self.sim.clock
            self.lane(r).append(r)

        def prepend(self, r: Any) -> None:
            self.lane(r).appendleft(r)

        def choose(self) -> deque[Any]:
            again, short, long = self.lanes
            if again:
                return again
            if long and short and self.sim.max_wait and self.sim.now - self.since[long[0].id] >= self.sim.max_wait:
                return long
            return short or long

        def peek(self) -> Any:
            return self.choose()[0]

        def pop(self) -> Any:
            return self.choose().popleft()

        def remove(self, gone: Any) -> None:
            for lane in self.lanes:
                for r in [r for r in lane if r in gone]:
                    lane.remove(r)

        def __len__(self) -> int:
            return sum(map(len, self.lanes))

        @property
        def q(self) -> Any:
            return self

        def extendleft(self, skipped: Any) -> None:
            for r in skipped:
                self.prepend(r)

    class ShortFirst(reference.Sim):  # type: ignore[misc]
        def __init__(s, scenario: dict[str, Any]) -> None:  # noqa: N805
            super().__init__(scenario)
            s.short, s.max_wait = scenario["lanes"]
            s.waiting = Lanes(s)

        @property
        def clock(s) -> int:  # noqa: N805
            """When the engine takes requests in: the decision that follows is at this time."""
            return -1

        def schedule(s) -> Any:  # noqa: N805
            for id, since in s.waiting.since.items():
                if since < 0:
                    s.waiting.since[id] = s.now
            return super().schedule()

    return ShortFirst


def start(scenario: dict[str, Any], lone: bool = False) -> tuple[Any, list[str]]:
    """As `conformance.start`, for vllm-ascend."""
    given, site, blocks = conformance.settings(scenario)
    arguments = {k: getattr(given, k) for k in given.model_fields_set if k not in ("version", "scheduler_reserve_full_isl")}
    if "lanes" in scenario:
        short, wait = scenario["lanes"]
        lanes = {"threshold": short, "long_max_wait_ms": wait * 1000}  # recordings count in µs, the engine in s
        config = {"scheduler_config": {"short_request_first_config": lanes}}
        params = VllmAscendParams(
            **arguments, scheduler_reserve_full_isl=given.scheduler_reserve_full_isl, additional_config=config
        )
    else:
        config = {"ascend_scheduler_config": {"enabled": True}}
        params = VllmAscendParams(**arguments, version="0.11", additional_config=config)
    params = VllmAscend.resolve(params, site)
    a, b, c = (float(scenario["duration_us"][key]) for key in "abc")
    cost = new_linear_cost(np.array([a, a]), np.array([TOKENS, SPARE], np.int64), np.array([[b, c], [b, c]]))
    recorder = new_recorder(1, 0, 1.0, len(scenario["requests"]) + 1, 8, 1.0, 1.0)
    state = VllmAscend.new_state(params, site, blocks, 0, recorder, cost)
    return state, conformance.send(state, scenario, lone)


def scenario_of(seed: int, lanes: bool) -> dict[str, Any]:
    """A random scenario of plain vLLM without what these schedulers refuse."""
    scenario = random_scenario(seed)
    r = np.random.default_rng(seed)
    e = scenario["engine"]
    scenario.pop("connector", None)
    e.pop("idle_sleep_us", None)
    e["policy"] = "fcfs"
    for key in ("num_speculative_tokens", "spec_method", "long_prefill_token_threshold", "long_prefill_token_threshold_adaptive"):
        if key in e and (not lanes or "spec" in key):
            e.pop(key)
    scenario.pop("accept_pattern", None)
    if lanes:
        e.pop("max_loras", None)
        scenario["lanes"] = [int(r.integers(0, e["max_model_len"] // 2)), int(r.choice([0, 0, 3000, 30000]))]
    else:
        for key in ("pipeline_parallel_size", "prefill_schedule_interval", "max_num_active_seqs", "scheduler_reserve_full_isl"):
            e.pop(key, None)
        e |= {"async_scheduling": False, "enable_chunked_prefill": False, "watermark": 0.0}
        e["num_gpu_blocks"] += 2 + e["num_gpu_blocks"] // 90  # the longest request passes the watermark
        e["max_num_batched_tokens"] = e["max_model_len"] + int(r.choice([0, 64]))
    for request in scenario["requests"]:
        request["priority"] = 0
        if "max_loras" not in e:
            request.pop("lora", None)
    return scenario


def rows_of(sim: type, scenario: dict[str, Any]) -> list[dict[str, Any]]:
    return list(json.loads(json.dumps(sim(scenario).run())))


def fuzz(sim: type, lanes: bool, steps: int, seed: int) -> None:
    while steps > 0:
        scenario = scenario_of(seed, lanes)
        seed += 1
        case = conformance.compare(scenario, rows_of(sim, scenario), str(seed - 1))
        steps -= case.steps
        if case.difference is not None:

            def differs(smaller: dict[str, Any]) -> bool:
                return conformance.compare(smaller, rows_of(sim, smaller), "").difference is not None

            small = shrink(scenario, differs)
            case = conformance.compare(small, rows_of(sim, small), "")
            pytest.fail(f"seed {seed - 1}, {len(small['requests'])} requests: {case.difference}\n{json.dumps(small)}")


@pytest.fixture
def ascend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "start", start)


@pytest.mark.usefixtures("ascend")
def test_prompts_first(reference: Any) -> None:
    fuzz(prefill_first(reference), False, enough(20_000), 0)


@pytest.mark.usefixtures("ascend")
def test_short_requests_first(reference: Any) -> None:
    fuzz(short_first(reference), True, enough(20_000), 0)
