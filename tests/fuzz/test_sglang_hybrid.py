"""SGLang's pools for window layers and recurrent states against the executable references: random settings and traffic, step by step."""

import importlib
import inspect
import json
import random
import sys
import textwrap
from fractions import Fraction
from functools import partial

import pytest

from sim.study.conformance.sglang import compare
from tests.fuzz import enough
from tests.fuzz.test_sglang import random_requests, random_server, run

NOT_IN_REFERENCE = frozenset({"pre", "avail2", "evictable2", "swa_avail2", "swa_evictable2", "mamba_avail2", "mamba_evictable2"})
STEPS = enough(10_000)
STEPS_SLOW = 500_000


@pytest.fixture(scope="module")
def references(request):
    """The module that both references patch, and by pool the class that simulates it and the nodes it wants."""
    folder = request.config.rootpath.parent / "shared" / "reference" / "hybrid"
    if not folder.is_dir():
        pytest.skip("the executable references are not beside this checkout")
    sys.path.insert(0, str(folder))
    try:
        mirror, windows, states = (importlib.import_module(name) for name in ("mirror", "hmirror", "mmirror"))
    finally:
        sys.path.remove(str(folder))
    # as in the reference for full layers, which is newer: before the first match a waiting request counts nothing of its prompt
    text = textwrap.dedent(inspect.getsource(mirror.Sim.try_preempt))
    assert "r.total - r.pre" in text
    scope = dict(vars(mirror))
    exec(text.replace("r.total - r.pre", "r.fill - r.pre"), scope)
    mirror.Sim.try_preempt = scope["try_preempt"]
    return mirror, {"swa": (windows.SSim, windows.SNode), "mamba": (states.MSim, states.MNode)}


def with_windows(r, meta):
    """A pool for window layers beside that of full ones, often smaller."""
    page = meta["resolved"]["page_size"]
    window = r.choice([1, 8, 60, 64, 128, 300, 512])
    size = int(meta["resolved"]["kv_tokens"] * r.choice([0.2, 0.4, 0.8, 1.0])) // page * page
    if window + page >= size:
        return False
    meta["scenario"]["swa"] = {"window": window, "ratio": 0.8, "swa_tokens": size}
    return True


def with_states(r, meta):
    """Slots for states, rarely more than the running requests need."""
    arguments, resolved = meta["scenario"]["server_args"], meta["resolved"]
    resolved["mixed"] = False
    tracked = r.random() < 0.5
    if not tracked:
        meta["overlap"] = False
        resolved["page_size"] = 1
        if not resolved["chunked_prefill_size"]:
            resolved["chunked_prefill_size"] = None
    arguments["mamba_radix_cache_strategy"] = "extra_buffer" if tracked else "no_buffer"
    resolved["max_running_requests"] = min(resolved["max_running_requests"], r.choice([4, 8, 32]))
    each = 1 if arguments["disable_radix_cache"] else 3 + (0 if not tracked else 2 if meta["overlap"] else 1)
    meta["scenario"]["mamba"] = {"slots": resolved["max_running_requests"] * each + r.choice([1, 1, 3, 20, 200])}
    return True


def scenario(pool, seed):
    """Settings and traffic of one seed; no settings where they cannot be."""
    r = random.Random(seed)
    meta = random_server(r)
    arguments = meta["scenario"]["server_args"]
    arguments["schedule_low_priority_values_first"] = False
    if not (with_windows if pool == "swa" else with_states)(r, meta):
        return None, []
    requests = random_requests(r, meta)
    return meta, requests[: r.choice([40, 150])]


def traced(simulation, meta, requests, number):
    """What the reference decides, with times as ``number`` makes them of the figures written."""
    server = meta["scenario"] | {"dur": {key: number(value) for key, value in meta["scenario"]["dur"].items()}}
    given = {"meta": meta | {"scenario": server}, "requests": [q | {"t": number(q["t"])} for q in requests], "trace": []}
    return {"meta": meta, "requests": requests, "trace": json.loads(json.dumps(simulation(given).run_all(), default=float))}


def difference(references, pool, meta, requests):
    """(steps compared, first difference or None); a scenario that the reference cannot run counts 0 steps.

    The reference adds up floats: after thousands of steps an arrival at the very time of one may be on its other side. So what differs is
    looked at once more with exact times.
    """
    mirror, known = references
    simulation, mirror.Node = known[pool]
    case = None
    for number in (float, lambda value: Fraction(str(value))):
        try:
            recording = traced(simulation, meta, requests, number)
        except (AssertionError, IndexError):
            return 0, None
        if len(recording["trace"]) > 20_000:
            return 0, None
        case = compare(recording, "fuzz", NOT_IN_REFERENCE)
        if case.difference is None:
            break
    return case.matched, case.difference


@pytest.mark.parametrize("pool", ["swa", "mamba"])
def test_random_scenarios_decide_as_the_reference(references, pool):
    assert run(partial(scenario, pool), partial(difference, references, pool), STEPS, range(1_000)) >= STEPS


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["swa", "mamba"])
def test_many_random_scenarios_decide_as_the_reference(references, pool):
    found = run(partial(scenario, pool), partial(difference, references, pool), STEPS_SLOW, range(1_000_000, 1_100_000))
    assert found >= STEPS_SLOW
