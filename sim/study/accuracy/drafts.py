"""Speculative decoding of an operating point whose acceptance was measured, in the settings of its engine."""

from __future__ import annotations

from collections.abc import Mapping

from sim.document import Json, number
from sim.errors import NotModelledError

_USUAL = 3  # drafts a step where only their acceptance is told
_VLLM = {
    "eagle": "eagle",
    "eagle3": "eagle3",
    "mtp": "mtp",
    "deepseek_mtp": "mtp",
    "qwen3_5_mtp": "mtp",
    "ngram": "ngram",
    "medusa": "medusa",
}
_SGLANG = {"eagle": "EAGLE", "eagle3": "EAGLE3", "mtp": "NEXTN", "deepseek_mtp": "NEXTN", "ngram": "NGRAM", "nextn": "NEXTN"}


def draft_settings(engine: str, told: Mapping[str, Json]) -> dict[str, Json]:
    """``told``: ``method, num_speculative_tokens`` and ``accept_length`` (tokens a step) or ``accept_rate`` (share of drafts).

    Raises `NotModelledError` where the acceptance is not known, or the engine has no such method here.
    """
    n = int(number(told.get("num_speculative_tokens") or _USUAL))
    method = str(told.get("method") or "").lower()
    if told.get("accept_length"):
        right = chance(number(told["accept_length"]) - 1.0, n)
    elif told.get("accept_rate"):
        right = chance(number(told["accept_rate"]) * n, n)
    else:
        raise NotModelledError("settings.speculative", dict(told), "the share of accepted drafts is not known")
    if engine in ("vllm", "vllm-ascend") and method in _VLLM:
        return {"speculative_config": {"method": _VLLM[method], "num_speculative_tokens": n, "acceptance_rate": right}}
    if engine == "sglang" and method in _SGLANG:
        names = ("speculative_algorithm", "speculative_num_steps", "speculative_accept_rate")
        return dict(zip(names, (_SGLANG[method], n, right), strict=True))
    raise NotModelledError("settings.speculative", dict(told), f"is not modelled for {engine}")


def chance(accepted: float, n: int) -> float:
    """How often each draft of a chain of ``n`` is right if ``accepted`` of them are in the mean: a wrong one ends the chain."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        mean = sum(middle**i for i in range(1, n + 1))
        low, high = (middle, high) if mean < accepted else (low, middle)
    return round(low, 4)
