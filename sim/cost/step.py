"""Duration of one engine step: a table look-up plus a formula over the batch's sums (`features`). Compiled."""

from sim.jit import f8s, f8ss, i8, i8s, inline, kernel, new, struct
from sim.cost.features import PART_OTHER, PREFILL_ROWS, TOKENS


@struct
class StepCost:
    """``kind`` 0: linear in the features (recordings, queueing laws). Other kinds: see the operator model."""

    kind: i8
    # linear: a + Σ coef·feature in the given order; set 0 for pure decode, set 1 if any row computes a prompt
    lin_base: f8s  # [2]
    lin_index: i8s
    lin_coef: f8ss  # [2, terms]


@kernel
def new_linear_cost(base, index, coef):
    """A synthetic cost: ``base[m] + Σ coef[m, j]·feature[index[j]]``, summed in order; zero for an empty batch."""
    c = new(StepCost)
    c.kind = 0
    c.lin_base = base.copy()
    c.lin_index = index.copy()
    c.lin_coef = coef.copy()
    return c


@inline
def step_time(c, feat, parts):
    """Seconds of a step with these sums; adds what they were spent on to ``parts``."""
    if feat[TOKENS] == 0.0:
        return 0.0
    m = 1 if feat[PREFILL_ROWS] > 0.0 else 0
    t = c.lin_base[m]
    for j in range(c.lin_index.size):
        t += c.lin_coef[m, j] * feat[c.lin_index[j]]
    parts[PART_OTHER] += t
    return t
