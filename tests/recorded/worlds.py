"""The worlds that are recorded: each setting of each engine where it matters and where memory is short, every line of versions, other models and
layouts, clients who go, processes that die, and pools that hand over."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.settings.traffic import ADAPTERS, EXPERTS, GROWING, PRIORITIES, TALK, sides, traffic
from tests.settings.walk import Case, merged, nested

World = dict[str, Any]

ENGINES = ("bladellm", "llamacpp", "mindie", "ollama", "sglang", "static", "tgi", "vllm", "vllm-ascend", "vllm-v0")
BLOCKS = {"sglang": 700, "tgi": 900, "mindie": 9, "vllm": 50, "vllm-v0": 50, "vllm-ascend": 10, "bladellm": 50}
"""So few that requests of `SHORT` get into each other's way."""
LIMITS: dict[str, World] = {
    **{name: {"max_model_len": 512} for name in ("vllm", "vllm-v0", "vllm-ascend", "bladellm")},
    "tgi": {"max_total_tokens": 512, "max_input_tokens": 500},
    "mindie": {"maxSeqLen": 512, "maxInputTokenLen": 500, "maxIterTimes": 90, "maxPrefillTokens": 512},
}
"""So short that one request fits."""
SHORT = traffic(
    {"process": "gamma", "rate": "120/s", "cv": 2.0},
    {"kind": "uniform", "prompt_tokens": [10, 150], "output_tokens": [2, 50]},
    28,
    prefixes={"groups": 3, "shared_tokens": 70},
) | {"too_long": "skip"}
LEAVING = {"clients": {"name": "openai", "timeout": "250ms", "max_retries": 1}}
DYING = {"deployment": {"replicas": 2}, "faults": {"name": "crash", "replica": 1, "at": "150ms", "for": "100ms"}}
TALKS = merged(
    TALK, {"traffic": {"synthetic": {"arrival": {"process": "poisson", "rate": "30/s"}, "sessions": {"think_time": "0.2s"}}}}
)
PLAIN = Path(__file__).parents[1] / "plugins" / "plain_schedulers.py"
FIRST = {
    "vllm": {"scheduling_policy": "priority"},
    "vllm-v0": {"scheduling_policy": "priority"},
    "sglang": {"enable_priority_scheduling": True},
}
"""Settings by which priorities count."""
MODELS = {
    "vllm": ("gpt-oss-20b", "qwen3.5-9b", "gemma-3-12b", "deepseek-v2-lite", "qwen3-30b-a3b"),
    "sglang": ("gpt-oss-20b", "qwen3.5-9b", "gemma-3-12b", "deepseek-v2-lite", "qwen3-30b-a3b"),
    "llamacpp": ("gemma-3-12b", "gpt-oss-20b", "qwen3-30b-a3b"),
    "ollama": ("gemma-3-12b", "gpt-oss-20b", "qwen3-30b-a3b"),
    "tgi": ("mistral-7b",),
    "mindie": ("qwen2.5-7b", "deepseek-v2-lite"),
    "vllm-ascend": ("deepseek-v2-lite", "qwen3-30b-a3b"),
}
CARDS = {
    "vllm": ("a100-sxm-80g", "l4", "b200", "mi300x"), "sglang": ("a100-sxm-80g", "l4", "b200", "mi300x"), "tgi": ("l4",), "llamacpp": ("cpu-server", "l4"),
    "ollama": ("l4",), "vllm-v0": ("l4",), "mindie": ("ascend-910b4",), "vllm-ascend": ("ascend-910b4",), "bladellm": ("l20",),
}  # fmt: skip
VERSIONS: dict[str, tuple[str, ...]] = {
    "sglang": ("0.2", "0.3", "0.4", "0.4.6", "0.5", "0.5.3"),
    "tgi": ("0.8", "1.0", "1.4", "2.0", "2.2", "3.0"),
    "vllm": ("0.1", "0.2.7", "0.6", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.19", "0.25"),
    "vllm-ascend": ("0.7", "0.9", "0.9.2", "0.11", "0.14", "0.18", "0.21"),
    "vllm-v0": ("0.1", "0.2", "0.2.7", "0.3", "0.4", "0.5", "0.5.2", "0.6", "0.6.2", "0.7", "0.8"),
    "ollama": ("0.3", "0.12", "0.20"),
    "mindie": ("1.0", "2.1"),
}
"""Of each engine some of either side of what its releases changed."""
WIDE = ({"tp": 2}, {"pp": 2}, {"pp": 4}, {"dp": 2})


def with_engine(base: World, **settings: Any) -> World:
    """The scenario with these settings in all its pools."""
    out = merged(base)
    for pool in out.get("pools") or [out["deployment"]]:
        pool["engine"] = merged(pool["engine"], settings)
    return out


def short(name: str) -> World:
    """A change that makes memory short."""
    out: World = {"traffic": None} if name not in BLOCKS else {"traffic": None, "deployment": {"kv_blocks": BLOCKS[name]}}
    return out


def pressed(base: World, name: str) -> World:
    """The scenario under `SHORT` traffic with little memory; contexts are short, so that one fits."""
    return with_engine(merged(base, short(name), {"traffic": SHORT}), **LIMITS.get(name, {}))


def of_engine(name: str) -> Iterator[tuple[str, World]]:
    """Worlds of one engine by name."""
    table = importlib.import_module(f"tests.settings.{name.replace('-', '_')}")
    base, cases = table.BASE, table.CASES
    own = (
        cases
        if name != "vllm-ascend"
        else {k: c for k, c in cases.items() if c is not importlib.import_module("tests.settings.vllm").CASES.get(k)}
    )
    yield "as it is", base
    yield "pressed", pressed(base, name)
    for setting, case in own.items():
        yield from of_setting(base, name, setting, case)
    for line in VERSIONS.get(name, ()):
        yield line, with_engine(pressed(base, name), version=line)
    hard = pressed(base, name)
    yield "talks", merged(hard, {"traffic": None}, TALKS)
    yield "growing", merged(hard, {"traffic": None}, GROWING)
    yield "priorities", with_engine(merged(hard, PRIORITIES), **FIRST.get(name, {}))
    yield "adapters", with_engine(merged(hard, ADAPTERS), enable_lora=True)
    yield "who goes", merged(hard, LEAVING)
    yield "who dies", merged(hard, DYING)
    for model in MODELS.get(name, ()):
        yield model, merged(base, {"traffic": None, "model": None}, {"traffic": SHORT, "model": model})
        yield (
            f"{model} talks",
            merged(
                hard,
                {"traffic": None, "model": None},
                {"model": model},
                TALKS,
                {"deployment": {"kv_blocks": 4 * BLOCKS.get(name, 50)}},
            ),
        )
    for card in CARDS.get(name, ()):
        yield f"on {card}", merged(base, {"deployment": {"accelerator": card}})
    for wide in WIDE:
        yield " ".join(f"{k} {v}" for k, v in wide.items()), merged(hard, {"deployment": wide})


def of_setting(base: World, name: str, setting: str, case: Case) -> Iterator[tuple[str, World]]:
    """Where it matters, and where memory is short."""
    changed = merged(case.engine, nested(setting, case.value))
    yield setting, with_engine(merged(base, case.changes), **changed)
    if name in BLOCKS and not case.changes.get("pools") and "model" not in case.changes:
        yield f"{setting} pressed", with_engine(pressed(base, name), **changed)


def apart(name: str, card: str, **more: Any) -> World:
    """Two prefill and two decode engines with little memory."""
    out = merged(sides(name, card, BLOCKS[name] * (3 if name != "mindie" else 2)), {"model": "qwen3-8b", "traffic": SHORT} | more)
    for pool in out["pools"]:
        pool |= {"replicas": 2, "engine": merged(pool["engine"], LIMITS.get(name, {}))}
    return {k: v for k, v in out.items() if v is not None}


MIGRATION: World = {
    "model": "llama-3.1-8b",
    "traffic": traffic(
        {"process": "poisson", "rate": "25/s"},
        {
            "kind": "lognormal",
            "prompt_tokens": {"mean": 300, "cv": 2.0, "max": 1500},
            "output_tokens": {"mean": 120, "cv": 1.0, "max": 400},
        },
        60,
    ),
    "deployment": {
        "accelerator": "l20",
        "replicas": 3,
        "kv_blocks": 130,
        "engine": {"name": "bladellm", "max_model_len": 2000, "disable_prompt_cache": True},
    },
    "router": {
        "name": "llumnix_v0",
        "enable_defrag": True,
        "enable_migration": True,
        "migrate_out_threshold": 40,
        "max_migration_concurrency": 3,
    },
}


def of_fleets() -> Iterator[tuple[str, World]]:
    """Worlds of several engines."""
    for name, card in (("vllm", "h100-sxm"), ("sglang", "h100-sxm"), ("mindie", "ascend-910b3")):
        both = apart(name, card)
        yield f"{name} sides", both
        yield f"{name} sides, slow wire", merged(both, {"transfer": {"bandwidth": "500MB", "latency": "5ms"}})
        yield f"{name} sides, talks", merged(both, {"traffic": None}, TALKS)
        yield f"{name} sides, who goes", merged(both, LEAVING)
        for side in (0, 1):
            yield (
                f"{name} sides, who dies {side}",
                merged(both, {"faults": {"name": "crash", "replica": 2 * side, "at": "150ms", "for": "100ms"}}),
            )
    yield "vllm sides, layer by layer", merged(apart("vllm", "h100-sxm"), {"transfer": {"layerwise": True, "bandwidth": "1GB"}})
    yield "vllm sides, models with windows", merged(apart("vllm", "h100-sxm"), {"model": "gpt-oss-20b"})
    yield "sglang sides, models with states", merged(apart("sglang", "h100-sxm"), {"model": "qwen3.5-9b"})
    yield "migration", MIGRATION
    yield "migration off", merged(MIGRATION, {"router": {"enable_migration": False}})
    for engine in ("vllm", "sglang"):
        base = pressed({"model": "llama-3.1-8b", "deployment": {"accelerator": "h100-sxm", "engine": {"name": engine}}}, engine)
        yield f"{engine} experts", merged(base, EXPERTS, {"deployment": {"kv_blocks": 4 * BLOCKS[engine]}})
        yield (
            f"{engine} attention by ranks",
            with_engine(
                merged(base, EXPERTS), **({"enable_dp_attention": True} if engine == "sglang" else {"dp_sync_interval": 4})
            ),
        )
        yield f"{engine} many talks", merged(base, TALKS, {"deployment": {"replicas": 2}, "router": {"name": "sglang_router"}})
    for plain in ("PlainVllm", "PlainStatic"):
        base = {
            "model": "llama-3.1-8b",
            "traffic": SHORT,
            "deployment": {"accelerator": "h100-sxm", "engine": {"name": f"{PLAIN}:{plain}"}},
        }
        few = {} if plain == "PlainStatic" else {"deployment": {"kv_blocks": 50}}
        yield plain, merged(base, few)
        yield f"{plain} who goes", merged(base, few, LEAVING)
        yield f"{plain} who dies", merged(base, few, DYING)


@cache
def worlds() -> dict[str, World]:
    """All by name, ``engine: what``."""
    out = {f"{name}: {what}": world for name in ENGINES for what, world in of_engine(name)}
    return out | {f"fleet: {what}": world for what, world in of_fleets()}
