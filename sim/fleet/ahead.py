# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, call-arg"
"""Requests that are routed by a rule up to the next event of the world, in one compiled call: advance, choose, submit, row by row."""

import numpy as np

from sim.engine.borrow import lend
from sim.engine.group import EngineGroup, _submit
from sim.engine.order import advance
from sim.jit import inline, kernel
from sim.rules import MORE, ask, seen_of, source_of


@inline
def _as_new(s, shift):
    """The texts of the request that has just come are others than those that were there before."""
    slot = s.in_slot[(s.in_head + s.in_len - 1) % s.in_slot.size]
    s.r_out_content[slot] += shift
    for j in range(s.r_span[slot], s.r_span[slot] + s.r_spans[slot]):
        s.sp_id[j] += shift


@kernel
def _send(states, keys, outstanding, one, columns, spans, shifts, lo, hi, first_id, now, rule, memory, seen, places, chosen):
    """Rows [lo, hi) one after the other, each to replica ``places[k]`` where k is what the ``rule`` answers.

    Returns (the first row that was not sent or ``hi``, its place if one was chosen but has no room, else `MORE`). ``chosen``: the place of row ``lo``
    if it has one. ``shifts``: of the texts for each replica, see `sim.fleet.caches`.
    """
    columns, spans, seen = lend(columns), lend(spans), lend(seen)
    arrival = columns[0]
    texts = spans[1].size > 0
    own = seen.outstanding.ctypes.data != outstanding.ctypes.data
    for i in range(lo, hi):
        t = arrival[i]
        if t > now:
            advance(states, None, keys, t, False)
            now = t
        if chosen < 0:
            if own:
                for k in range(places.size):
                    seen.outstanding[k] = outstanding[places[k]]
            chosen = ask(rule, memory, seen, i, now)
            if chosen < 0:
                return i, chosen
        replica = places[chosen]
        one[0] = replica
        if _submit(states, keys, one, i, i + 1, first_id, 0, columns, spans) == i:
            return i, chosen
        if texts and shifts[replica] != 0:
            _as_new(states[replica], shifts[replica])
        chosen = np.int64(-1)
    return hi, np.int64(MORE)


@kernel
def _ask(rule, memory, seen, row, now):
    return ask(rule, memory, seen, row, now)


def compiled(group) -> bool:
    """Whether the group runs as one kernel over its replicas."""
    return type(group).advance is EngineGroup.advance and type(group)._submit is EngineGroup._submit


class Choice:
    """A rule (`sim.rules.Rule`) among those of n replicas that serve: ``serving()``, ascending. ``outstanding()``: i8[n], live where it can be."""

    def __init__(self, rule, rng, serving, outstanding) -> None:
        self.rule = rule
        self._source = source_of(rng)
        self._serving, self._outstanding = serving, outstanding
        self._members: object = None
        self._block: object = None

    def _among(self):
        serving = self._serving()
        if serving is not self._members:
            self._members, self._block = serving, None
            self.places = np.array(serving, np.int64)
            live = self._outstanding()
            self._loads = live if len(serving) == len(live) else np.zeros(len(serving), np.int64)

    def seen(self, block):
        """What the rule sees (`sim.rules.Seen`)."""
        self._among()
        if block is not self._block:
            self._block = block
            self._seen = seen_of(self._loads, self.places, block, self._source)
        return self._seen

    def one(self, block, row, now) -> int:
        """The replica for one row."""
        seen = self.seen(block)
        loads = self._outstanding()
        if loads is not self._loads:
            seen.outstanding[:] = loads[self.places]
        self.rule.prepare(block, row, row + 1)
        while (place := _ask(self.rule.address, self.rule.table, seen, row, float(now))) == MORE:
            self.rule.grow()
        return int(self.places[place])


def send_ahead(group, block, lo, hi, first_id, now, choice, shifts) -> None:
    """Rows [lo, hi) of a block, each at its time to the replica that ``choice`` (a `Choice`) names then; engines are at ``now``."""
    one = np.zeros(1, np.int32)
    columns, spans = block.columns, block.spans
    seen, rule = choice.seen(block), choice.rule
    rule.prepare(block, lo, hi)
    chosen = -1
    while True:
        at, chosen = _send(
            group._states, group._keys, group.outstanding, one, columns, spans, shifts, lo, hi, first_id, now,
            rule.address, rule.table, seen, choice.places, chosen,
        )  # fmt: skip
        if at >= hi:
            return
        if chosen == MORE:
            rule.grow()
        else:
            group._grow(one, spans, at)
        lo, now = at, max(now, float(columns[0][at]))
