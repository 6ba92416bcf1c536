"""The routers of PAI in front of engines."""

import numpy as np
import pytest

import sim
from sim.policy.router import ReplicaFacts
from sim.policy.routing.eas_tokenworks import EasTokenworks, TokenworksParams
from sim.policy.routing.llumnix import Llumnix, LlumnixParams
from sim.policy.routing.llumnix_v0 import LlumnixV0, LlumnixV0Params
from sim.study.single import Prepared

SMALL = ("traffic.synthetic.requests=200", "traffic.synthetic.arrival.rate=6/s", "slo={}", "expect={}")
PROFILE = "{prefill_tokens: [0, 8000], prefill_ms: [5, 900], batch: [1, 200], tokens: [8, 8000], decode_ms: [[20, 21], [30, 60]]}"


class Block:
    """Prompts of one session each, with content of their own or shared."""

    def __init__(self, prompts, sessions=None, contents=None):
        n = len(prompts)
        self.prompt_tokens = np.array(prompts, np.int32)
        self.session = np.array(sessions or [-1] * n, np.int64)
        self.span_off = np.arange(n + 1) if contents else np.zeros(n + 1, np.int64)
        self.span_id = np.array(contents or [], np.int64)
        self.span_start = np.zeros(n if contents else 0, np.int64)
        self.span_len = self.prompt_tokens.astype(np.int64) if contents else np.zeros(0, np.int64)


class Seen:
    """A snapshot that says what it is told."""

    def __init__(self, n, **columns):
        names = (
            "total_blocks used_blocks running waiting first_waiting_blocks waiting_blocks last_running_blocks preempted decodes "
            "waiting_tokens prefill_tokens unallocated_tokens"
        )
        self.columns = {name: np.zeros(n) for name in names.split()} | {"seen_until": np.full(n, np.inf)}
        self.columns["total_blocks"] += 1000
        for name, values in columns.items():
            self.columns[name][:] = values
        self.outstanding = np.zeros(n, np.int64)
        self.now = 0.0

    def look(self):
        return self.columns

    def gauges(self):
        return np.array([self.columns[k] for k in ("running", "waiting", "used_blocks", "total_blocks", "seen_until")])


def made(cls, params, n):
    router = cls(params, n, np.random.default_rng(1))
    router.setup([ReplicaFacts(16, 1.0, "vllm")] * n)
    return router


def test_v0_decides_on_what_it_polled_last():
    router = made(LlumnixV0, LlumnixV0Params(), 2)
    seen = Seen(2, used_blocks=[500, 100], running=[10, 10])
    router.poll(seen)
    assert router.choose(seen, Block([100]), 0) == 1
    seen.columns["used_blocks"][:] = [0, 900]
    assert router.choose(seen, Block([100]), 0) == 1
    router.poll(seen)
    assert router.choose(seen, Block([100]), 0) == 0


def test_v0_spreads_by_each_policy():
    block = Block([600] * 4, contents=[5] * 4)
    seen = Seen(3, waiting=[2, 0, 1], running=[3, 3, 3])
    picks = {}
    for policy in ("queue", "balanced", "flood", "rr", "cacheaware"):
        router = made(LlumnixV0, LlumnixV0Params(dispatch_policy=policy), 3)
        router.poll(seen)
        picks[policy] = [router.choose(seen, block, i) for i in range(4)]
    assert picks["queue"] == [1] * 4
    assert picks["balanced"] == [0, 1, 2, 0]
    assert picks["flood"] == [0] * 4
    assert picks["rr"] == [0, 1, 2, 0]
    assert len(set(picks["cacheaware"])) == 1


def test_v0_moves_requests_between_places_of_those_who_serve():
    """Of four replicas number 1 and 3 serve: they are places 0 and 1 of what it sees and answers."""
    router = made(LlumnixV0, LlumnixV0Params(enable_migration=True, enable_defrag=False, migrate_out_threshold=80), 4)
    router.members([1, 3])
    seen = Seen(2, used_blocks=[10, 950], running=[1, 9], decodes=[1, 9])
    seen.running = lambda place: (np.array([[70 + place, 0, 120, 21, 100]]), np.array([0.0]))
    moves = router.poll(seen)
    assert [(m.request, m.source, m.destination) for m in moves] == [(71, 1, 0)]


def test_v1_counts_what_it_sent_before_the_engine_shows_it():
    router = made(Llumnix, LlumnixParams(), 2)
    seen = Seen(2)
    router.poll(seen)
    block = Block([100, 300, 100, 100])
    first = router.choose(seen, block, 0)
    assert router.choose(seen, block, 1) == 1 - first
    assert [router.choose(seen, block, i) for i in (2, 3)] == [first, first]


def test_v1_without_a_schedulable_status_has_none():
    router = made(Llumnix, LlumnixParams(), 2)
    seen = Seen(2)
    router.poll(seen)
    seen.now = 61.0
    assert router.choose(seen, Block([10]), 0) == -1


def test_tokenworks_keeps_a_session_until_its_instance_is_loaded():
    router = made(EasTokenworks, TokenworksParams(), 3)
    seen = Seen(3)
    block = Block([600] * 3, sessions=[4, 4, 4], contents=[1, 2, 3])
    home = router.choose(seen, block, 0)
    seen.outstanding[:] = 2
    assert router.choose(seen, block, 1) == home
    seen.outstanding[home] = 9
    assert router.choose(seen, block, 2) != home


def test_tokenworks_forgets_a_session_after_its_time():
    router = made(EasTokenworks, TokenworksParams(prefix_cache=False), 2)
    seen = Seen(2)
    block = Block([10] * 2, sessions=[4, 4])
    assert router.choose(seen, block, 0) == 0
    seen.outstanding[:] = [1, 0]
    seen.now = 1801.0
    assert router.choose(seen, block, 1) == 1


def test_tokenworks_prefers_a_prefix_but_not_on_a_loaded_instance():
    router = made(EasTokenworks, TokenworksParams(session_affinity="off"), 2)
    seen = Seen(2)
    block = Block([600] * 3, contents=[7] * 3)
    assert router.choose(seen, block, 0) == 0
    seen.outstanding[:] = [1, 1]
    assert router.choose(seen, block, 1) == 0
    seen.outstanding[:] = [2, 1]
    assert router.choose(seen, block, 2) == 1


@pytest.mark.parametrize(
    "router",
    [
        "eas",
        "{name: eas, policy: least-token}",
        "{name: eas, policy: least-request}",
        "eas_tokenworks",
        "llumnix",
        "{name: llumnix, scheduling_policy: flood}",
        "{name: llumnix, scheduling_policy: round-robin}",
        "{name: llumnix, gateway: null, enable_cache_aware_scheduling: true}",
        f"{{name: llumnix, scheduling_policy: slo, slo_profile: {PROFILE}}}",
        "{name: llumnix, gateway: {scheduler_outage: [5s, 10s]}}",
        "{name: llumnix_v0, dispatch_policy: cacheaware}",
    ],
)
def test_every_request_is_accounted_for(router):
    result = Prepared(sim.load("pai-eas-gateway", overrides=(*SMALL, f"router={router}"))).run()
    counts = result.summary["requests"]

    assert counts["finished"] + counts["rejected"] == counts["injected"] == 200
    assert counts["finished"] > 150
    ran = result.requests[result.requests["status"] == 0] if "status" in result.requests else result.requests
    assert set(ran["replica"]) == ({0, 1} if "flood" not in router else set(ran["replica"]))


def test_time_in_the_gateway_is_part_of_the_first_token():
    overrides = ("traffic.synthetic.requests=300", "router={name: eas, load_threshold: 500, policy: llm-metric-based}")
    summary = Prepared(sim.load("pai-eas-gateway", overrides=overrides)).run().summary

    assert summary["fleet"]["gateway_waited"] > 0
    assert summary["latency"]["ttft_s"]["max"] >= 1.0
