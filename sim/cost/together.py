"""Duration of a step that data-parallel ranks take together: experts are shared, and collectives in every layer wait for the slowest rank.

A rank's own work (attention, dense layers, output head) depends on its own batch, the experts' on the tokens of all ranks. A layer ends when
the slowest rank has done its part, so the device's time is that of the rank with most work of its own, plus the experts' time. Where a graph
is replayed every rank is padded to the one with most tokens. A step with a prompt on any rank is one for all: no decode graph, the launches
and the host of the slowest.

*Source*: vLLM 0.33 ``v1/worker/gpu/dp_utils.py`` (padding, graphs only if all ranks can); SGLang 0.5.23
``managers/scheduler_components/dp_attn.py`` (``is_extend_in_batch``). Uneven all-to-all senders are taken as even; which experts the
tokens choose is even.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.cost import step
from sim.cost.build import NO_EXTRAS, build_rank_tables
from sim.cost.evidence import Evidence
from sim.cost.extras import Extras
from sim.cost.layout import Layout
from sim.cost.profile import EngineProfile
from sim.cost.shared import new_shared_cost
from sim.hardware.accelerator import Accelerator
from sim.model.spec import ModelSpec

if TYPE_CHECKING:
    from sim.cost.shared import SharedCost
    from sim.cost.step import StepCost


def build_rank_cost(
    model: ModelSpec,
    accelerator: Accelerator,
    layout: Layout,
    profile: EngineProfile,
    max_tokens: int,
    extras: Extras = NO_EXTRAS,
) -> tuple[StepCost, SharedCost, Evidence]:
    """The cost of one rank without the experts, what the ranks share, and what both rest on. ``max_tokens``: of one rank's step."""
    tables, padded, plain, evidence = build_rank_tables(model, accelerator, layout, profile, max_tokens, extras)
    n = padded.shape[0] - 1
    top = max((g for g in profile.graph_sizes if g <= n), default=0)
    data = np.concatenate([padded[:, : step.FLOOR].ravel(), plain[:, : step.FLOOR].ravel()])
    shared = new_shared_cost(data, n, top, top if profile.graph_prefill else 0)
    return step.new_table_cost(*tables.packed()), shared, evidence
