"""Schedulers in plain Python: twins of compiled ones give the same times; what is planned wrongly is told."""

from pathlib import Path

import numpy as np
import pytest

import sim
from sim import guard, registry
from sim.cost.features import DECODE_CTX, DECODE_ROWS, PREFILL_CTX, PREFILL_TOKENS, PREFILL_WORK, ROWS, SAMPLED, TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.schedulers.static import Static, StaticParams
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm.params import VllmParams
from sim.engine.state import new_recorder
from sim.errors import NotModelledError, PluginError
from sim.metrics.record import collect
from tests.laws.bench import run, traffic

FILE = Path(__file__).with_name("plain_schedulers.py")
HISTOGRAM = (256, 1e-5, 20.0)


def _group(cls, params, blocks, replicas=1, bins=64):
    """Replicas with a step cost that every feature enters, with other weights in steps that compute prompts."""
    recorder = new_recorder(replicas, bins, 0.25, 64, *HISTOGRAM)
    features = np.array([TOKENS, ROWS, DECODE_ROWS, DECODE_CTX, PREFILL_TOKENS, PREFILL_CTX, PREFILL_WORK, SAMPLED])
    weights = np.array([[3e-6, 1e-5, 2e-5, 1e-7, 0, 0, 0, 3e-6], [4e-6, 1e-5, 1e-5, 2e-7, 5e-6, 1e-7, 1e-9, 5e-6]])
    cost = new_linear_cost(np.array([4e-3, 5e-3]), features, weights)
    params = cls.resolve(params, Site())
    return cls.group([cls.new_state(params, Site(), blocks, i, recorder, cost) for i in range(replicas)], recorder)


def _requests(seed, n=60, clients=0, rate=30.0):
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, n)).round(3)  # some arrive together
    return traffic(arrival, rng.integers(1, 400, n), rng.integers(1, 60, n), clients, 0.05)


def _same(ours, theirs, requests, **how):
    theirs.set_multi_step(False)  # gauges are only taken at the end of a stroke
    worlds = [run([group], requests, **how) for group in (ours, theirs)]
    (_, a), (_, b) = worlds
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    found, wanted = (collect([group]) for group in (ours, theirs))
    np.testing.assert_array_equal(found["itl_hist"], wanted["itl_hist"])
    for name in ("steps", "preemptions", "last_s", "itl_count", "itl_max_s", "tokens_max"):
        assert found["totals"][name] == wanted["totals"][name], name
    np.testing.assert_allclose(found["parts"], wanted["parts"])
    for name in ("running", "waiting", "busy_s", "steps", "decode_tokens", "prefill_tokens", "kv_used"):
        np.testing.assert_allclose(found["series"][name], wanted["series"][name], atol=1e-9, err_msg=name)
    return a


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clients", [0, 7])
def test_a_plain_twin_of_static_gives_the_same_bytes(seed, clients):
    rng = np.random.default_rng(seed)
    batch, delay, replicas = int(rng.integers(1, 12)), float(rng.choice([0.0, 0.04])), int(rng.integers(1, 3))
    mine = registry.lookup("engine", f"{FILE}:PlainStatic")
    given = {"max_batch_size": batch, "max_queue_delay": delay}
    ours = _group(mine, mine.Params(**given), 0, replicas)
    theirs = _group(Static, StaticParams(**given), 0, replicas)
    _same(ours, theirs, _requests(seed, clients=clients))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("clients", [0, 9])
def test_a_plain_twin_of_vllm_gives_the_same_bytes(seed, clients):
    rng = np.random.default_rng(seed)
    given = {"max_num_seqs": int(rng.integers(1, 20)), "max_num_batched_tokens": int(rng.choice([64, 256, 2048]))}
    given["max_num_seqs"] = min(given["max_num_seqs"], given["max_num_batched_tokens"])
    blocks, replicas = int(rng.integers(30, 90)), int(rng.integers(1, 3))
    mine = registry.lookup("engine", f"{FILE}:PlainVllm")
    ours = _group(mine, mine.Params(**given), blocks, replicas)
    own = VllmParams(**given, async_scheduling=False, enable_prefix_caching=False, max_model_len=460)
    theirs = _group(Vllm, own, blocks + 1, replicas)  # vLLM counts its null block
    rows = _same(ours, theirs, _requests(seed, clients=clients), router="least_outstanding")
    assert (rows["status"] == 0).all()


def test_the_twin_meets_preemptions():
    mine = registry.lookup("engine", f"{FILE}:PlainVllm")
    group = _group(mine, mine.Params(max_num_seqs=16), 30)
    _, rows = run([group], _requests(1))
    assert rows["preemptions"].sum() > 3


def test_a_file_in_a_scenario_runs_in_a_fleet_and_says_what_it_is(tmp_path):
    settings = [
        f"deployment.engine={FILE}:PlainVllm",
        "deployment.replicas=2",
        "router=least_outstanding",
        "traffic.synthetic.requests=60",
    ]
    result = sim.run(sim.load("quickstart", settings))
    assert any("plain-vllm decides every step in plain Python" in w for w in result.warnings)
    assert result.summary["context"]["engine"] == "plain-vllm in plain Python (own file plain_schedulers.py)"
    assert len(result.requests) == 60
    assert set(result.requests["replica"]) == {0, 1}
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("deployment.pp", ["deployment.pp=2"]),
        ("deployment.dp", ["deployment.dp=2"]),
    ],
)
def test_what_it_cannot_do_is_refused(field, settings):
    from sim.fleet.build import plan

    with pytest.raises(NotModelledError, match=field):
        plan(sim.load("quickstart", [f"deployment.engine={FILE}:PlainVllm", *settings]))


BAD = """
from sim.engine.plain import PlainScheduler

class Mine(PlainScheduler):
    name = "mine"
    profile = "vllm"
    kept = []

    def plan(self, waiting, running, kv):
        self.kept += waiting
        BODY
"""
LINE, FIRST = 11, 9


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("return {waiting[0]: waiting[0].left + 1}", FIRST, "answered 101 tokens; allowed: 1 to 100, the tokens left"),
        ("return {waiting[0]: 0}", FIRST, "answered 0 tokens"),
        ("return {waiting[0]: True}", FIRST, "answered True tokens"),
        ("return {waiting[0]: 1.0}", FIRST, "answered 1.0 tokens"),
        ("return {7: 1}", FIRST, "answered with 7, which neither waits nor runs here"),
        ("return {self.kept[0]: 1} if len(waiting) == 2 else {waiting[0]: 100}", FIRST, "which neither waits nor runs here"),
        ("return {self.kept[0]: self.kept[0].left}", LINE, "the request has left the engine"),
        ("return [(waiting[0], 1), (waiting[0], 1)] if waiting else {running[0]: running[0].left}", FIRST, "a request twice"),
        ("return [(r, 100) for r in waiting]", FIRST, "which take 7 KV blocks; 6 are free"),
        ("return 3", FIRST, "answered 3; allowed: a mapping of requests to tokens"),
        ("return waiting", FIRST, "allowed: a mapping of requests to tokens"),
        ("pass", FIRST, "answered None"),
        ("return waiting[9]", LINE, "raised IndexError"),
        ("return {} if running else {waiting[0]: 1}", FIRST, "leaves all running requests out of the batch"),
        ("self.wake_at(self.now)", FIRST, "answered None"),
        ("self.wake_at(self.now); return {}", FIRST, "which is not later than now"),
        ("kv.evict(waiting[0])", LINE, "is not running and cannot be evicted"),
        ("while True: pass", LINE, "has not come back after"),
        ("waiting[0].prompt = 3", LINE, "changes what it was only shown"),
        ("waiting[0].left = 1", LINE, "changes what it was only shown"),
        ("kv.total = 100", LINE, "changes what it was only shown"),
        ("kv.free = 100", LINE, "changes what it was only shown"),
    ],
)
def test_a_bad_plan_is_told_with_file_line_and_request(tmp_path, monkeypatch, body, line, says):
    monkeypatch.setattr(guard, "LIMIT", 0.3)
    path = tmp_path / "mine.py"
    path.write_text(BAD.replace("BODY", body))
    mine = registry.lookup("engine", f"{path}:Mine")
    group = _group(mine, mine.Params(), 13)
    with pytest.raises(PluginError) as caught:
        run([group], traffic([1.0, 1.0, 1.0], [100, 100, 100], [1, 3, 3]))
    text = str(caught.value)
    assert text.startswith(f"{path}:{line}: Mine.plan ")
    assert says in text
    assert "at 1" in text
    assert "request " in text


def test_a_request_that_can_never_fit_is_turned_away():
    mine = registry.lookup("engine", f"{FILE}:PlainVllm")
    _, rows = run([_group(mine, mine.Params(), 10)], traffic([0.0, 0.0], [100, 100], [100, 3]))
    assert rows["status"].tolist() == [1, 0]
