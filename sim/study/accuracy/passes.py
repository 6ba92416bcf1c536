"""Forward passes whose contexts were logged with them: predicted from the step cost alone (see `sim.study.bench.forward_passes`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.cost import features as f
from sim.cost.build import build_tables
from sim.cost.extras import Extras
from sim.cost.plain import plain_step_time
from sim.errors import NotModelledError
from sim.fleet.build import Plan
from sim.study.accuracy.step_log import StepLog


def features(log: StepLog) -> NDArray[np.float64]:
    """[passes, N_FEATURES]. Prompts of a pass share its tokens and what was cached of them evenly; each is taken to end in it."""
    out = np.zeros((len(log), f.N_FEATURES))
    prompts, tokens, rows, _ = log.steps.T
    cached = np.zeros(len(log)) if log.prompt_cached is None else log.prompt_cached
    context = np.zeros(len(log)) if log.decode_cached is None else log.decode_cached
    each = np.maximum(prompts, 1)
    out[:, f.TOKENS] = tokens + rows
    out[:, f.DECODE_ROWS] = out[:, f.DECODE_TOKENS] = rows
    out[:, f.DECODE_CTX] = context + rows
    out[:, f.PREFILL_ROWS], out[:, f.PREFILL_TOKENS] = prompts, tokens
    out[:, f.PREFILL_WORK] = tokens * (cached + tokens / 2.0) / each
    out[:, f.PREFILL_CTX] = cached + tokens
    out[:, f.SAMPLED] = out[:, f.ROWS] = prompts + rows
    return out


def mean_seconds(plan: Plan, logs: Sequence[StepLog]) -> float:
    """Predicted mean duration of the passes on a planned replica. Raises `NotModelledError`."""
    if plan.ranks is not None and plan.ranks.together:
        raise NotModelledError(
            "deployment.dp", plan.layout.dp, "steps that data-parallel ranks take together cannot be told one by one", "1"
        )
    rows = np.concatenate([features(log) for log in logs])
    different, count = np.unique(rows, axis=0, return_counts=True)
    most = max(plan.scheduler.max_batch_tokens(plan.params, plan.site), int(different[:, f.TOKENS].max()))
    extras = plan.scheduler.extras(plan.params, plan.site) or Extras()
    tables, _ = build_tables(plan.model, plan.accelerator, plan.layout, plan.profile, most, extras)
    return float(np.average([plain_step_time(tables, feat)[0] for feat in different], weights=count))


def longest(logs: Sequence[StepLog]) -> int:
    """A context that the server must have allowed: the mean of the rows of a pass, where it is longest."""
    rows = np.concatenate([features(log) for log in logs])
    decode = rows[:, f.DECODE_CTX] / np.maximum(rows[:, f.DECODE_ROWS], 1.0)
    prompt = rows[:, f.PREFILL_CTX] / np.maximum(rows[:, f.PREFILL_ROWS], 1.0)
    return int(np.ceil(max(decode.max(), prompt.max()))) + 1
