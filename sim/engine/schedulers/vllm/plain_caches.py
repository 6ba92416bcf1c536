# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""The KV cache manager where all layers have full attention: one block table per request."""

from collections.abc import Callable

import numpy as np

from sim.engine.schedulers.vllm import memory as m
from sim.engine.schedulers.vllm.memory import ZERO
from sim.engine.schedulers.vllm.plan import lean_rows_plain
from sim.engine.schedulers.vllm.state import COMP, DECODE_SIDE, PREFILL_SIDE, PULLED
from sim.engine.state import INF
from sim.jit import implement
from sim.ledger import COMPUTE, HAND_OVER, REMOTE_KV


def _cut_chunk(s, slot, start, n):
    return n


def _forget(s, slot):
    pass


def outside_plain(s, slot, c):
    """See `seam.outside`: the decode side pulls the rest of the prompt, unless nobody else computes it."""
    if s.role == DECODE_SIDE and s.r_x[slot, PULLED] == 0 and not s.r_watch[slot] & COMPUTE:
        return max(np.int64(s.r_prompt[slot]) - c, ZERO)
    return ZERO


def comes_at_plain(s, slot, c, ext):
    """See `seam.comes_at`."""
    return INF if s.r_watch[slot] & REMOTE_KV else s.now + s.xfer_base + s.xfer_token * ext


def kept_until_plain(s, slot):
    """See `seam.kept_until`: on the prefill side, until the other has read it."""
    if s.role != PREFILL_SIDE:
        return 0.0
    return INF if s.r_watch[slot] & HAND_OVER else s.now + s.xfer_base + s.xfer_token * s.r_x[slot, COMP]


def _end_of_decision(s):
    pass


def plain_caches(struct_type: type, **instead: Callable[..., object]) -> None:
    """Attach it to a struct derived from `VllmFields`; ``instead``: functions of the variant's own, by name."""
    own: dict[str, Callable[..., object]] = {
        "hit_tokens": m.hit_tokens_plain,
        "grant": m.grant_plain,
        "commit": m.commit_plain,
        "release": m.release_plain,
        "settle": m.settle_plain,
        "ask_for": m.ask_for_plain,
        "blocks_to_come": m.blocks_to_come_plain,
        "blocks_of_drafts": m.blocks_of_drafts_plain,
        "never_fits": m.never_fits_plain,
        "lean_rows": lean_rows_plain,
        "cut_chunk": _cut_chunk,
        "forget": _forget,
        "outside": outside_plain,
        "comes_at": comes_at_plain,
        "kept_until": kept_until_plain,
        "end_of_decision": _end_of_decision,
    }
    implement(struct_type, **(own | instead))
