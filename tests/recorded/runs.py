"""Whole scenarios, short: clients, faults, autoscalers, tenants, sessions, several models, prices; every figure of the summary is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from sim.config import built_in
from sim.config.reading import load
from tests.recorded.worlds import SHORT, TALKS, World
from tests.settings.traffic import traffic
from tests.settings.walk import merged

LEFT_OUT = ("ollama-three-models", "pai-autoscale", "cold-start-spike", "diurnal-day", "retry-storm", "spike", "hybrid-gpt-oss")
"""Long before anything happens in them, or slow."""
ONE: World = {
    "model": "llama-3.1-8b",
    "traffic": SHORT,
    "deployment": {"accelerator": "h100-sxm", "kv_blocks": 60, "engine": {"name": "vllm", "max_model_len": 512}},
}
STRICT = {"slo": {"ttft": "60ms", "tpot": {"p90": "8ms"}, "e2e": "400ms", "attainment": 0.9}}
THREE = {"deployment": {"replicas": 3}, "router": {"name": "least_outstanding"}}
WAVES: World = {
    "traffic": traffic(
        {"process": "stages", "stages": [{"rate": "2/s", "duration": "10s"}, {"rate": "9/s", "duration": "25s"}, {"rate": "1/s", "duration": "60s"}]},
        {"kind": "uniform", "prompt_tokens": [20, 200], "output_tokens": [5, 60]},
        280,
    )
}  # fmt: skip


def klass(rate: str, tenant: str, **more: Any) -> dict[str, Any]:
    lengths = {"kind": "uniform", "prompt_tokens": [10, 120], "output_tokens": [2, 40]}
    synthetic = {"arrival": {"process": "poisson", "rate": rate}, "lengths": lengths, "requests": 30}
    return {"synthetic": synthetic, "tenant": tenant, **more}


CLASSES: World = {
    "traffic": {
        "classes": {
            "chat": klass("20/s", "acme", slo={"ttft": "50ms", "tpot": "20ms"}),
            "ide": klass("60/s", "globex", slo={"ttft": {"p95": "90ms", "p50": "30ms"}}),
            "batch": klass("10/s", "acme", slo={"e2e": "300ms", "attainment": 0.5}),
        }
    }
}


def scaled(name: str, **more: Any) -> World:
    return merged(
        ONE,
        {"traffic": None},
        WAVES,
        STRICT,
        {"deployment": {"replicas": 1}, "scaling": {"name": name, "min": 1, "max": 4, **more}},
    )


def own() -> Iterator[tuple[str, World]]:
    """Worlds in which something happens within seconds."""
    busy = merged(ONE, STRICT, THREE)
    yield "strict", busy
    yield "warm-up", merged(busy, {"warmup": "100ms"})
    yield "cut off", merged(busy, {"until": "250ms"})
    yield "times of tokens", merged(busy, {"record": {"token_times": True}})
    for at in (["100ms", "300ms"], "180ms"):
        yield f"crash {at}", merged(busy, {"faults": {"name": "crash", "replica": 1, "at": at, "for": "90ms"}})
    yield "crash at random", merged(busy, {"faults": {"name": "crash", "mtbf": "300ms", "for": "50ms"}})
    yield (
        "crash and clients",
        merged(
            busy,
            {
                "faults": {"name": "crash", "replica": 0, "at": "100ms", "for": "2s"},
                "clients": {"name": "openai", "timeout": "300ms"},
            },
        ),
    )
    yield (
        "who has no patience",
        merged(busy, {"clients": {"name": "openai", "timeout": "120ms", "max_retries": 3, "patience": {"mean": "1s"}}}),
    )
    steady = {"traffic": traffic({"process": "poisson", "rate": "60/s"}, WAVES["traffic"]["synthetic"]["lengths"], 200)}
    for at in ("500ms", "1s"):
        fault = {"faults": {"name": "crash", "replica": 1, "at": at, "for": "400ms"}}
        yield (
            f"crash and recovery {at}",
            merged(busy, {"traffic": None}, steady, fault, {"slo": {"ttft": "100ms", "tpot": None, "e2e": None}}),
        )
    stages = [{"rate": "6/s", "duration": "3s"}, {"rate": "90/s", "duration": "2s"}, {"rate": "6/s", "duration": "9s"}]
    storm = traffic({"process": "stages", "stages": stages}, WAVES["traffic"]["synthetic"]["lengths"], 250)
    for retries, stream in ((2, True), (6, False)):
        clients = {"name": "openai", "timeout": "500ms", "max_retries": retries, "stream": stream}
        yield f"storm {retries}", merged(ONE, {"traffic": None}, STRICT, {"traffic": storm, "clients": clients})
    yield "hedging", merged(busy, {"clients": {"name": "simple", "hedge_after": "40ms"}})
    yield "talks", merged(busy, {"traffic": None}, TALKS)
    yield "classes", merged(busy, {"traffic": None}, CLASSES)
    yield "classes, warm-up", merged(busy, {"traffic": None, "warmup": "200ms"}, CLASSES)
    yield "fair to tenants", merged(ONE, {"traffic": None}, CLASSES, {"admission": {"name": "vtc", "running_max_req_size": 4}})
    yield "closed loop", merged(busy, {"traffic": {"closed_loop": {"concurrency": 6, "think_time": "20ms"}}})
    for name, more in (
        ("eas", {"targets": {"qps": "3/s"}}),
        ("hpa", {"targets": {"qps": "3/s"}, "spot": {"at": ["20s"], "notice": "3s"}}),
        ("kpa", {"container_concurrency_target_default": 1}),
    ):
        yield name, scaled(name, startup={"provision": "2s", "image": "1s", "load_bandwidth": "16GB", "warmup": "500ms"}, **more)
    yield "money", merged(busy, {"economics": {"accelerator_hour": {"h100-sxm": 3.5}, "electricity": 0.2}})
    yield (
        "unlike pools",
        merged(
            ONE,
            STRICT,
            {
                "deployment": None,
                "pools": [
                    {"name": n, "accelerator": n, "engine": {"name": "vllm", "max_model_len": 512}} for n in ("h100-sxm", "l40s")
                ],
            },
        ),
    )
    models = [
        {"name": m, "model": m, "accelerator": "h100-sxm", "engine": {"name": "vllm", "max_model_len": 512}}
        for m in ("llama-3.1-8b", "qwen3-8b")
    ]
    both = {"traffic": {"classes": {"a": klass("40/s", "x", model="llama-3.1-8b"), "b": klass("20/s", "y", model="qwen3-8b")}}}
    yield "two models", merged(ONE, STRICT, {"deployment": None, "traffic": None}, both, {"pools": models})


def shrunk() -> Iterator[tuple[str, World]]:
    """Built-in scenarios with few requests."""
    for name, _ in built_in():
        if name in LEFT_OUT:
            continue
        world = load(name).model_dump(mode="json", exclude_unset=True)
        sources = [world["traffic"], *world["traffic"].get("classes", {}).values()]
        for source in sources:
            if "synthetic" in source:
                source["synthetic"]["requests"] = min(source["synthetic"].get("requests") or 40, 40)
        yield f"built-in {name}", world


@cache
def runs() -> dict[str, World]:
    """All by name."""
    return dict(own()) | dict(shrunk())
