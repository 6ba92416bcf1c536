"""SGLang against the executable reference: random settings and traffic, decision by decision; a difference is shrunk before it is shown."""

import importlib.util
import json
import random
import time
from functools import partial

import pytest

from sim.study.conformance.sglang import compare
from tests.fuzz import enough

NOT_IN_REFERENCE = frozenset({"pre", "avail2", "evictable2"})
STEPS = enough(20_000)
STEPS_SLOW = 2_000_000


@pytest.fixture(scope="module")
def reference(request):
    path = request.config.rootpath.parent / "shared" / "reference" / "sglang.py"
    if not path.is_file():
        pytest.skip("the executable reference is not beside this checkout")
    spec = importlib.util.spec_from_file_location("reference_sglang", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_server(r):
    """Server arguments and pool of one scenario."""
    page = r.choice([1, 1, 1, 2, 4, 16, 32, 64])
    priority = r.random() < 0.25
    disable = r.random() < 0.15
    policies = ["fcfs", "lof"] if priority else ["fcfs", "lpm", "dfs-weight", "lof", "random", "hrrn", "shortest-prefill-first"]
    if disable and not priority:
        policies.remove("shortest-prefill-first")
    chunk = r.choice([-1, page * r.randint(1, 12), 64, 128, 256, 512, 2048, 8192])
    arguments = {
        "schedule_policy": r.choice(policies),
        "schedule_conservativeness": r.choice([0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 1.3, 2.0]),
        "radix_eviction_policy": r.choice(["lru", "lru", "lfu", "slru", "fifo", "mru", "filo", "priority"]),
        "disable_radix_cache": disable,
        "prefill_max_requests": r.choice([None, None, None, 1, 2, 4]),
        "prefill_decode_interval": r.choice([0, 0, 0, 1, 3, 12]),
        "min_free_slots_delay": r.choice([None, None, None, 1, 2, 4, 100]),
        "enable_priority_scheduling": priority,
        "disable_priority_preemption": r.random() < 0.3,
        "priority_scheduling_preemption_threshold": r.choice([0, 3, 10]),
        "schedule_low_priority_values_first": priority and r.random() < 0.3,
    }
    if arguments["schedule_low_priority_values_first"]:
        arguments["radix_eviction_policy"] = "lru"  # the other sign is told to the reference by turning priorities round
    arguments = {k: v for k, v in arguments.items() if v is not None}
    kv = r.choice([320, 640, 1024, 2048, 4096, 16384, 65536]) // page * page
    resolved = {
        "page_size": page,
        "chunked_prefill_size": None if chunk < 0 else chunk,
        "max_prefill_tokens": r.choice([1, 64, 256, 2048, 16384]),
        "max_running_requests": r.choice([1, 2, 4, 8, 32, 64, 200]),
        "kv_tokens": kv,
        "mixed": chunk > 0 and r.random() < 0.35,
    }
    dur = r.choice([{"a": 0.01, "b": 4e-5, "c": 2e-4}, {"a": 0.03, "b": 0.0, "c": 0.0}, {"a": 0.001, "b": 1e-4, "c": 1e-5}])
    scenario = {"server_args": arguments, "dur": dur, "seed": r.randrange(1000)}
    if r.random() < 0.2:
        scenario["context_len"] = r.choice([kv // 2, kv * 2, 512])
    return {"scenario": scenario, "overlap": r.random() < 0.65, "resolved": resolved}


def random_requests(r, meta):
    """Traffic with shared prefixes, repeated prompts and several turns."""
    kv = meta["resolved"]["kv_tokens"]
    n = r.choice([5, 20, 60, 150, 300])
    gap = r.choice([0.0, 0.002, 0.02, 0.1, 0.5, 2.0])
    kv = min(kv, meta["scenario"].get("context_len", 1 << 30) - 8)
    longest = max(8, int(kv * r.choice([0.01, 0.05, 0.2, 0.5, 0.9])) - 80)
    low_first = meta["scenario"]["server_args"]["schedule_low_priority_values_first"]
    names = list(range(n)) if r.random() < 0.5 else r.sample(range(10 * n), n)
    longest_output = r.choice([2, 10, 40, 120, 300])
    sharing = r.random()
    stops = r.choice([0.0, 0.3, 1.0])
    certain = r.choice([0.0, 0.5, 1.0])
    requests, sessions, t = [], [], 0.0
    for i in range(n):
        t += r.expovariate(1.0) * gap
        stream = 1000 + i
        own = r.randint(1, longest)
        kind = r.random()
        if kind < sharing and sessions and r.random() < 0.6:
            stream, length = r.choice(sessions)
            own = max(1, min(length + r.choice([0, r.randint(0, 60)]), kv - 80))
            prompt = [[stream, 0, own]]
        elif kind < sharing:
            shared = min(r.choice([16, 31, 64, 300, 3000]), own)
            prompt = [[r.randint(1, 4), 0, shared]]
            if own > shared:
                prompt.append([stream, shared, own - shared])
        else:
            prompt = [[stream, 0, own]]
        out = r.randint(1, longest_output)
        request = {"id": str(names[i]), "t": round(t, 6), "prompt": prompt, "plen": own, "out": out, "out_stream": stream}
        request["ignore_eos"] = r.random() < certain
        if r.random() < stops:
            request["max_new"] = out + r.choice([0, 1, 20, 500])
            request["ignore_eos"] = False
        if meta["scenario"]["server_args"]["enable_priority_scheduling"]:
            request["priority"] = r.randint(-15 if low_first else 0, 15)
        if len(prompt) == 1 and prompt[0][0] >= 1000:
            sessions.append((stream, own + out))
        requests.append(request)
    return requests


def difference(reference, meta, requests):
    """(steps compared, first difference or None) of one scenario; a scenario that the reference cannot run counts 0 steps."""
    recording = {"meta": meta, "requests": requests, "trace": []}
    known = requests
    if meta["scenario"]["server_args"]["schedule_low_priority_values_first"]:  # the reference knows the other sign only
        known = [q | {"priority": -q["priority"]} for q in requests]
    try:
        recording["trace"] = json.loads(json.dumps(reference.Sim(recording | {"requests": known}).run_all()))
    except (AssertionError, IndexError):
        return 0, None
    if len(recording["trace"]) > 100_000:
        return 0, None
    case = compare(recording, "fuzz", NOT_IN_REFERENCE)
    return case.matched, case.difference


def shrink(differs, requests):
    """Leave out requests while ``differs(requests)``."""
    size = len(requests) // 2
    while size >= 1:
        i = 0
        while i < len(requests):
            fewer = requests[:i] + requests[i + size :]
            if fewer and differs(fewer):
                requests = fewer
            else:
                i += size
        size //= 2
    return requests


def run(scenario, difference, steps, seeds):
    """Decisions compared, over ``seeds`` until they are ``steps``.

    ``scenario(seed)``: (settings, requests), no settings where they cannot be. ``difference(settings, requests)``: (steps compared, first
    difference or None); the first one found is shrunk and shown.
    """
    done, told = 0, time.monotonic()
    for seed in seeds:
        if time.monotonic() > told + 30:
            told = time.monotonic()
            print(f"SGLang: {done:,} of {steps:,} steps, seed {seed}", flush=True)
        meta, requests = scenario(seed)
        if meta is None:
            continue
        matched, found = difference(meta, requests)
        if found is not None:
            requests = shrink(lambda fewer: difference(meta, fewer)[1] is not None, requests)  # noqa: B023 - used at once
            found = difference(meta, requests)[1]
            pytest.fail(f"seed {seed}: {found}\n{json.dumps(meta)}\n" + "\n".join(json.dumps(q) for q in requests))
        done += matched
        if done >= steps:
            break
    return done


def scenario(seed):
    """Settings and traffic of one seed."""
    r = random.Random(seed)
    meta = random_server(r)
    return meta, random_requests(r, meta)


def test_random_scenarios_decide_as_the_reference(reference):
    assert run(scenario, partial(difference, reference), STEPS, range(1_000)) >= STEPS


@pytest.mark.slow
def test_many_random_scenarios_decide_as_the_reference(reference):
    assert run(scenario, partial(difference, reference), STEPS_SLOW, range(1_000_000, 1_100_000)) >= STEPS_SLOW
