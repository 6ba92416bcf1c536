# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Prefill and decode in different engines: what an engine does on either side, and what the fleet tells it.

The functions below belong to the contract (`contract.py`) but are optional. A scheduler that plays the sides attaches them with
``sim.jit.implement`` beside the others, sets `Scheduler.hands_over` (`sides.HandOver`: its protocol) and overrides `Scheduler.as_side`.
The fleet (`sim.fleet.disaggregation`) hands requests over and owns the links; an engine owns its queues, memory and batches.

**Prefill side (P).** A request with the flag `HAND_OVER` comes with output = limit = 1: it computes its prompt and ends with the token that
P samples. ``record_end(…, FINISHED)`` wakes the fleet by itself (outcome `ENDED`). From then on the engine keeps the request's KV and its
slot, without `free_slot`, until `release_kept`. One that is refused or fails ends as ever. With `WATCH_CHUNKS` the engine calls
``note_chunk(s, slot, s.now, tokens)`` whenever a chunk of the prompt is computed that is not the last one.

``release_kept(s, slot, t)``
    The KV of a request that has ended has been read at ``t``: give its blocks back and free its slot, when the engine's rules let it see that.

**Decode side (D).** A request with the flag `REMOTE_KV` does not compute its prompt: it goes through the engine's own admission for such
requests. When the engine has taken memory for it, it calls ``note_allocated(s, slot, s.now, tokens)`` (outcome `ALLOCATED`; ``tokens``:
whose KV must come, the prompt less what D has cached) and waits. It joins the batch, by the engine's own rules, after `kv_arrived`.

``kv_arrived(s, slot, t, delivered)``
    Its KV is there at ``t``. ``delivered``: tokens of the output that P has sampled and that come along (0 or 1, `HandOver.delivered`). The
    client has ``r_done[slot]`` of them already; the engine itself must `emit` the others when it takes the request in. After that
    ``prompt + delivered`` tokens are known, and KV is there for ``prompt``.
``drop_remote(s, slot, t)``
    Its KV will never come (P refused it, or died): give back its memory, ``record_end(s, slot, t, FAILED)``, `free_slot`.
``compute_here(s, slot, t)``
    The same where D goes on by itself (`Scheduler.recomputes`): it computes the prompt as if it had been sent to it alone; its end is watched.

A preempted request is D's own affair as long as it stays there (vLLM computes again, SGLang swaps to the host). An engine that sends it back
to be prefilled again (MindIE) gives its memory back, then ``record_end(s, slot, t, RETURNED)``, `free_slot`: the fleet submits it anew, prompt
and the ``r_done`` delivered tokens as the new prompt, and joins the rows. On D `record_end` wakes the fleet unless the request has finished.

**Time.** ``t`` may lie in the future, as a link knows when it will be through: nothing may happen because of it before. The engine keeps
``s.horizon`` at the earliest such time it has been told (`tell_at`) and has not acted upon; inf: none. At a decision at or after the horizon it
must move it on. The loop wakes an idle engine at the horizon, and strokes of equal steps (`steady_steps`) end before it: a scheduler may go on
in strokes while KV is on its way.

A request with the flag `COMPUTE` is the side's own from beginning to end (`HandOver.alone`): D computes its prompt.

What is in no flag stays as it was: without `HAND_OVER` and `REMOTE_KV` a side does what it does alone (vLLM: fixed transfer times).
"""

import numpy as np

from sim.engine.group import EngineGroup, state_type
from sim.engine.loop import outlook
from sim.engine.state import EngineState, record_gap, record_gauges
from sim.jit import _METHODS, generic, inline, kernel
from sim.ledger import REMOTE_KV, WATCH_FINISH


@generic
def release_kept(s: EngineState, slot: int, t: float) -> None:
    """The KV of an ended request has been read."""


@generic
def kv_arrived(s: EngineState, slot: int, t: float, delivered: int) -> None:
    """The KV of a waiting request is there."""


@generic
def drop_remote(s: EngineState, slot: int, t: float) -> None:
    """The KV of a waiting request will never come."""


@generic
def compute_here(s: EngineState, slot: int, t: float) -> None:
    """The KV of a waiting request will never come, and its prompt is computed here."""


@inline
def tell_at(s, t):
    """Something told from outside takes effect at ``t``."""
    if t < s.horizon:
        s.horizon = t


@kernel
def _release_kept(states, keys, k, at, slot, t):
    release_kept(states[k], slot, t)
    keys[at] = min(keys[at], outlook(states[k]))


@kernel
def _kv_arrived(states, keys, k, at, slot, t, delivered, seen):
    s = states[k]
    if seen == seen:  # the client has the first token already
        s.r_done[slot] = delivered
        s.r_first_token[slot] = seen
        s.r_last_token[slot] = seen
    kv_arrived(s, slot, t, delivered)
    keys[at] = min(keys[at], outlook(s))


@inline
def _never_comes(s, t):
    """A request changes its course at ``t``: what was foreseen no longer holds."""
    record_gauges(s, t)
    s.hint = 0
    if s.q_len == 0:  # it may have decided long ago
        s.now = max(s.now, t)


@kernel
def _drop_remote(states, keys, k, at, slot, t):
    s = states[k]
    _never_comes(s, t)
    drop_remote(s, slot, t)
    keys[at] = min(keys[at], outlook(s))


@kernel
def _compute_here(states, keys, k, at, slot, t):
    s = states[k]
    _never_comes(s, t)
    s.r_watch[slot] = (s.r_watch[slot] & ~REMOTE_KV) | WATCH_FINISH
    compute_here(s, slot, t)
    keys[at] = min(keys[at], outlook(s))


@kernel
def _note_gap(states, k, gap):
    record_gap(states[k].rec, gap, 1.0)


@kernel
def _scheduled(states, k, slot):
    return states[k].r_first_scheduled[slot]


@kernel
def _delivered(states, k, slot):
    return states[k].r_done[slot], states[k].r_last_token[slot]


class Sides:
    """The engines of one `sim.engine.group.EngineGroup` as sides of a disaggregated deployment; of data-parallel ranks each is one."""

    def __init__(self, group: EngineGroup) -> None:
        self._group = group
        self._states = group._states
        self._keys = group._keys
        self._per_key = len(self._states) // len(self._keys)

    @staticmethod
    def playable(group: EngineGroup) -> bool:
        """Whether the group's scheduler has the functions of the sides."""
        kind = state_type(group)
        return kind in _METHODS["kv_arrived"] and kind in _METHODS["release_kept"]

    def release_kept(self, replica: int, slot: int, t: float) -> None:
        """The KV of a request that has ended here has been read at ``t``."""
        _release_kept(self._states, self._keys, replica, replica // self._per_key, slot, t)

    def kv_arrived(self, replica: int, slot: int, t: float, delivered: int, seen: float = np.nan) -> None:
        """KV is here at ``t``, with ``delivered`` tokens; ``seen``: when the client got them from the other side (NaN: not yet)."""
        _kv_arrived(self._states, self._keys, replica, replica // self._per_key, slot, t, delivered, seen)

    def drop_remote(self, replica: int, slot: int, t: float) -> None:
        """KV will never come."""
        _drop_remote(self._states, self._keys, replica, replica // self._per_key, slot, t)

    def compute_here(self, replica: int, slot: int, t: float) -> None:
        """KV will never come; the replica computes the prompt itself."""
        _compute_here(self._states, self._keys, replica, replica // self._per_key, slot, t)

    def scheduled(self, replica: int, slot: int) -> float:
        """When a request was first in a batch."""
        return float(_scheduled(self._states, replica, slot))

    def delivered(self, replica: int, slot: int) -> tuple[int, float]:
        """Tokens that the client has of a request that has just been given back, and when it got the last of them."""
        done, last = _delivered(self._states, replica, slot)
        return int(done), float(last)

    def note_gap(self, replica: int, gap: float) -> None:
        """Count a gap between two tokens that came from different engines."""
        _note_gap(self._states, replica, gap)
