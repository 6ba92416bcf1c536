# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""The KV cache manager where all layers have full attention: one block table per request."""

from typing import Any

from sim.engine.schedulers.vllm import memory as m
from sim.engine.schedulers.vllm.plan import lean_rows_plain
from sim.jit import implement


def _cut_chunk(s, slot, start, n):
    return n


def _forget(s, slot):
    pass


def _end_of_decision(s):
    pass


def plain_caches(struct_type: Any) -> None:
    """Attach it to a struct derived from `VllmFields`."""
    implement(
        struct_type,
        hit_tokens=m.hit_tokens_plain,
        grant=m.grant_plain,
        commit=m.commit_plain,
        release=m.release_plain,
        settle=m.settle_plain,
        ask_for=m.ask_for_plain,
        blocks_to_come=m.blocks_to_come_plain,
        blocks_of_drafts=m.blocks_of_drafts_plain,
        never_fits=m.never_fits_plain,
        lean_rows=lean_rows_plain,
        cut_chunk=_cut_chunk,
        forget=_forget,
        end_of_decision=_end_of_decision,
    )
