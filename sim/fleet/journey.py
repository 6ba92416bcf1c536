"""One request on its way from a prefill to a decode engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike

from sim.engine.seam import Columns
from sim.engine.sides import HandOver
from sim.errors import NotModelledError
from sim.fleet.clock import Clock
from sim.fleet.request import Request
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.fleet.build import Plan
    from sim.policy.router import Router

_NEW_CONTENT: Final = 1 << 50  # what a returned request says from then on is content of its own: it is hashed from its new start


class Journey:
    """One request on its way. Replicas are numbered over all pools; −1: not chosen, or no slot yet. ``p_at``, ``d_at``: its scheduler (of the ranks of
    the replica) in its pool.
    """

    __slots__ = (
        "again",
        "at_d",
        "block",
        "choice",
        "d",
        "d_at",
        "d_held",
        "d_slot",
        "done_until",
        "gone",
        "last",
        "lost",
        "need",
        "number",
        "p",
        "p_at",
        "p_held",
        "p_slot",
        "request",
        "row",
        "seen",
        "sent",
        "there",
        "watch",
    )

    def __init__(self, request: Request, p: int, d: int, choice: int) -> None:
        self.request, self.block, self.row = request, request.block, request.row
        self.number, self.watch = request.number, request.watch
        self.p, self.d, self.choice = p, d, choice
        self.p_slot = self.d_slot = self.p_at = self.d_at = -1
        self.p_held = self.d_held = False
        self.need = self.sent = 0  # tokens whose KV must travel, and of them on their way
        self.seen = np.nan  # when the client got the first token from P
        self.last = np.nan  # of a returned request: when it had its last token
        self.done_until = -np.inf  # of its prompt a chunk was computed then
        self.there = np.nan  # when its KV, which has left already, is at D
        self.again = 0  # times it was returned
        self.at_d = False  # D has it
        self.gone = False  # its client has gone, and an engine goes on with it for a while
        self.lost = False  # P has died with its KV

    def again_as(self, t: float, done: int) -> RequestBlock:
        """The request that goes anew: the prompt and the ``done`` tokens that were delivered are its prompt."""
        self.again += 1
        return continued(self.block, self.row, t, done)


def continued(old: RequestBlock, row: int, t: float, done: int) -> RequestBlock:
    """A row of a block whose prompt has the ``done`` tokens that were delivered beside its own, sent at ``t``; what is left to generate follows."""
    lo, hi = int(old.span_off[row]), int(old.span_off[row + 1])
    spans: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike] = (np.zeros(2, np.int64), (), (), ())
    if hi > lo:
        more = ([int(old.out_content[row])], [0], [done])
        parts = (
            [np.concatenate([a[lo:hi], b]) for a, b in zip(old.spans[1:], more, strict=True)]
            if done
            else [a[lo:hi] for a in old.spans[1:]]
        )
        spans = (np.array([0, len(parts[0])]), *parts)
    return RequestBlock.of(
        [t],
        [int(old.prompt_tokens[row]) + done],
        [int(old.output_tokens[row]) - done],
        max_tokens=[int(old.max_tokens[row]) - done],
        priority=old.priority[row : row + 1],
        session=old.session[row : row + 1],
        lora=old.lora[row : row + 1],
        klass=old.klass[row : row + 1],
        tenant=old.tenant[row : row + 1],
        out_content=[int(old.out_content[row]) + _NEW_CONTENT],
        spans=spans,
    )


class InUse:
    """How many requests are on their way to each replica, or have KV there that nobody has read."""

    def __init__(self, clock: Clock, replicas: int) -> None:
        self._clock = clock
        self.of = [0] * replicas
        self.asked = False
        """Whether anybody asks: only then it counts when KV has been read."""

    def at_p(self, j: Journey) -> None:
        """P has it from now on."""
        j.p_held = True
        self.of[j.p] += 1

    def left_p(self, j: Journey, t: float) -> None:
        """P has nothing of it any more from ``t`` on."""
        if not j.p_held:
            return
        j.p_held = False
        if self.asked:
            p = j.p
            self._clock.call(t, lambda: self.of.__setitem__(p, self.of[p] - 1))

    def at_d(self, j: Journey) -> None:
        """It is on its way to D, if that is known."""
        if j.d >= 0 and not j.d_held:
            j.d_held = True
            self.of[j.d] += 1

    def left_d(self, j: Journey) -> None:
        """It is one of those that D has not finished, or will never be."""
        if j.d_held:
            j.d_held = False
            self.of[j.d] -= 1


class SideColumns:
    """Columns of a block as each side gets them: P one token, D what the request says; arrivals are the caller's to write."""

    def __init__(self) -> None:
        self._of: RequestBlock | None = None
        self._made: tuple[Columns, Columns] | None = None

    def of(self, block: RequestBlock) -> tuple[Columns, Columns]:
        """Those of P and of D. The latest block of more than one request comes again and is kept."""
        if self._of is block and self._made is not None:
            return self._made
        arrival, prompt, output, limit, priority, lora, content = block.columns
        rest = priority, lora, content
        ones = np.ones(len(block), np.int32)
        made = (arrival.copy(), prompt, ones, ones, *rest), (arrival.copy(), prompt, output, limit, *rest)
        if len(block) > 1:
            self._of, self._made = block, made
        return made


def protocol_of(plans: Sequence[Plan], routers: Sequence[Router]) -> HandOver:
    """How requests go from one side to the other; `sim.fleet.checks` has seen to it that the engines say so.

    Raises `NotModelledError` where routers leave prompts to a decode side that cannot compute them.
    """
    protocol = plans[0].scheduler.hands_over
    assert protocol is not None
    if any(r.decides for r in routers) and not protocol.alone:
        why = "leaves prompts to the decode side, which does not compute them under this engine"
        raise NotModelledError("router", f"{routers[0].name} before {plans[0].scheduler.name}", why, "vllm")
    return protocol
