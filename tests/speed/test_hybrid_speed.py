"""What a request costs where layers forget, against the same model with full attention everywhere: `pytest -m speed -s tests/speed/test_hybrid_speed.py`.

The speed is that of requests; where fewer prompt tokens come from the cache a request is more work for the real engine, too, so what a step costs
stands beside it.
"""

from __future__ import annotations

import time
from math import inf

import pytest

import sim
from sim.study.single import Prepared

pytestmark = pytest.mark.speed

TEXT = """
model: {model}
traffic:
  synthetic:
    arrival: {{process: poisson, rate: {rate}/s}}
    lengths: {{kind: lognormal, prompt_tokens: {{mean: 560, cv: 0.8, min: 20, max: 4000}}, output_tokens: {{mean: 200, cv: 0.8, min: 2, max: 1000}}}}
    requests: 4000
    {more}
deployment: {{accelerator: h100-sxm, engine: {{name: vllm, max_model_len: 8192}}}}
record: {{timeseries: false}}
"""
PREFIXES = "prefixes: {groups: 80, shared_tokens: 2500, zipf: 1.5}"
SESSIONS = "sessions: {turns: 4, think_time: 5s, max_context: 8000}"


@pytest.mark.parametrize(
    ("model", "rate", "more", "bar"),
    [
        ("gpt-oss-20b", 8, "", 0.6),
        ("gpt-oss-20b", 8, PREFIXES, 0.6),
        ("gpt-oss-20b", 8, SESSIONS, 0.6),
        ("gemma-3-27b", 2.9, "", 0.6),
        # memory is scarce: 20 % of prompt tokens are cached, not 60 %, and seven groups name and lose six times the blocks
        ("gemma-3-27b", 2.9, PREFIXES, 0.2),
    ],
    ids=["gpt-oss", "gpt-oss-prefixes", "gpt-oss-sessions", "gemma", "gemma-prefixes"],
)
def test_models_whose_layers_forget(model: str, rate: float, more: str, bar: float) -> None:
    text = TEXT.format(model=model, rate=rate, more=more)
    made = {
        "groups": Prepared(sim.loads(text)),
        "full attention": Prepared(sim.loads(text, ("deployment.engine.disable_hybrid_kv_cache_manager=true",))),
    }
    spent = dict.fromkeys(made, inf)
    found = {}
    for again in range(4):
        for name, one in made.items():
            began = time.process_time()
            found[name] = one.run().summary
            if again:  # compiled, warm
                spent[name] = min(spent[name], 1e6 * (time.process_time() - began))
    for name, summary in found.items():
        each, step, cached = spent[name] / 4000, spent[name] / summary["steps"], summary["tokens"]["cached_share"]
        print(f"\n{model}, {name}: {each:.1f} µs a request, {step:.2f} µs a step, {cached:.0%} cached", end="")
    ratio = spent["full attention"] / spent["groups"]
    print(f"\n{ratio:.2f} of the speed of full attention (bar {bar})")
    assert ratio >= bar
