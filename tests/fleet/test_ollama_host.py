"""Several models on one card under Ollama: nothing is lost, nothing is served before its model is loaded, 503 when the queue is full."""

import numpy as np
import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import plan
from sim.fleet.clock import Clock
from sim.fleet.mix import Mix
from sim.fleet.ollama_host import UNLOAD, Needs, OllamaHost, fits
from sim.fleet.request import Request
from sim.study.single import Prepared
from sim.workload.table import RequestBlock

NAME = "ollama-three-models"
FEW = "traffic.synthetic.requests=120"


def load(*overrides):
    return sim.load(NAME, overrides=overrides)


def every(setting, value):
    return tuple(f"pools[{i}].engine.{setting}={value}" for i in range(3))


class Bench:
    """The host with engines that take ``seconds`` for every request, and with what it did checked as it happens."""

    def __init__(self, *overrides, seconds=1.0):
        self.env = Clock()
        self.plans = plan(load(*overrides))
        self.names = [p.name for p in self.plans]
        self.needs = {p.name: Needs.of(p) for p in self.plans}
        self.seconds = seconds
        self.shares = []
        self.sent, self.refused, self.done = {}, {}, {}
        self.host = OllamaHost(self.env, self.plans, self)
        self.limit = self.plans[0].params.OLLAMA_MAX_QUEUE

    def submit(self, request, model):
        number, key = request.number, self.names[model]
        assert number not in self.sent
        assert [what for _, what, name in self.host.log if name == key][-1] == "ready"
        self.sent[number] = (self.env.now, key)
        self.env.timeout(self.seconds).callbacks.append(lambda _: self.end(number))

    def end(self, number):
        self.done[number] = self.env.now
        self.host.finished(number)

    def busy(self, request):
        assert len(self.host._residency.pending) == self.limit
        self.refused[request.number] = self.env.now

    def unloaded(self, model):
        assert [what for _, what, name in self.host.log if name == self.names[model]][-1] == "unloaded"

    def share(self, model, processes):
        self.shares.append((self.env.now, model, processes))

    def ask(self, time, *models):
        block = RequestBlock.of(np.full(len(models), time), np.full(len(models), 10), np.full(len(models), 5))
        for row, k in enumerate(models):
            number = self.asked = getattr(self, "asked", -1) + 1
            request = Request(block, row, number, time, 1, k)
            self.env.timeout(time).callbacks.append(lambda _, r=request: self.host.arrive(r))

    def log(self):
        return [(t, what, self.names.index(key)) for t, what, key in self.host.log]


def test_the_first_request_waits_for_its_model_and_the_second_does_not():
    b = Bench()
    b.ask(0.0, 0)
    b.ask(2.5, 0)
    b.env.run(until=100)
    assert b.sent == {0: (2.0, b.names[0]), 1: (2.5, b.names[0])}  # 5.7 GB at 3 GB/s, seen at the next quarter of a second
    assert b.host.waits == [2.0]


def test_two_fit_and_the_third_pushes_them_out_once_they_are_idle():
    b = Bench(seconds=10.0)
    b.ask(0.0, 0)
    b.ask(1.0, 1)
    b.ask(5.0, 2)
    b.env.run(until=100)
    drained = (12.0, 14.0)  # both serve until then; the queue looks at one after the other
    assert b.log() == [
        (0.0, "load", 0),
        (2.0, "ready", 0),
        (2.0, "load", 1),
        (4.0, "ready", 1),
        (5.0, "evict", 0),
        (drained[0] + UNLOAD, "unloaded", 0),
        (13.0, "evict", 1),
        (drained[1] + UNLOAD, "unloaded", 1),
        (15.0, "load", 2),
        (18.75, "ready", 2),
    ]
    assert sum(what == "evict" for _, what, _ in b.log()) == 2


def test_503_when_the_queue_is_full():
    b = Bench(*every("OLLAMA_MAX_QUEUE", 2))
    b.ask(0.0, 0, 1, 1, 1, 0)
    b.env.run(until=100)
    # one is at the head, two wait, one comes too late; what the model being loaded gets waits at its lock, without limit
    assert list(b.refused) == [3]
    assert set(b.sent) == {0, 1, 2, 4}
    assert b.sent[4][0] == b.sent[0][0] == 2.0


@pytest.mark.parametrize("keep", [0.0, 3.0, 300.0])
def test_an_idle_model_goes_after_its_keep_alive(keep):
    b = Bench(*every("OLLAMA_KEEP_ALIVE", keep), seconds=1.0)
    b.ask(0.0, 0)
    b.ask(2.5, 0)  # served until 3.5
    b.env.run()
    assert b.log()[2:] == [
        (pytest.approx(3.5 + keep), "expire", 0),
        (pytest.approx(3.5 + keep + UNLOAD), "unloaded", 0),
    ]
    assert b.env.now == pytest.approx(3.5 + keep + UNLOAD)


def test_a_request_while_a_model_leaves_has_it_loaded_again():
    b = Bench(*every("OLLAMA_KEEP_ALIVE", 0))
    b.ask(0.0, 0)
    b.ask(3.5, 0)  # the first ended at 3
    b.env.run()
    assert b.sent[1] == (3.0 + UNLOAD + 2.0, b.names[0])
    assert b.host.reloads() == [b.names[0]]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_the_host_keeps_its_laws(seed):
    rng = np.random.default_rng(seed)
    queue, keep, loaded = int(rng.integers(1, 12)), float(rng.choice([0.0, 0.5, 5.0, 60.0])), int(rng.integers(0, 3))
    settings = (
        *every("OLLAMA_MAX_QUEUE", queue),
        *every("OLLAMA_KEEP_ALIVE", keep),
        *every("OLLAMA_MAX_LOADED_MODELS", loaded),
    )
    b = Bench(*settings, seconds=float(rng.choice([0.0, 0.3, 4.0])))
    for t in np.cumsum(rng.exponential(rng.choice([0.2, 1.0, 5.0]), 150)):
        b.ask(float(t), int(rng.integers(3)))
    b.env.run()

    assert set(b.sent) | set(b.refused) == set(range(150))
    assert not set(b.sent) & set(b.refused)
    assert set(b.done) == set(b.sent)
    assert not b.host.held
    assert not b.host._residency.runners  # every keep-alive has ended
    memory, resident, loading, leaving = b.plans[0].accelerator.memory_bytes, set(), 0, 0
    for _, what, key in b.host.log:
        if what == "load":
            assert not loading
            resident.add(key)
            loading = 1
        elif what == "ready":
            loading = 0
        elif what == "unloaded":
            resident.remove(key)
            leaving -= 1
        else:
            leaving += 1
        assert leaving <= 1
        assert sum(b.needs[k].vram for k in resident) <= memory
        assert len(resident) <= (loaded or 3)
    counts = [sum(what == kind for _, what, _ in b.host.log) for kind in ("load", "unloaded", "evict", "expire")]
    assert counts[0] == counts[1] == counts[2] + counts[3]


@pytest.mark.parametrize("runner", ["llama-server", "ollamarunner", "llamarunner"])
def test_what_fits_by_both_formulas(runner):
    plans = plan(load(*every("runner", runner), *every("num_ctx", 4096)))
    needs = [Needs.of(p) for p in plans]
    assert all(fits(p, n, 0.0) for p, n in zip(plans, needs, strict=True))
    assert fits(plans[1], needs[1], needs[0].vram)
    assert not fits(plans[2], needs[2], needs[0].vram + needs[1].vram + 4e9)
    assert not fits(plans[0], needs[0], 1e12)


def test_a_simulation_shows_loads_evictions_and_503_and_serves_nothing_too_early():
    result = sim.run(load(FEW, "traffic.synthetic.arrival.rate=3/s", *every("OLLAMA_MAX_QUEUE", 4)))
    s, r = result.summary, result.requests
    assert s["requests"]["rejected"] == s["fleet"]["busy_503"] > 0
    assert s["requests"]["finished"] + s["requests"]["rejected"] == 120
    assert s["fleet"]["model_evictions"] > 0
    assert s["context"]["accelerators"] == 1
    assert [c["name"] for c in s["classes"]] == ["llama3.1-8b", "qwen2.5-7b", "qwen3-14b"]
    said = " ".join(result.warnings)
    for words in ("models were loaded", "to make room", "answered 503", "shared the card"):
        assert words in said
    served = r[r["status"] == 0]
    for klass, seconds in enumerate((2.0, 2.0, 3.5)):
        mine = served[served["klass"] == klass]
        assert set(mine["replica"]) <= {klass}
        assert mine["first_scheduled_s"].min() >= mine["arrival_s"].min() + seconds - 1e-9
    late = served.loc[served["first_token_s"].idxmax()]
    assert late["first_token_s"] > late["arrival_s"]


def test_the_same_seed_gives_the_same_and_steps_in_one_stroke_change_nothing():
    a = Prepared(load(FEW)).run()
    b = Prepared(load(FEW)).run(multi_step=False)
    assert a.requests.equals(b.requests)
    assert a.summary["fleet"] == b.summary["fleet"]


@pytest.mark.parametrize("until", [3.0, 20.0, 61.7])
def test_whatever_the_end_every_request_is_accounted_for(until):
    s = sim.run(load(FEW, f"until={until}")).summary["requests"]
    assert s["injected"] == s["finished"] + s["rejected"] + s["failed"] + s["in_flight"]
    assert s["in_flight"] > 0 or until > 3.0


def test_waiting_clients_get_their_answers():
    s = sim.run(load(FEW, "traffic.closed_loop.concurrency=6", "traffic.closed_loop.think_time=0.5s")).summary
    assert s["requests"]["finished"] == 120
    assert s["fleet"]["busy_503"] == 0


def test_shares_are_the_share_of_requests():
    plans = plan(load())
    mix = Mix([p.share for p in plans], np.random.default_rng(1))
    n = 90_000
    models = mix.models(RequestBlock.of(np.arange(n), np.full(n, 10), np.full(n, 5)))
    assert np.bincount(models) / n == pytest.approx([5 / 9, 3 / 9, 1 / 9], abs=0.01)
    models = mix.models(RequestBlock.of(np.arange(n), np.full(n, 10), np.full(n, 5), session=np.arange(n) // 3))
    assert (models.reshape(-1, 3) == models[::3, None]).all()


def test_a_cache_does_not_outlive_its_process():
    one = (
        "pools[1].share=0.000001",
        "pools[2].share=0.000001",
        "traffic.synthetic.arrival.rate=0.05/s",
        "traffic.synthetic.requests=40",
    )
    prefixes = ("traffic.synthetic.prefixes.groups=1", "traffic.synthetic.prefixes.shared_tokens=500")
    kept = sim.run(load(*one, *prefixes)).summary
    gone = sim.run(load(*one, *prefixes, *every("OLLAMA_KEEP_ALIVE", 0))).summary
    assert kept["fleet"]["model_reloads"] == 0
    assert kept["tokens"]["cached"] >= 500 * 39
    assert gone["fleet"]["model_reloads"] > 30
    assert gone["tokens"]["cached"] < 500 * 10


@pytest.mark.parametrize(
    ("override", "error", "says"),
    [
        ("pools[1].replicas=2", ConfigError, "number of hosts"),
        ("pools[1].tp=2", NotModelledError, "tp"),
        ("pools[1].accelerator=rtx-3090", ConfigError, "one accelerator"),
        ("pools[1].engine.OLLAMA_MAX_QUEUE=9", ConfigError, "OLLAMA_MAX_QUEUE"),
        ("pools[1].engine={name: vllm}", NotModelledError, "vllm"),
        ("router=mindie_motor", NotModelledError, "does not speak to Ollama"),
        ("router={name: llumnix, enable_rescheduling: true}", NotModelledError, "running request to another server"),
        ("scaling={name: eas, max: 2, targets: {qps: 1}}", NotModelledError, "starts servers by load"),
    ],
)
def test_what_cannot_share_a_card_is_refused(override, error, says):
    with pytest.raises(error, match=says):
        plan(load(override))


def test_a_share_needs_models():
    with pytest.raises(ConfigError, match="share"):
        plan(load("pools[1].model=null", "pools[2].model=null"))


def test_models_that_serve_at_once_share_the_card():
    b = Bench(seconds=10.0)
    b.ask(0.0, 0)
    b.ask(1.0, 1)
    b.ask(3.0, 0)
    b.env.run(until=100)
    # the first serves from 2 to 13, the second from 4 to 14; who is alone keeps the share it had until it serves again
    assert b.shares == [(4.0, 0, 2), (4.0, 1, 2), (13.0, 1, 1)]
    assert b.host.together == pytest.approx(9.0)


def _alone_and_together(together):
    """Median seconds per token of two models whose requests come at the same time or not."""
    overrides = (
        "traffic.synthetic.lengths={kind: fixed, prompt_tokens: 100, output_tokens: 200}",
        "traffic.synthetic.arrival={process: constant, rate: 0.2/s}"
        if not together
        else "traffic.synthetic.arrival={process: constant, rate: 2/s}",
        "traffic.synthetic.requests=40",
        "pools[2].share=0.000001",
        *every("OLLAMA_NUM_PARALLEL", 1),
    )
    requests = sim.run(load(*overrides)).requests
    done = requests[(requests.status == 0) & (requests.klass == 1)]  # which is never alone while there is much to do
    return float(((done.finish_s - done.first_token_s) / (done.output_tokens - 1)).median())


def test_a_token_takes_twice_as_long_while_two_models_compute():
    alone, together = _alone_and_together(False), _alone_and_together(True)
    assert 1.8 * alone < together < 2.01 * alone
