# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""The order of events over all replicas of a group: the one law by which whatever runs engines lets time go on.

*A time ``until``*: every step that ends at or before it is complete, every decision strictly before it is taken (`sim.engine.loop`).
*Nobody watches*: each replica that may finish something goes there on its own. *Somebody does*: in order of time over all replicas, to the
first outcome that is watched, with no replica past its time. Of replicas at one time first all complete, then all decide, so that whoever
watches a completion may still send something that these decisions see.

`stretch` says who is next and how far, for one kernel over the replicas of a group (`advance`) as for several groups (`sim.fleet.engines`).
"""

from math import inf

import numpy as np

from sim.engine.borrow import view
from sim.engine.loop import STOPPED, event, outlook
from sim.engine.together import event_together, outlook_together
from sim.jit import flat, inline, kernel


@flat
def stretch(keys, until, last):
    """Of times ``keys`` before which nothing happens there: (the first, how far those there may go, who it is; −1: several).

    ``last``: the first of the stretch before. Nothing is left to do where the first is beyond ``until`` or infinite.
    """
    first, bound, who = keys[0], inf, 0
    for i in range(1, len(keys)):
        if keys[i] < first:
            bound, first, who = first, keys[i], i
        elif keys[i] == first:
            who = -1
        elif keys[i] < bound:
            bound = keys[i]
    if who >= 0:
        target = min(until, bound)  # nobody else can do anything before `bound`
    elif first > last:
        target = first
    else:
        target = min(until, np.nextafter(first, inf))
    return first, target, who


@inline
def _run_one(states, replicas, i, target, watched):
    """Replica ``i`` as far as ``target``, or to its first watched outcome: True. ``replicas``: None, or of several ranks each."""
    if replicas is None:
        s = view(states[i])
        seen = s.rec.n_watched
        while event(s, target, s.multi_step) != STOPPED:
            if watched and s.rec.n_watched > seen:
                return True
        return False
    else:
        g = replicas[i]
        lead = view(states[g.first])
        rec = lead.rec
        seen = rec.n_watched
        while event_together(states, g, target, lead.multi_step) != STOPPED:
            if watched and rec.n_watched > seen:
                return True
        return False


@inline
def _outlook(states, replicas, i):
    if replicas is None:
        return outlook(view(states[i]))
    else:
        return outlook_together(states, replicas[i])


@kernel
def advance(states, replicas, keys, until, watched):
    """Run all replicas up to ``until``; ``watched``: to the first watched outcome, and returns True. ``keys``: f8[replica], kept up to date."""
    n = keys.size
    last = -inf
    while True:
        first, target, who = until, until, np.int64(-1)
        if watched:
            first, target, who = stretch(keys, until, last)
            if first > until or first == inf:
                return False
            last = first
        stopped = False
        lo, hi = (who, who + 1) if who >= 0 else (np.int64(0), n)
        for i in range(lo, hi):
            if keys[i] <= first:
                if _run_one(states, replicas, i, target, watched):
                    stopped = True
                keys[i] = _outlook(states, replicas, i)
        if stopped:
            return True
        if not watched or first >= until:
            return False
