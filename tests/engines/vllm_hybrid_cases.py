"""Random recordings for models with several KV groups, in the format of golden/vllm_hybrid, without rows."""

from __future__ import annotations

import random
from typing import Any

PATTERNS = ("SFSFSF", "SSSSSF", "SSSS", "CCCF", "MMMF", "MSF", "SF", "MF", "FFFF")
KINDS = {"S": "SlidingWindowSpec", "F": "FullAttentionSpec", "C": "ChunkedLocalAttentionSpec", "M": "MambaSpec"}


def groups_of(r: random.Random, pattern: str, size: int, window: int, caching: bool, length: int) -> list[dict[str, Any]]:
    """Groups in the order of first appearance; those of the commonest kind in several."""
    out = []
    wide = r.random() < 0.15 and "S" in pattern and "M" not in pattern and "C" not in pattern
    for letter in dict.fromkeys(pattern):
        n = max(pattern.count(letter) // max(min(pattern.count(x) for x in set(pattern)), 1), 1) if len(set(pattern)) > 1 else 1
        block = 2 * size if letter == "S" and wide and "F" in pattern else size
        if letter == "M" and not caching:
            block = length
        group = {"kind": KINDS[letter], "layers": 1, "block_size": block, "eagle": False, "page_bytes": 1024}
        out += [group | {"window": window if letter == "S" else None} for _ in range(n)]
    return out


def engine_of(r: random.Random, pattern: str, size: int) -> dict[str, Any]:
    """Settings of the scheduler."""
    length = r.choice([128, 256, 512])
    engine: dict[str, Any] = {
        "block_size": size,
        "max_num_seqs": r.choice([2, 4, 8, 16]),
        "max_num_batched_tokens": r.choice([32, 64, 128, 512]),
        "max_model_len": length,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": r.random() < 0.8,
        "long_prefill_token_threshold": r.choice([0, 0, 0, 40]),
        "policy": r.choice(["fcfs", "fcfs", "fcfs", "priority"]),
        "async_scheduling": r.random() < 0.5,
        "num_speculative_tokens": 0,
        "scheduler_reserve_full_isl": r.random() < 0.8,
        "watermark": r.choice([0.0, 0.0, 0.05]),
        "kv": {"pattern": pattern, "window": r.choice([8, 17, 32, 64, 100]), "chunk": r.choice([2, 4]) * size},
    }
    if r.random() < 0.2:
        engine["pipeline_parallel_size"] = 2
    if r.random() < 0.25:
        engine |= {"num_speculative_tokens": r.choice([1, 2, 3]), "spec_method": r.choice(["eagle", "mtp", "ngram"])}
        if r.random() < 0.4 and engine["spec_method"] != "ngram" and "C" not in pattern:
            engine["disable_lookahead_block_hashes"] = True
    return engine


def requests_of(r: random.Random, length: int) -> list[dict[str, Any]]:
    """Prompts that share prefixes, are sent again, or go on."""
    n, gap, out, seen = r.randint(4, 30), r.choice([0, 2000, 20000]), [], []
    now = 0
    for i in range(n):
        now += r.randint(0, gap)
        room = length - 2
        pieces: list[list[int]] = []
        if seen and r.random() < 0.5:
            for content, tokens in r.choice(seen):
                take = min(tokens if r.random() < 0.8 else r.randint(1, tokens), room - 1)
                if take > 0:
                    pieces.append([content, take])
                    room -= take
                if take < tokens:
                    break
        if room > 1 and (not pieces or r.random() < 0.8):
            pieces.append([1000 + i, r.randint(1, max(room - 1, 1))])
        tokens = r.choice([1, 4, r.randint(1, length // 2), r.randint(1, length)])
        row = {"id": f"r{i}", "arrival_us": now, "prompt": pieces, "out_seg": 50_000 + i, "max_tokens": tokens}
        out.append(row | {"priority": r.randint(0, 2)})
        seen.append([*pieces, [50_000 + i, max(tokens // 2, 1)]])
    return out


def scenario(seed: int) -> dict[str, Any]:
    """One case. Blocks are few, but one request of the longest length fits."""
    r = random.Random(seed)
    pattern, size = r.choice(PATTERNS), r.choice([4, 8, 16])
    engine = engine_of(r, pattern, size)
    length, caching, kv = engine["max_model_len"], engine["enable_prefix_caching"], engine["kv"]
    if "C" in pattern:
        engine |= {"num_speculative_tokens": 0, "spec_method": None}
    states = "M" in pattern and caching
    fine = states and "S" not in pattern and not engine.get("disable_lookahead_block_hashes") and r.random() < 0.4
    if states and r.random() < 0.3 and not fine:
        kv["ckpt"] = size
    groups = groups_of(r, pattern, size, kv["window"], caching, length)
    if engine["num_speculative_tokens"] and r.random() < 0.7 and groups[-1]["kind"] != "MambaSpec":
        groups[-1]["eagle"] = bool(engine.get("disable_lookahead_block_hashes"))
    grid = max(g["block_size"] for g in groups)
    unit = size // 2 if fine else (min(g["block_size"] for g in groups) if caching else grid)
    if fine:
        engine["prefix_match_unit"] = unit
    if r.random() < 0.4 and any(g["kind"] in ("SlidingWindowSpec", "MambaSpec") for g in groups):
        engine["prefix_cache_retention_interval"] = r.choice([None, grid, 2 * grid, 4 * grid])
    per_request = sum(1 + 4 + 1 if g["kind"] == "MambaSpec" else -(-length // g["block_size"]) + 2 for g in groups)
    engine["num_gpu_blocks"] = per_request + 2 + r.choice([0, r.randint(0, per_request), 8 * per_request])
    plan = {
        "groups": groups,
        "scheduler_block_size": grid,
        "hash_block_size": unit,
        "hit_alignment": unit if fine else grid,
        "num_blocks": engine["num_gpu_blocks"],
    }
    made: dict[str, Any] = {
        "engine": engine,
        "kv_plan": plan,
        "duration_us": {"a": 5000, "b": 20, "c": 30},
        "requests": requests_of(r, length),
        "accept_pattern": [r.randint(0, 3) for _ in range(5)],
    }
    plain = not engine["num_speculative_tokens"] and not engine.get("pipeline_parallel_size") and "M" not in pattern
    if plain and r.random() < 0.2:
        engine["idle_sleep_us"] = 1000
        made["connector"] = {"role": r.choice(["prefill", "decode"]), "x_us": r.choice([0, 3000]), "y_us": 40}
        if made["connector"]["role"] == "prefill":
            for request in made["requests"]:
                request["max_tokens"] = 1
    return made
