# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""vLLM's hybrid KV cache manager: layers of several kinds in groups that share one pool of blocks.

*Source*: vLLM 0.33 ``v1/core/{kv_cache_planning,kv_cache_coordinator,kv_cache_manager,single_type_kv_cache_manager,block_pool}.py``.
Imported only for models that have such groups, so that others compile nothing of it.
"""

import numpy as np

from sim.engine.schedulers.vllm.groups import allocate as a
from sim.engine.schedulers.vllm.groups.held import note_held
from sim.engine.schedulers.vllm.groups.lookup import hit_tokens_in
from sim.engine.schedulers.vllm.groups.register import ask_for_in, commit_in
from sim.engine.schedulers.vllm.groups.rows import lean_rows_groups
from sim.engine.schedulers.vllm.groups.split import cut_chunk_groups
from sim.engine.schedulers.vllm.groups.state import GroupState, new_group_state
from sim.engine.schedulers.vllm.groups.steady import apply_groups, steady_groups
from sim.engine.schedulers.vllm.plain_caches import comes_at_plain, kept_until_plain, outside_plain
from sim.engine.schedulers.vllm.plan import plan_step
from sim.engine.schedulers.vllm.ranks import at_rest_vllm, confer_vllm, heed_vllm, unfinished_vllm
from sim.engine.schedulers.vllm.sides import compute_here_vllm, drop_remote_vllm, kv_arrived_vllm, release_kept_vllm
from sim.engine.schedulers.vllm.state import LAZY, grow_vllm
from sim.engine.schedulers.vllm.update import complete_step, enqueue_vllm
from sim.jit import implement, inline

__all__ = ["GroupState", "new_group_state"]


_take_in = inline(enqueue_vllm)


def _enqueue(s, slot):
    _take_in(s, slot)
    if not s.counts:
        s.r_x[slot, LAZY] = 0  # what it gave back may be found again by itself, after a preemption


def _hit_tokens(s, slot):
    return hit_tokens_in(s, np.int64(slot))


def _grant(s, slot, new):
    return a.grant_in(s, np.int64(slot), np.int64(new)) == 1


def _commit(s, slot, tokens):
    commit_in(s, np.int64(slot), np.int64(tokens))


def _release(s, slot):
    a.release_in(s, np.int64(slot))


def _settle(s):
    a.settle_in(s)


def _ask_for(s, slot):
    ask_for_in(s, slot)


def _blocks_to_come(s, slot):
    return a.blocks_to_come_in(s, np.int64(slot))


def _blocks_of_drafts(s):
    return a.blocks_of_drafts_in(s)


def _never_fits(s, prompt):
    return a.never_fits_in(s, prompt)


def _forget(s, slot):
    a.forget_in(s, slot)


def _end_of_decision(s):
    if s.cow_n > 0:
        a.release_copies(s)
    note_held(s)


implement(
    GroupState,
    enqueue=_enqueue,
    plan=plan_step,
    complete=complete_step,
    steady_steps=steady_groups,
    apply_steady=apply_groups,
    grow=grow_vllm,
    release_kept=release_kept_vllm,
    kv_arrived=kv_arrived_vllm,
    drop_remote=drop_remote_vllm,
    compute_here=compute_here_vllm,
    confer=confer_vllm,
    heed=heed_vllm,
    unfinished=unfinished_vllm,
    at_rest=at_rest_vllm,
    hit_tokens=_hit_tokens,
    grant=_grant,
    commit=_commit,
    release=_release,
    settle=_settle,
    ask_for=_ask_for,
    blocks_to_come=_blocks_to_come,
    blocks_of_drafts=_blocks_of_drafts,
    never_fits=_never_fits,
    lean_rows=lean_rows_groups,
    cut_chunk=cut_chunk_groups,
    forget=_forget,
    outside=outside_plain,
    comes_at=comes_at_plain,
    kept_until=kept_until_plain,
    end_of_decision=_end_of_decision,
)
