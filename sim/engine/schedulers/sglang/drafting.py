"""Speculative decoding of SGLang: what it makes of a step, and of the server's other settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sim.cost.drafts import DraftMethod, acceptance
from sim.cost.engine_figures import version_of

if TYPE_CHECKING:
    from sim.engine.schedulers.sglang.params import SglangParams

_MOST_RUNNING = 48
_OVERLAPS_FROM = (0, 5, 11)


class Drafting(NamedTuple):
    """One speculative step: ``passes`` of the draft, which compute ``proposed`` tokens per row, and how often each position is ``right``."""

    method: DraftMethod
    passes: int
    proposed: int
    right: tuple[float, ...]


_DRAFT: dict[str, DraftMethod] = {
    "EAGLE": "eagle", "EAGLE3": "eagle3", "NEXTN": "mtp", "STANDALONE": "draft_model", "NGRAM": "ngram",
}  # fmt: skip


def drafting(p: SglangParams) -> Drafting:
    """What the speculative settings make of a decode step. *Source*: ``speculative/eagle_worker.py: draft_forward, forward_draft_extend``.

    The pass that follows a verification chooses the first tokens, each further pass computes ``topk`` of them; of the tree
    ``num_draft_tokens`` are verified. NGRAM looks a tree of them up and computes nothing.
    """
    if p.speculative_algorithm is None:
        return Drafting("none", 0, 0, ())
    method, verified, steps, topk = _DRAFT[p.speculative_algorithm], p.speculative_num_draft_tokens, 0, 1
    if method == "ngram":
        depth, branches, proposed = verified - 1, 1.0, verified
    else:
        steps, topk = p.speculative_num_steps, p.speculative_eagle_topk
        depth, branches, proposed = min(steps, verified - 1), min(topk, (verified - 1) / steps), 1 + (steps - 1) * topk
    rate = p.speculative_accept_rate
    return Drafting(method, steps, proposed, acceptance(method, depth, branches) if rate is None else (rate,) * depth)


def speculating(p: SglangParams) -> dict[str, object]:
    """Settings that SGLang changes when it speculates: at most 48 requests run unless the user says how many; workers of the first kind
    (``SGLANG_ENABLE_SPEC_V2`` off, its default before 0.5.11) know no overlap.

    *Source*: ``server_args.py: _handle_speculative_decoding`` of 0.4.6 to 0.5.6, ``arg_groups/speculative_hook.py`` later, both with "Max running
    requests is reset to 48 for speculative decoding". The release from which the second kind is the default is
    inferred from dates: deployments of April 2026 still ask for it, pull request 27964 of June removes the first kind.
    """
    new: dict[str, object] = {}
    if p.speculative_algorithm != "NGRAM" and p.speculative_eagle_topk == 1:
        new["speculative_num_draft_tokens"] = p.speculative_num_steps + 1  # a chain has one token per step
    if p.max_running_requests is None:
        new["max_running_requests"] = _MOST_RUNNING
    release = version_of(p.version)
    if release[:2] < _OVERLAPS_FROM[:2] or (len(release) > 2 and release < _OVERLAPS_FROM):
        new["disable_overlap_schedule"] = True
    return new
