"""Settings: their defaults and bounds, and what becomes of those that nobody gives on accelerators, models and releases of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sim import registry
from sim.document import Table
from tests.recorded.trace import Trace, flat, plans
from tests.recorded.worlds import ENGINES, VERSIONS
from tests.settings.traffic import MIXED

NVIDIA = ("h100-sxm", "h200-sxm", "b200", "a100-sxm-80g", "a100-sxm-40g", "l40s", "l4", "a10", "h20", "rtx-4090")
CARDS = {
    **dict.fromkeys(("vllm", "sglang", "tgi", "vllm-v0", "bladellm"), NVIDIA),
    "mindie": ("ascend-910b2", "ascend-910b3", "ascend-910b4"),
    "vllm-ascend": ("ascend-910b2", "ascend-910b3", "ascend-910b4"),
    "llamacpp": ("rtx-4090", "rtx-3090", "l4", "cpu-server", "mi300x"),
    "ollama": ("rtx-4090", "rtx-3090", "l4", "cpu-server", "mi300x"),
}
AMD = ("mi300x", "mi325x")
MODELS = ("llama-3.1-70b", "qwen3-30b-a3b", "gpt-oss-20b", "qwen3.5-9b", "deepseek-v2-lite", "gemma-3-12b")
SHOWN = (
    "default",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "enum",
    "const",
    "type",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)


def bounds(engine: str) -> Trace:
    """What the schema of its settings says, but words."""

    def said(node: Any) -> Any:
        if isinstance(node, list):
            return [said(x) for x in node]
        if not isinstance(node, dict):
            return node
        return {
            k: v if k in SHOWN and not isinstance(v, dict) else said(v)
            for k, v in node.items()
            if k not in ("description", "title")
        }

    schema = registry.lookup("engine", engine, "engine").Params.model_json_schema()
    return {"schema": sorted(flat("", said(schema)))}


def deployments() -> Iterator[tuple[str, Table]]:
    """Name and scenario."""
    for name in ENGINES:
        cards = CARDS.get(name, ("h100-sxm",)) + (AMD if name in ("vllm", "sglang") else ())
        weights = {"weights": "q4_k_m"} if name in ("llamacpp", "ollama") else {}
        for card in cards:
            for tp in (1, 4) if name not in ("llamacpp", "ollama", "static") else (1,):
                yield f"{name} on {card} tp {tp}", of(name, "llama-3.1-8b", card, tp, **weights)
        for model in MODELS:
            yield f"{name} {model}", of(name, model, cards[0], 1, **weights)
            yield f"{name} {model} tp 8", of(name, model, cards[0], 8, **weights)
        for version in VERSIONS.get(name, ()):
            for model in ("llama-3.1-8b", "llama-2-7b"):
                given = of(name, model, cards[0], 1 if weights else 2, **weights)
                given["deployment"]["engine"]["version"] = version
                yield f"{name} {version} {model}", given


def of(name: str, model: str, card: str, tp: int, **more: Any) -> dict[str, Any]:
    """A scenario."""
    return {
        "model": {"name": model, **more},
        "traffic": MIXED,
        "deployment": {"accelerator": card, "tp": tp, "engine": {"name": name}},
    }


def settled() -> dict[str, Callable[[], Trace]]:
    """Makers by name."""
    out: dict[str, Callable[[], Trace]] = {f"bounds of {name}": lambda name=name: bounds(name) for name in ENGINES}
    return out | {name: lambda world=world: plans(world) for name, world in deployments()}
