"""A plan of groups as the arrays that the compiled state takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.engine.schedulers.vllm.groups.state import CHUNKED, FULL, MAMBA, SLIDING
from sim.engine.schedulers.vllm.kv_plan import GroupPlan

if TYPE_CHECKING:
    from sim.engine.schedulers.vllm.params import VllmParams
    from sim.engine.seam import I8

KINDS = {"full": FULL, "sliding": SLIDING, "chunked": CHUNKED, "linear": MAMBA}


def arrays(plan: GroupPlan, p: VllmParams, depth: int, legacy: bool) -> tuple[I8, I8, I8, int]:
    """What `new_group_state` takes: groups, spec groups, numbers, and the longest table. ``p``: resolved settings, ``depth`` of the batch queue."""
    k = len(plan.groups)
    drops = [legacy and g.draft for g in plan.groups]
    if legacy and not any(drops):
        drops = [True] * k
    specs = plan.spec_groups()
    joins = [any(drops[i] for members in specs if g in members for i in members) for g in range(k)]
    caps = plan.caps(p.max_model_len, depth * p.max_num_batched_tokens)
    rows = [
        [KINDS[g.kind], g.block_size, g.window, cap, d, j] for g, cap, d, j in zip(plan.groups, caps, drops, joins, strict=True)
    ]
    widest = max(len(members) for members in specs)
    members = [[len(m), *m, *[0] * (widest - len(m))] for m in specs]
    states = p.enable_prefix_caching and any(g.kind == "linear" for g in plan.groups)
    fine = plan.fine and states and k > 1 and plan.hash_block_size < plan.least
    retention = p.prefix_cache_retention_interval
    numbers = [
        plan.grid,
        plan.hash_block_size if fine else plan.grid,
        plan.least,
        max(plan.chunk, 1),
        -1 if retention is None else retention,
        states,
        fine,
        legacy,
        plan.checkpoint if states else 0,
    ]
    drafts = p.speculative_config.num_speculative_tokens if p.speculative_config is not None else 0
    smallest = min(g.block_size for g in plan.groups)
    longest = -(-p.max_model_len // smallest) + 2 * (drafts + 2) + 2
    return np.array(rows, np.int64), np.array(members, np.int64), np.array(numbers, np.int64), longest
