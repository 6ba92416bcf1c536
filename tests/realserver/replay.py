"""The steps of a closed loop, decided by our scheduler in the time of steps: no duration enters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sim.cost.features import TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.loop import COMPLETED, PLANNED, STOPPED, submit, turn
from sim.engine.schedulers.vllm.state import FINISH, OUT, PREEMPTION
from sim.engine.state import new_recorder
from sim.study.conformance.vllm import _decision, _log, _switch_log

TYPES = (np.float64, np.int32, np.int32, np.int32, np.int32, np.int32, np.int64)


@dataclass
class Replay:
    """``steps``: rows of the iteration log (prompt requests, prompt tokens, decode requests, decode tokens); ``new``: requests begun in each."""

    steps: list = field(default_factory=list)
    new: list = field(default_factory=list)
    preemptions: int = 0
    free_blocks: int = 0


def closed_loop(plan, prompts, outputs, clients, late=()):
    """Every step lasts one unit; a client sends its next request while the step after its answer runs. Of the first burst one request
    arrives alone. ``late``: request → steps that it reached the engine later.
    """
    late = dict(late)
    n = len(prompts)
    cost = new_linear_cost(np.array([1.0, 1.0]), np.array([TOKENS], np.int64), np.zeros((2, 1)))
    state = plan.scheduler.new_state(plan.params, plan.site, plan.kv_blocks, 0, new_recorder(1, 0, 1.0, n + 1, 8, 1.0, 1.0), cost)
    _switch_log(state)
    spans = (np.zeros(2, np.int64), *(np.zeros(0, np.int64) for _ in range(3)))

    def send(i, now):
        values = (now + late.get(i, 0), prompts[i], outputs[i], outputs[i], 0, 0, i)
        submit(state, 0, 1, i, tuple(np.array([v], t) for v, t in zip(values, TYPES, strict=True)), spans)

    for i in range(min(clients, n)):
        send(i, 0.0 if i == 0 else 0.5)
    out = Replay(free_blocks=state.kv.free)
    sent, said, seen = min(clients, n), np.zeros(n, int), set()
    while (event := turn(state, np.inf)) != STOPPED:
        log = _log(state)
        out.preemptions += int((log[:, 0] == PREEMPTION).sum())
        if event == PLANNED:
            rows, *_ = _decision(state)
            if not len(rows):  # a step that only tells of finishes is not logged
                continue
            first = said[rows[:, 0]] == 0
            out.steps.append((int(first.sum()), int(rows[first, 1].sum()), int((~first).sum()), int(rows[~first, 1].sum())))
            out.new.append([i for i in rows[:, 0].tolist() if i not in seen])
            seen.update(out.new[-1])
        elif event == COMPLETED:
            for kind, i, _ in log:
                said[i] += kind == OUT
                if kind == FINISH and sent < n:
                    send(sent, state.now + 0.5)
                    sent += 1
    return out


def late_as_logged(plan, prompts, outputs, clients, real, most):
    """The replay in which requests are as late as the log says: where we begin a request that the server does not begin yet, it was late."""
    late = {}
    while True:
        ours = closed_loop(plan, prompts, outputs, clients, late)
        at = next((i for i, (a, b) in enumerate(zip(ours.steps, real, strict=False)) if a != b), None)
        if at is None or ours.steps[at][0] <= real[at][0] or not ours.new[at] or sum(late.values()) >= most:
            return ours, late
        late[ours.new[at][-1]] = late.get(ours.new[at][-1], 0) + 1
