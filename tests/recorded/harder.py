"""Worlds of ties, of requests that just fit, and of several things at once: who goes and who dies where memory has tiers, sides or pools; releases with
models that forget; routers that look into ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.recorded.worlds import BLOCKS, DYING, LEAVING, LIMITS, SHORT, TALKS, World, apart, pressed, with_engine
from tests.settings import ollama, sglang, vllm
from tests.settings.traffic import GROWING, PRIORITIES, SPARSE, traffic
from tests.settings.walk import merged

EQUAL = traffic({"process": "burst"}, {"kind": "fixed", "prompt_tokens": 64, "output_tokens": 40}, 20)
"""Nobody is first by what it asks for."""
PAIRS = traffic(
    {"process": "constant", "rate": "400/s"},
    {"kind": "fixed", "prompt_tokens": 96, "output_tokens": 33},
    24,
    prefixes={"groups": 2, "shared_tokens": 64},
)
CROWD = traffic({"process": "burst"}, {"kind": "uniform", "prompt_tokens": [4, 40], "output_tokens": [1, 4]}, 300)
"""More than arrays have room for at first."""
NAMES = ("bladellm", "llamacpp", "mindie", "ollama", "sglang", "tgi", "vllm", "vllm-ascend", "vllm-v0")
OF = {"mindie": ("qwen3-8b", "ascend-910b3"), "vllm-ascend": ("qwen3-8b", "ascend-910b3"), "bladellm": ("qwen3-8b", "h20")}
CLOSE = {"clients": {"name": "openai", "timeout": "60ms", "max_retries": 1}}
QUANTISED = {"weights": "q4_k_m"}
ROUTERS = (
    "least_outstanding", "power_of_two", "llumnix_v0", "vllm_router", "sglang_router", "aibrix", "llm_d", "kubernetes", "litellm", "nginx",
    "production_stack", "ray_serve",
)  # fmt: skip


def base(name: str) -> World:
    """One engine with little memory."""
    model, card = OF.get(name, ("llama-3.1-8b", "h100-sxm"))
    out: World = {"model": {"name": model} | (QUANTISED if name in ("llamacpp", "ollama") else {}), "traffic": SHORT}
    return pressed(out | {"deployment": {"accelerator": card, "engine": {"name": name}}}, name)


def settings_of(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings under which much is decided."""
    if name == "vllm":
        yield "tiers", vllm.tiers(cpu_bytes_to_use="20MB")
        yield "lmcache", vllm.lmcache(max_local_cpu_size=0.02, remote_url="lm://store", enable_async_loading=True)
        yield "disk", vllm.lmcache(max_local_cpu_size=0.01, max_local_disk_size=0.05)
        yield "drafts", vllm.DRAFT
        yield "first", {"scheduling_policy": "priority", "max_num_seqs": 6}
        yield "synchronous", {"async_scheduling": False, "max_num_batched_tokens": 64, "max_num_seqs": 8}
    elif name == "sglang":
        yield "hicache", sglang.HICACHE | {"hicache_ratio": 1.5}
        yield "written back", sglang.HICACHE | {"hicache_ratio": 1.5, "hicache_write_policy": "write_back"}
        yield "storage", sglang.storage(size=0.05, prefetch_threshold=8) | sglang.WAITS
        yield "storage, timeout", sglang.storage(size=0.05, prefetch_threshold=8) | {"hicache_storage_prefetch_policy": "timeout"}
        yield "drafts", sglang.EAGLE
        yield "first", sglang.FIRST
        yield "mixed", {"enable_mixed_chunk": True, "chunked_prefill_size": 64, "schedule_conservativeness": 0.1}
        yield "lpm", {"schedule_policy": "lpm", "page_size": 16, "disable_overlap_schedule": True}
    elif name == "vllm-v0":
        yield "swaps", {"preemption_mode": "swap"}
        yield "first", {"scheduling_policy": "priority", "max_num_seqs": 6}
        yield "chunks", {"enable_chunked_prefill": True, "max_num_batched_tokens": 64, "max_num_seqs": 8}
        yield "swaps of old", {"preemption_mode": "swap", "version": "0.5.4"}
    elif name == "mindie":
        yield "swaps", {"maxPreemptCount": 4, "cpuMemSize": 4}
        yield "mix", {"templateType": "Mix", "maxPrefillTokens": 512, "prefillChunkSize": 32}
        yield "guesses", {"plugin_params": {"plugin_type": "mtp", "num_speculative_tokens": 2}}
        yield "selects", {"supportSelectBatch": True}
    elif name == "tgi":
        yield "whole prompts", {"prefill_chunking": False}
        yield "old", {"version": "2.0"}
    elif name == "bladellm":
        yield "few", {"max_batch_size": 3, "ragged_flash_max_batch_tokens": 64}


ROOM = 256
"""Tokens that a pool holds in all, where requests just fit; vLLM keeps one block beside."""
BLOCK = {"vllm": 16, "vllm-v0": 16, "vllm-ascend": 128, "bladellm": 16, "mindie": 128, "sglang": 1, "tgi": 1}


def just_fits(name: str) -> Iterator[tuple[str, World]]:
    """Requests that need all blocks there are, one token less, and one more."""
    most = {
        "tgi": {"max_total_tokens": ROOM, "max_input_tokens": ROOM - 1},
        "mindie": {"maxSeqLen": ROOM, "maxInputTokenLen": ROOM - 1, "maxIterTimes": 200, "maxPrefillTokens": ROOM},
    }
    given = most.get(name, {} if name == "sglang" else {"max_model_len": ROOM})
    for prompt, output in ((200, 56), (200, 55), (200, 57), (254, 1), (255, 1), (256, 1), (127, 129), (128, 1), (128, 127)):
        lengths = {"kind": "fixed", "prompt_tokens": prompt, "output_tokens": output}
        load = traffic({"process": "constant", "rate": "50/s"}, lengths, 5) | {"too_long": "skip"}
        world = merged(
            base(name),
            {"traffic": None},
            {"traffic": load, "deployment": {"kv_blocks": ROOM // BLOCK[name] + (name in ("vllm", "vllm-ascend", "bladellm"))}},
        )
        yield f"{name} {prompt} and {output} of {ROOM}", with_engine(world, **given)


def several() -> Iterator[tuple[str, World]]:
    """All by name."""
    for name in NAMES:
        hard = base(name)
        yield f"{name} equal", merged(hard, {"traffic": None}, {"traffic": EQUAL})
        yield f"{name} pairs", merged(hard, {"traffic": None}, {"traffic": PAIRS})
        yield f"{name} crowd", merged(hard, {"traffic": None}, {"traffic": CROWD})
        yield f"{name} crowd that goes", merged(hard, {"traffic": None}, {"traffic": CROWD}, LEAVING)
        for what, given in settings_of(name):
            under = with_engine(hard, **given)
            yield f"{name} {what} equal", merged(under, {"traffic": None}, {"traffic": EQUAL}, PRIORITIES)
            yield f"{name} {what} talks", merged(under, {"traffic": None}, TALKS)
            yield f"{name} {what} growing", merged(under, {"traffic": None}, GROWING)
            yield f"{name} {what} who goes", merged(under, {"traffic": None}, TALKS, LEAVING)
            yield f"{name} {what} who dies", merged(under, DYING)
    for name, models in (("vllm", ("gpt-oss-20b", "qwen3.5-9b", "gemma-3-12b")), ("sglang", ("gpt-oss-20b", "qwen3.5-9b"))):
        for model in models:
            forgets = merged(
                base(name),
                {"model": None},
                {"model": model, "deployment": {"kv_blocks": (12 if "gemma" in model else 3) * BLOCKS[name]}},
            )
            if "qwen" in model and name == "sglang":
                forgets = with_engine(forgets, max_mamba_cache_size=42)
            yield f"{name} {model} equal", merged(forgets, {"traffic": None}, {"traffic": EQUAL})
            yield f"{name} {model} who goes", merged(forgets, {"traffic": None}, TALKS, LEAVING)
            yield f"{name} {model} who dies", merged(forgets, DYING)
            yield f"{name} {model} pp 2", merged(forgets, {"deployment": {"pp": 2}})
            for version in ("0.10", "0.11", "0.12", "0.14") if name == "vllm" else ():
                yield f"{name} {version} {model}", with_engine(merged(forgets, {"traffic": None}, TALKS), version=version)
    for name, card in (("vllm", "h100-sxm"), ("sglang", "h100-sxm"), ("mindie", "ascend-910b3")):
        few = apart(name, card)
        for pool in few["pools"]:
            pool["kv_blocks"] = BLOCKS[name] + (4 if name == "mindie" else 0)
        yield f"{name} sides growing", merged(few, {"traffic": None}, GROWING)
        yield f"{name} sides equal", merged(few, {"traffic": None}, {"traffic": EQUAL})
        yield f"{name} sides, crowd", merged(few, {"traffic": None}, {"traffic": CROWD})
        yield f"{name} sides first", merged(few, PRIORITIES)
        yield f"{name} sides who goes early", merged(few, CLOSE)
    for name in BLOCK:
        yield from just_fits(name)
    for what, given in (
        ("one", {"OLLAMA_MAX_LOADED_MODELS": 1}),
        ("at once gone", {"OLLAMA_KEEP_ALIVE": "0s"}),
        ("few", {"OLLAMA_MAX_QUEUE": 3}),
        ("halves", {"num_gpu": 20}),
    ):
        two = {"model": "llama-3.1-8b", **{k: v for k, v in ollama.host(**given).items() if v is not None}}
        for when, load in (("sparse", SPARSE["traffic"]), ("together", EQUAL)):
            yield f"ollama two models, {what}, {when}", merged(two, {"traffic": load})
    yield "vllm ranks", merged(base("vllm"), {"traffic": None}, {"traffic": EQUAL, "deployment": {"dp": 2}})
    for router in ROUTERS:
        ranks = with_engine(
            merged(base("vllm"), {"deployment": {"dp": 2, "replicas": 2, "kv_blocks": 120}, "router": {"name": router}}),
            **LIMITS["vllm"],
        )
        yield f"ranks behind {router}", ranks
        yield (
            f"replicas behind {router}",
            merged(base("sglang"), {"traffic": None}, TALKS, {"deployment": {"replicas": 3}, "router": {"name": router}}),
        )
