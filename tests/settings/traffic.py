"""Traffic in which settings matter: small, and each for a reason."""

from __future__ import annotations

from typing import Any


def traffic(arrival: dict[str, Any], lengths: dict[str, Any], requests: int, **more: Any) -> dict[str, Any]:
    """A synthetic traffic section."""
    return {"synthetic": {"arrival": arrival, "lengths": lengths, "requests": requests, **more}}


POISSON = {"process": "poisson", "rate": "150/s"}
SMALL = {"kind": "uniform", "prompt_tokens": [20, 200], "output_tokens": [5, 30]}
MIXED = traffic(POISSON, SMALL, 24)
"""Short requests, some together."""
BURST = {"traffic": traffic({"process": "burst"}, SMALL, 24)}
"""All at once."""
GROWING = {
    "traffic": traffic({"process": "burst"}, {"kind": "uniform", "prompt_tokens": [20, 60], "output_tokens": [60, 120]}, 16)
}
"""Requests that grow until memory runs out."""
LONG = {"traffic": traffic({"process": "burst"}, {"kind": "fixed", "prompt_tokens": 9000, "output_tokens": 4}, 4)}
"""Prompts longer than a step."""
HEAVY = {"traffic": traffic({"process": "burst"}, {"kind": "fixed", "prompt_tokens": 9000, "output_tokens": 120}, 10)}
"""More KV than a small share of the memory holds."""
SHARED = {"traffic": {"synthetic": {"prefixes": {"groups": 3, "shared_tokens": 150}}}}
"""Prompts that share prefixes."""
PRIORITIES = {"traffic": {"priorities": {0: 2, 20: 1}}}
ADAPTERS = {"traffic": {"adapters": {"count": 6}}}
STEADY = {
    "traffic": traffic({"process": "constant", "rate": "60/s"}, {"kind": "fixed", "prompt_tokens": 150, "output_tokens": 40}, 16)
}
"""Prompts that come while others decode."""
SPARSE = {
    "traffic": traffic(
        {"process": "poisson", "rate": "6/s"}, {"kind": "uniform", "prompt_tokens": [20, 200], "output_tokens": [2, 6]}, 16
    )
}
"""An engine that is idle between requests."""
TALK = {
    "traffic": traffic(
        {"process": "poisson", "rate": "4/s"},
        {"kind": "fixed", "prompt_tokens": 100, "output_tokens": 20},
        24,
        sessions={"turns": 3, "think_time": "1s"},
    )
}
"""Sessions that come back after others were served."""
EXPERTS = {"model": "qwen3-30b-a3b", "deployment": {"accelerator": "h100-sxm", "dp": 2, "ep": 2}}
"""Data-parallel ranks that step together."""


def sides(name: str, accelerator: str = "h100-sxm", blocks: int | None = None) -> dict[str, Any]:
    """Prefill and decode pools of an engine."""
    pools = [{"name": r[0], "role": r, "accelerator": accelerator, "engine": {"name": name}} for r in ("prefill", "decode")]
    for pool in pools:
        pool |= {} if blocks is None else {"kv_blocks": blocks}
    return {"deployment": None, "pools": pools}
