"""SGLang's pipeline loop against a slow twin: the reference's decisions, driven by the micro-batch slots of ``event_loop_pp`` as written."""

import json
import random

import pytest

from sim.study.conformance.sglang import replay
from tests.fuzz import enough
from tests.fuzz.test_sglang import random_requests, random_server, reference  # noqa: F401

STEPS = enough(6_000)
KEYS = ("mode", "ext", "dec", "ndec", "ret", "ev", "avail", "evictable", "protected", "nq", "q", "full", "nrun", "fin")
TIMES = ("t", "ts", "te", "ratio")


def pipelined(reference, recording, stages, slots, micro):  # noqa: F811
    """Launched batches of a pipeline, in the format of recordings."""

    class Pipeline(reference.Sim):
        def alloc_reqs(self, run_bs, held):
            return min(micro - run_bs, max(self.rows + held, 0))

    s = Pipeline(recording)
    random.seed(s.seed)
    running = [reference.Batch([]) for _ in range(slots)]
    last, batches, rows, ends = [None] * slots, [None] * slots, [None] * slots, [0.0] * slots
    free = [0] * stages
    trace, quiet, fed, now, j = [], 0, 0, 0, 0
    dur = {k: round(s.dur[k] * 1e6) for k in "abc"}
    arrivals = [round(r["t"] * 1e6) for r in s.reqs]
    while True:
        while fed < len(s.reqs) and arrivals[fed] <= now:
            s.enqueue(reference.Req(s.reqs[fed], s.mrl, s.kv, s.ps))
            fed += 1
        s.running, s.last = running[j], last[j]
        waited = s.pdi_rem > 0
        b = s.next()
        running[j], batches[j] = s.running, b
        if b is None:
            quiet += 1
        else:
            quiet = 0
            d = {"t": now / 1e6, "mode": b.mode, "dec": [r.id for r in b.dec], "ndec": len(b.dec), "ret": s.ret}
            d["ext"] = b.ext if b.mode != "decode" else []
            d |= {"ev": s.tree.evicted_now, "ratio": s.ratio, "avail": s.tree.free, "evictable": s.tree.evictable}
            d |= {"protected": s.tree.protected, "nq": len(s.waiting), "q": [r.id for r in s.waiting]}
            d |= {"full": int(s.running.full), "nrun": len(s.running.reqs)}
            dt = dur["a"] + dur["b"] * sum(e[2] for e in d["ext"]) + dur["c"] * len(b.dec)
            t, left = now, dt
            for k in range(stages):
                t = max(t, free[k])
                if k == 0:
                    d["ts"] = t / 1e6
                share = dt // stages if k < stages - 1 else left
                left -= share
                t += share
                free[k] = t
            d["te"] = t / 1e6
            s.ptok += b.ent
            ends[j], rows[j] = t, d
            trace.append(d)
        if s.tree.free < 0 or len(trace) > 20_000:
            return None
        after = (j + 1) % slots
        if batches[after] is not None:
            now = max(now, ends[after])
            rows[after]["fin"] = s.process(batches[after])
            last[after] = batches[after]
            quiet = 0
        elif quiet >= slots and not any(batches):
            if not any(r.reqs for r in running) and s.chunked is None and not s.waiting:
                s.ratio = s.init
            if not (waited and (s.waiting or s.chunked)):
                if fed == len(s.reqs):
                    return trace
                now = max(now, arrivals[fed])
                quiet = 0
        j = after


def filled(rows):
    """Rows with what is omitted because it is empty or unchanged."""
    queue, decoding = [], []
    for row in rows:
        queue = row.get("q", queue)
        if row["mode"] != "extend":
            decoding = row.get("dec", decoding)
        yield {"ret": [], "ev": 0, "fin": [], "ext": []} | row | {"q": queue, "dec": decoding if row["mode"] != "extend" else []}


def compared(reference, seed):  # noqa: F811
    """Steps of one random scenario that were compared (0: not runnable); raises AssertionError at the first difference."""
    r = random.Random(seed)
    meta = random_server(r)
    stages, depth = r.choice([2, 2, 3, 4]), r.choice([0, 0, 1, 2])
    meta["overlap"] = meta["resolved"]["mixed"] = False
    arguments = meta["scenario"]["server_args"]
    arguments["schedule_low_priority_values_first"] = False
    rows = meta["resolved"]["max_running_requests"]
    micro = max(rows // stages, 1)
    if r.random() < 0.3:
        micro = arguments["pp_max_micro_batch_size"] = r.choice([1, 2, 5])
    requests = random_requests(r, meta)
    recording = {"meta": meta, "requests": requests, "trace": []}
    try:
        expected = pipelined(reference, recording, stages, stages + depth, micro)
    except (AssertionError, IndexError):
        return 0
    if expected is None:
        return 0
    arguments |= {"pp_size": stages, "pp_async_batch_depth": depth}
    ours = list(filled(replay(recording)))
    expected = list(filled(json.loads(json.dumps(expected))))
    for i, (a, b) in enumerate(zip(expected, ours, strict=False)):
        wrong = [k for k in KEYS if a[k] != b[k]] + [k for k in TIMES if abs(a[k] - b[k]) > 2e-6]
        assert not wrong, (seed, i, {k: (a[k], b[k]) for k in wrong}, meta)
    assert len(expected) == len(ours), (seed, meta)
    return len(ours)


def test_pipelines_decide_as_the_twin(reference):  # noqa: F811
    steps, seed = 0, 0
    while steps < STEPS or seed < 4:
        steps += compared(reference, seed)
        seed += 1


@pytest.mark.slow
def test_many_pipelines_decide_as_the_twin(reference):  # noqa: F811
    for seed in range(10_000, 11_000):
        compared(reference, seed)
