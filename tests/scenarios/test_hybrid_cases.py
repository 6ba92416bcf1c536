"""What models with windows or states do in vLLM, and what one would believe who caches every layer as full attention."""

from __future__ import annotations

from typing import Any

import pytest

import sim
import sim.engine.schedulers.vllm as vllm
from sim.study.single import Prepared

OFF = "deployment.engine.disable_hybrid_kv_cache_manager=true"


def figures(name: str, *overrides: str) -> Any:
    return Prepared(sim.load(name, overrides)).run().summary


def test_requests_at_once() -> None:
    """gpt-oss-120b with 4 GiB of KV cache: 35 requests at once and 33 s to the first token, not 20 and 53 s."""
    groups, full = figures("hybrid-gpt-oss"), figures("hybrid-gpt-oss", OFF)

    assert [s["utilisation"]["running_mean"] for s in (groups, full)] == pytest.approx([35, 20], rel=0.05)
    assert [s["latency"]["ttft_s"]["mean"] for s in (groups, full)] == pytest.approx([33, 53], rel=0.1)


def test_shared_prefixes() -> None:
    """Gemma-3-27B: 21 % of the prompt tokens from the cache, not 61 %."""
    groups, full = figures("hybrid-gemma-prefixes"), figures("hybrid-gemma-prefixes", OFF)

    assert [s["tokens"]["cached_share"] for s in (groups, full)] == pytest.approx([0.21, 0.61], abs=0.03)


def test_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen3.5-27B: 7.5 % from the cache and 19 s to the first token, not 83 % and 0.08 s."""
    groups = figures("hybrid-qwen-multi-turn")
    monkeypatch.setattr(vllm, "kv_layout", lambda params, site: None)
    full = figures("hybrid-qwen-multi-turn")

    assert [s["tokens"]["cached_share"] for s in (groups, full)] == pytest.approx([0.075, 0.83], abs=0.025)
    assert groups["latency"]["ttft_s"]["mean"] == pytest.approx(19, rel=0.25)
    assert full["latency"]["ttft_s"]["mean"] == pytest.approx(0.08, abs=0.02)
