"""Why requests were rejected or failed, in the words of the settings that decide it.

An engine's rows say only that a request was turned away. Each engine does so for a few reasons; length tells them apart. A scheduler of one's
own says its reasons in ``reasons = {"queue": "…", "failed": "…"}``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from sim.fleet.build import Plan
from sim.ledger import FAILED, REJECTED, Values

_KNOWN: Final = {
    "tgi": {
        "queue": "answered 429: more than max_concurrent_requests at once",
        "failed": "waited too long, and their clients left",
    },
    "mindie": {"failed": "got no token within tokenTimeout or no end within e2eTimeout"},
    "sglang": {"queue": "answered 503: more than max_queued_requests waited", "failed": "their KV no longer fit, even alone"},
    "ollama": {"queue": "answered 503: more than OLLAMA_MAX_QUEUE waited for a model"},
    "vllm-v0": {"queue": "can never fit into the KV cache", "failed": "can never fit into the KV cache"},
    "vllm-ascend": {"queue": "can never fit into the KV cache", "failed": "can never fit into the KV cache"},
}
_DOOR: Final = ("_refused", "_timed_out")
"""What admission policies count (`sim.fleet.door`)."""


def reasons(plans: Sequence[Plan], requests: Mapping[str, Values], totals: dict[str, float]) -> list[str]:
    """One sentence for each reason; empty when all requests were served."""
    status, replica = requests["status"], requests["replica"]
    at_gateway = int(totals.get("fleet_gateway_failed", 0))
    doors = {k.removesuffix(end): 0 for k in totals for end in _DOOR if k.endswith(end)}
    at_doors = sum(int(totals.get(door + end, 0)) for door in doors for end in _DOOR)
    counts: Counter[tuple[str, str, str]] = Counter()
    bounds = np.cumsum([0, *(p.replicas * p.rank_count for p in plans)])
    for p, lo, hi in zip(plans, bounds, bounds[1:], strict=False):
        mine = np.ones(len(status), bool) if len(plans) == 1 else (replica >= lo) & (replica < hi)
        known = getattr(p.scheduler, "reasons", None) or _KNOWN.get(p.scheduler.name, {})
        turned = mine & (status == REJECTED)
        if (at_doors or "unseen_gap_s" in totals or (at_gateway and len(plans) == 1)) and "taken_s" in requests:
            turned &= ~np.isnan(requests["taken_s"])
        failed = mine & (status == FAILED)
        if "unseen_gap_s" in totals:  # clients give requests up themselves, and say so
            failed &= ~np.isnan(requests["taken_s"])
        long = turned & (requests["prompt_tokens"] >= p.max_context)
        for rows, kind, why in (
            (long, "rejected", f"prompts as long as the {p.max_context:,} tokens that it accepts, or longer"),
            (turned & ~long, "rejected", known.get("queue", "turned away at the door")),
            (failed, "failed", known.get("failed", "given up after they had been admitted")),
        ):
            counts[p.scheduler.name, kind, why] += int(np.count_nonzero(rows))
    out = [_sentence(who, n, kind, why) for (who, kind, why), n in counts.items() if n]
    for door in doors:
        refused, late = (int(totals.get(door + end, 0)) for end in _DOOR)
        name = door.removeprefix("fleet_")
        out += [_sentence(name, refused, "rejected", "refused at the door")] if refused else []
        out += [_sentence(name, late, "rejected", "they waited at the door for too long")] if late else []
    if at_gateway:
        out.append(_sentence("gateway", at_gateway, "rejected", "no replica took them in time"))
    return out


def _sentence(who: str, n: int, kind: str, why: str) -> str:
    return f"{who}: {n:,} request{'' if n == 1 else 's'} {kind} ({why}); counted as misses, without latency"
