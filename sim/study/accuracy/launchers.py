"""Settings of servers that a program launched whose own defaults are known, where a point says that launch flags were not recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.cost.engine_figures import version_of
from sim.study.accuracy.point import Point

# What vLLM falls back to when another program than its own server starts it (`EngineArgs.get_batch_defaults` without a usage context). TTFT of
# 90 such points fits this and not the server's 8,192 tokens.
_EMBEDDED_VLLM = {"max_num_batched_tokens": 2048, "max_num_seqs": 128}

# `generator/rule_plugin/sglang.rule` of aiconfigurator: `agg enable_mixed_chunk = true`, with the command lines for SGLang from 0.5.6 on.
_MIXED = {"enable_mixed_chunk": True}


def assumed_settings(point: Point) -> Mapping[str, Any]:
    """Settings to take where the point gives none; empty where flags were recorded or nothing is known of who launched the server."""
    if not any("launch flags not recorded" in a for a in point.assumed):
        return {}
    if point.engine == "vllm":
        return _EMBEDDED_VLLM
    if (
        point.engine == "sglang"
        and point.launcher == "ai-dynamo/aiconfigurator"
        and version_of(point.version or "0") >= (0, 5, 6)
    ):
        return _MIXED
    return {}
