"""Random settings and loads in the format of the vLLM recordings, and their reduction to a small failing one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any


def random_scenario(seed: int) -> dict[str, Any]:
    """A scenario of up to 60 requests that presses on memory, budget or places, with settings of any kind."""
    r = random.Random(seed)
    size = r.choice([1, 4, 8, 16, 16, 16])
    length = r.choice([64, 128, 256, 512])
    fits = -(-length // size)
    blocks = fits + 2 + r.choice([0, r.randint(0, fits), r.randint(0, 6 * fits)])
    chunked = r.random() < 0.85
    budget = r.choice([16, 24, 48, 64, 128, 256, 512]) if chunked else length + r.choice([0, 64])
    seqs = min(r.choice([2, 4, 8, 16, 32]), budget)
    pp = r.choice([1, 1, 1, 1, 2, 3])
    engine: dict[str, Any] = {
        "block_size": size,
        "num_gpu_blocks": blocks,
        "max_num_seqs": seqs,
        "max_num_batched_tokens": budget,
        "max_model_len": length,
        "enable_chunked_prefill": chunked,
        "enable_prefix_caching": r.random() < 0.6,
        "long_prefill_token_threshold": r.choice([0, 0, 0, 8, 20, 64]),
        "policy": r.choice(["fcfs", "fcfs", "priority"]),
        "async_scheduling": r.random() < 0.5,
        "scheduler_reserve_full_isl": r.random() < 0.75,
        "watermark": r.choice([0.0, 0.0, 0.0, 0.05]),
    }
    if engine["long_prefill_token_threshold"] and r.random() < 0.3:
        engine["long_prefill_token_threshold_adaptive"] = True
    engine["long_prefill_token_threshold"] = min(engine["long_prefill_token_threshold"], length)
    if pp > 1:
        engine["pipeline_parallel_size"] = pp
    if r.random() < 0.15:
        engine["prefill_schedule_interval"] = r.choice([2, 3, 5])
    if r.random() < 0.15:
        engine["max_num_active_seqs"] = r.randint(1, seqs)
    loras = r.random() < 0.15
    if loras:
        engine["max_loras"] = r.randint(1, 3)
    scenario: dict[str, Any] = {"engine": engine, "duration_us": {"a": r.choice([1000, 5000]), "b": 20, "c": 30}}
    if r.random() < 0.25:
        engine["num_speculative_tokens"] = r.choice([1, 2, 3, 5])
        engine["spec_method"] = r.choice(["eagle", "draft_model", "ngram", "mtp"])
        scenario["accept_pattern"] = [r.randint(0, 5) for _ in range(r.randint(1, 9))]
    role = r.choice([None] * 8 + ["prefill", "decode", "decode"])
    if role:
        scenario["connector"] = {"role": role, "x_us": r.choice([0, 700, 3000, 20000]), "y_us": r.choice([0, 10, 40])}
        engine["idle_sleep_us"] = 1000
    shared = [(1000 + i, r.randint(1, length)) for i in range(4)]
    requests: list[dict[str, Any]] = []
    now = 0
    gap = r.choice([0, 500, 3000, 10000, 40000])
    for i in range(r.randint(1, 60)):
        now += r.choice([0, 0, int(r.expovariate(1.0) * gap)])
        prompt: list[list[int]] = []
        if r.random() < 0.5:
            segment, n = r.choice(shared)
            prompt.append([segment, n if r.random() < 0.7 else r.randint(1, n)])
        if requests and r.random() < 0.3:  # a further turn: history with what was generated
            old = r.choice(requests)
            prompt = [list(piece) for piece in old["prompt"]] + [[old["out_seg"], old["max_tokens"]]]
        elif requests and r.random() < 0.15:
            prompt = [list(piece) for piece in r.choice(requests)["prompt"]]
        if not prompt or r.random() < 0.7:
            prompt.append([10000 + i, r.choice([r.randint(1, length), r.randint(1, 2 * size), size, 2 * size])])
        left = length - 1
        cut = []
        for segment, n in prompt:
            if left > 0:
                cut.append([segment, min(n, left)])
                left -= cut[-1][1]
        request: dict[str, Any] = {"id": f"r{i}", "arrival_us": now, "prompt": cut, "out_seg": 50000 + i}
        request["max_tokens"] = 1 if role == "prefill" else r.choice([1, 2, r.randint(1, 40), r.randint(1, length)])
        request["priority"] = r.choice([0, 0, 1, 2, 5])
        if loras:
            request["lora"] = r.randint(0, 4)
        requests.append(request)
    scenario["requests"] = requests
    return scenario


def shrink(scenario: dict[str, Any], differs: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Drop requests, in ever smaller groups, as long as the scenario still ``differs``."""
    size = len(scenario["requests"])
    while size >= 1:
        i = 0
        while i < len(scenario["requests"]):
            rest = scenario["requests"][:i] + scenario["requests"][i + size :]
            if rest and differs(scenario | {"requests": rest}):
                scenario = scenario | {"requests": rest}
            else:
                i += size
        size //= 2
    return scenario
