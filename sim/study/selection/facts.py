"""Facts on serving systems that no simulation gives: licence, hardware, interfaces, state of maintenance; each with source and date."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import yaml

from sim.resources import path as resource

SHOWN = (
    "vendor", "licence", "maturity", "latest_release", "hardware", "api_openai", "api_other", "quantisation", "tensor_parallel", "multi_node",
    "pd_disaggregation", "lora", "speculative", "multimodal", "deployment", "metrics", "typical_users",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """``confidence``: high, medium, low, or recalled (general knowledge, no page read)."""

    value: str
    source: str
    date: str
    confidence: str


class _Entry(TypedDict):
    value: str | float | list[str]
    source: str
    date: str | None
    confidence: str


def facts(engine: str) -> dict[str, Fact]:
    """What is known of an engine, by field; empty for one that is not listed."""
    return {k: _fact(v) for k, v in _all().get(engine, {}).items()}


def _fact(raw: _Entry) -> Fact:
    value = raw["value"]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Fact(text, str(raw["source"]), str(raw["date"] or ""), str(raw["confidence"]))


@lru_cache(maxsize=1)
def _all() -> dict[str, dict[str, _Entry]]:
    data: dict[str, dict[str, _Entry]] = yaml.safe_load(resource("profiles", "frameworks.yaml").read_text(encoding="utf-8"))
    return data
