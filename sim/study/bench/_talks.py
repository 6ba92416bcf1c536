"""Conversations in benchmark records: which requests continue which, and how long their prompts really were."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.ledger import Values as Array

_ADDS = 0.1
"""Share of later turns that are no longer than the turn before from which on a file counts only what each turn adds."""
_PAUSE_S = 0.01


@dataclass(frozen=True)
class Talks:
    """Per request [n]: ``talk`` its conversation (−1: none), ``turn`` its place in it, ``prompt`` all of its prompt, ``wait_s`` after the answer to the
    turn before until it was sent (NaN: the first); ``pauses``: the clients paused between turns.
    """

    talk: Array
    turn: Array
    prompt: Array
    wait_s: Array
    pauses: bool
    notes: tuple[str, ...]


def talks_of(
    names: Sequence[object], turns: Sequence[object], start: Array, end: Array, prompt: Array, output: Array
) -> Talks | None:
    """The conversations of requests with these ids and numbers of turns; None where none has a second turn.

    A later prompt holds all that was said before. A file whose later turns are often no longer than the one before counts only what
    each adds (aiperf before 0.2, servers that keep the conversation): then prompts are the sums.
    """
    n = len(prompt)
    code: dict[Hashable, int] = {}
    talk = np.array([-1 if x is None else code.setdefault(x, len(code)) for x in names], np.int64)
    place = np.array([k if t is None else t for k, t in enumerate(turns)], np.float64)
    order = np.lexsort((start, place, talk))
    follows = np.zeros(n, bool)  # in this order: the row before is the turn before
    follows[1:] = (talk[order][1:] == talk[order][:-1]) & (talk[order][1:] >= 0)
    if not follows.any():
        return None
    later, before = order[follows], order[np.flatnonzero(follows) - 1]
    shorter = float((prompt[later] <= prompt[before]).mean())
    whole = prompt.astype(np.float64).copy()
    notes = []
    if shorter > _ADDS:
        for row, last in zip(later, before, strict=True):
            whole[row] = whole[last] + output[last] + prompt[row]
        notes.append(
            f"{shorter:.0%} of later turns are no longer than the turn before: the file counts what a turn adds, "
            "and prompts are all that was said before and that"
        )
    notes.append(f"{len(later)} requests continue a conversation: their prompts begin with what was said before")
    turn = np.zeros(n, np.int64)
    for row, last in zip(later, before, strict=True):
        turn[row] = turn[last] + 1
    wait = np.full(n, np.nan)
    gap = (start[later] - end[before]).astype(float)
    wait[later] = np.maximum(np.nan_to_num(gap), 0.0)
    pauses = bool(np.nanmedian(wait[later]) > _PAUSE_S)
    return Talks(talk, turn, whole, wait, pauses, tuple(notes))
