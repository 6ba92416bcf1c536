"""vLLM's data-parallel load balancer: recorded choices, publication of counts, whole runs."""

import gzip
import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest

import sim
from sim.errors import DataError, NotModelledError
from sim.policy.routing.vllm_dp import Balancer, VllmDp, VllmDpParams
from sim.study.conformance.vllm import check, compare_balancer
from sim.study.single import Prepared

RECORDING = Path(__file__).parents[1] / "golden" / "vllm" / "dp_lb.json.gz"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "vllm.py"
SMALL = ("deployment.replicas=4", "traffic.synthetic.requests=400", "slo={}", "expect={}")


class Engines:
    """A snapshot that says what it is told."""

    def __init__(self, n):
        self.now = 0.0
        self.outstanding = np.zeros(n, np.int64)
        self.columns = {name: np.zeros(n) for name in ("waiting", "running", "used_blocks")} | {"total_blocks": np.full(n, 100.0)}
        self.looks = 0

    def look(self):
        self.looks += 1
        return self.columns


def router(n, **settings):
    made = VllmDp(VllmDpParams(**settings), n, np.random.default_rng(0))
    engines = Engines(n)
    made.poll(engines)
    return made, engines


def send(made, engines, count=1):
    chosen = []
    for _ in range(count):
        chosen.append(made.choose(engines, None, 0))
        engines.outstanding[chosen[-1]] += 1
    return chosen


# -- recordings


def test_every_recorded_choice_matches():
    cases = list(check(RECORDING))

    assert [c.difference for c in cases] == [None] * 6
    assert [c.name for c in cases] == [f"dp_lb/{i}" for i in range(6)]
    assert sum(c.matched for c in cases) == sum(c.steps for c in cases) == 607


def test_the_recorded_scans_start_where_the_servers_number_says():
    for case in json.loads(gzip.decompress(RECORDING.read_bytes())):
        balancer = Balancer(case["num_engines"], case["client_count"], case["client_index"])

        assert balancer.start == case["start_index"]


def test_first_difference_is_shown(tmp_path):
    cases = json.loads(gzip.decompress(RECORDING.read_bytes()))
    number, event = [(i, e) for i, e in enumerate(cases[2]["events"]) if e[0] == "route"][9]
    cases[2]["events"][number][2] = 1 - event[2]
    path = tmp_path / "dp_lb_wrong.json"
    path.write_text(json.dumps(cases))

    difference = list(check(path))[2].difference

    assert difference is not None and difference.step == 9
    assert difference.recorded["engine"] == 1 - difference.ours["engine"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "[3]",
        '[{"num_engines": 2}]',
        '[{"num_engines": 2, "client_count": 0, "start_index": 0, "events": []}]',
        '[{"num_engines": 2, "client_count": 1, "start_index": 0, "events": [["stop"]]}]',
        '[{"num_engines": 2, "client_count": 1, "start_index": 0, "events": [["finish", "a"]]}]',
    ],
)
def test_what_is_not_a_recording(tmp_path, text):
    path = tmp_path / "dp_lb.json"
    path.write_text(text)

    with pytest.raises(DataError, match="recording"):
        list(check(path))


def _random_case(rng):
    n, clients = rng.choice([1, 2, 3, 4, 8, 16]), rng.choice([1, 1, 2, 5])
    events, open_requests = [], []
    for i in range(rng.randint(1, 200)):
        kind = rng.random()
        if kind < 0.12:
            full = rng.random() < 0.5
            events.append(["stats", [[rng.randint(0, 6) * full, rng.randint(0, 9), round(rng.random(), 2)] for _ in range(n)]])
        elif kind < 0.45 and open_requests:
            events.append(["finish", open_requests.pop(rng.randrange(len(open_requests)))])
        else:
            events.append(["route", f"q{i}", None])
            open_requests.append(f"q{i}")
    return {"num_engines": n, "client_count": clients, "start_index": rng.randrange(n), "events": events}


def test_random_histories_match_the_reference():
    if not REFERENCE.exists():
        pytest.skip("the reference model is not here")
    spec = importlib.util.spec_from_file_location("reference_vllm", REFERENCE)
    assert spec is not None and spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    rng, steps = random.Random(5), 0

    while steps < 20_000:
        case = _random_case(rng)
        routed = [e for e in case["events"] if e[0] == "route"]
        for event, engine in zip(routed, reference.route(case), strict=True):
            event[2] = engine
        result = compare_balancer(case, "")
        assert result.difference is None, case
        steps += result.steps


# -- the rule


def test_idle_engines_take_turns():
    made, engines = router(3)

    assert send(made, engines, 7) == [0, 1, 2, 0, 1, 2, 0]


def test_own_requests_count_even_if_no_engine_shows_them():
    made, engines = router(3)
    engines.outstanding[:] = [2, 0, 1]

    assert send(made, engines, 2) == [1, 1]


def test_a_queue_costs_more_where_memory_is_full():
    def chosen(usage):
        balancer = Balancer(2)
        balancer.publish([(2, 2, usage), (0, 6, 0.99)])
        return balancer.choose([0, 0])

    assert [chosen(u) for u in (0.0, 0.5, 0.66, 0.67, 1.0)] == [0, 0, 0, 1, 1]


def test_the_penalty_counts_what_was_just_sent():
    balancer = Balancer(2, client_count=3)
    balancer.publish([(0, 1, 1.0), (0, 4, 0.0)])

    assert [balancer.choose([0, 0]) for _ in range(2)] == [0, 1]
    assert balancer.waiting == [3, 3]


def test_own_requests_alone_choose_a_least_loaded_engine():
    balancer, rng, inflight = Balancer(4), random.Random(3), [0] * 4
    for _ in range(500):
        balancer.publish([(0, 0, 1.0)] * 4)
        if rng.random() < 0.6 or not any(inflight):
            chosen = balancer.choose(inflight)
            assert inflight[chosen] == min(inflight)
            inflight[chosen] += 1
        else:
            inflight[rng.choice([k for k in range(4) if inflight[k]])] -= 1


# -- publication


def test_counts_stay_as_published_for_the_interval():
    made, engines = router(2)
    engines.columns["running"][:] = [9, 0]
    engines.now = 0.05
    looks = engines.looks

    assert send(made, engines, 2) == [0, 1]
    assert engines.looks == looks
    made.poll(engines)
    assert made.interval == pytest.approx(0.05)
    engines.now = 0.1
    made.poll(engines)
    assert made.interval == 0.1
    assert send(made, engines, 3) == [1, 1, 1]


def test_a_change_after_a_quiet_time_is_seen_at_once():
    made, engines = router(2)
    engines.now = 0.1
    made.poll(engines)
    engines.now = 0.13
    engines.columns["running"][:] = [9, 0]

    assert send(made, engines) == [1]
    engines.now = 0.2
    engines.columns["running"][:] = [0, 9]
    made.poll(engines)
    assert made.interval == pytest.approx(0.03)
    assert send(made, engines) == [1]


def test_local_increments_last_until_something_changed_or_five_seconds():
    made, engines = router(2)
    send(made, engines)
    for step in range(1, 50):
        engines.now = step * 0.1
        made.poll(engines)
        assert made._balancers[0].waiting == [1, 0]
    engines.now = 5.0
    made.poll(engines)

    assert made._balancers[0].waiting == [0, 0]


def test_a_request_that_came_and_went_is_a_change():
    made, engines = router(2)
    (first,) = send(made, engines)
    engines.outstanding[first] -= 1
    engines.now = 0.1
    made.poll(engines)

    assert made._balancers[0].waiting == [0, 0]
    assert made._published == 0.1


def test_the_interval_is_a_setting():
    made, engines = router(2, min_stats_update_interval="1s")
    engines.columns["running"][:] = [9, 0]
    engines.now = 0.9

    assert made.interval == 1.0
    assert send(made, engines) == [0]
    engines.now = 1.0
    assert send(made, engines) == [1]


def test_several_servers_are_refused():
    with pytest.raises(NotModelledError, match="api_server_count"):
        run("{name: vllm_dp, api_server_count: 2}")


# -- whole runs


def run(name, *overrides):
    return Prepared(sim.load("quickstart", overrides=(*SMALL, *overrides, f"router={name}"))).run()


def unevenness(result):
    """Requests in flight at each arrival: most of any replica less the least, on average."""
    came, left, replica = (result.requests[c].to_numpy() for c in ("arrival_s", "finish_s", "replica"))
    return np.mean([np.ptp(np.bincount(replica[(came < t) & (left > t)], minlength=4)) for t in came])


def test_a_fleet_is_kept_level():
    rate = "traffic.synthetic.arrival.rate=30/s"
    fine, usual, coarse = (run(f"{{name: vllm_dp, min_stats_update_interval: {t}}}", rate) for t in ("10ms", "100ms", "2s"))

    assert unevenness(fine) < unevenness(usual) < unevenness(coarse) < unevenness(run("random", rate))
    assert usual.requests.equals(run("vllm_dp", rate).requests)
    assert usual.summary["requests"]["finished"] == 400


def test_without_publications_an_even_scan_is_round_robin():
    unpublished = run("{name: vllm_dp, min_stats_update_interval: 10000s}")

    assert unpublished.requests.equals(run("round_robin").requests)


@pytest.mark.parametrize(
    "overrides",
    [("traffic.closed_loop={concurrency: 20}",), ("deployment.kv_blocks=400", "deployment.engine.max_model_len=6000")],
)
def test_every_request_is_accounted_for(overrides):
    result = run("vllm_dp", *overrides)
    counts = result.summary["requests"]

    assert counts["finished"] + counts["rejected"] == counts["injected"] == 400
    assert set(result.requests["replica"]) == {0, 1, 2, 3}
