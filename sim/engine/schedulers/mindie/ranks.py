# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Data-parallel ranks of MindIE vote on the phase of each turn: ``pre_scheduler.cpp`` PreScheduler::DecidePDPriority.

The ranks all-gather (priority, |waiting|, |running|). Those with empty queues do not vote; prompts if at least as many want them as want
something else. All run that phase, with dummy batches where there is nothing to do. With chunked prefill there is no vote. The dynamic batch
size is the largest of the ranks'. After empty rounds everywhere the threads sleep; the first that looks takes all with it.
"""

import sim.engine.confer  # noqa: F401 - declares the functions implemented here
from sim.engine.schedulers.mindie.stage import choose, next_look
from sim.engine.schedulers.mindie.state import DECODE, MIXED, PREFILL


def confer_mindie(s, said):
    """Whether the rank votes, whether for prompts, whether it has a turn now; its batch size."""
    if s.w_len + s.n_run + s.n_swap > 0:
        said[0] = 1.0
    if choose(s) == PREFILL:
        said[1] = 1.0
    if not s.empty or next_look(s) == 1:
        said[2] = 1.0
    said[3] = s.mb


def heed_mindie(s, said, step):
    """The phase of this turn."""
    prompts = others = 0
    most = 0.0
    s.joined = False
    for k in range(said.shape[0]):
        if said[k, 2] > 0.0:
            s.joined = True
        if said[k, 0] > 0.0:
            if said[k, 1] > 0.0:
                prompts += 1
            else:
                others += 1
        most = max(most, said[k, 3])
    if s.dynamic:
        s.mb = int(most)
    s.given = MIXED if s.chunked else PREFILL if prompts >= others else DECODE


def unfinished_mindie(s):
    """Work in any queue."""
    return s.w_len + s.n_run + s.n_swap > 0


def at_rest_mindie(s):
    """Nothing to do, and the last round found that out."""
    return s.empty and s.w_len == 0 and s.n_run == 0 and s.n_swap == 0 and not s.dynamic
