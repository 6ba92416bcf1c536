"""Hand-overs in a world in which replicas die, clients leave, and routers are started anew.

*A prefill replica dies.* What it was computing fails, and D gives back what it had reserved for it. KV that it still held, or that was on its way,
is lost: D fails the request, or computes its prompt itself where the engine is set to (`Scheduler.recomputes`). Whoever fails may be sent again as a
new pair by its router or client. *A decode replica dies.* Its requests fail, or go on elsewhere where the router migrates them (prompt and what was
generated are prefilled again); P keeps KV that nobody will read for as long as its engine does (`HandOver.orphan_s`); a prompt that P is computing
is computed to its end. *Assumed*: each side learns of the other's death at once; with both legs sent as a pair the router drops the other leg.
*A client leaves.* Whichever engine has its request drops it as it would alone; KV on its way arrives and is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.fleet.attempts import UNREACHABLE
from sim.fleet.clock import Clock
from sim.fleet.disaggregation import HandOvers
from sim.fleet.journey import Journey
from sim.fleet.kv_links import Wire
from sim.fleet.request import Request
from sim.fleet.view import View
from sim.ledger import ALLOCATED, CHUNK_DONE, ENDED, FAILED, FINISHED
from sim.policy.router import Router

if TYPE_CHECKING:
    from sim.fleet.build import Plan
    from sim.fleet.engines import JoinedEngines

_MANY: Final = 1024  # transfers that are remembered before those that have arrived are forgotten


class FragileHandOvers(HandOvers):
    """See above."""

    def __init__(
        self,
        clock: Clock,
        engines: JoinedEngines,
        views: Sequence[View],
        plans: Sequence[Plan],
        routers: Sequence[Router],
        wires: Sequence[Wire],
    ) -> None:
        super().__init__(clock, engines, views, plans, routers, wires)
        self._recomputes = [p.scheduler.recomputes(p.params) for p in plans]
        self._on_way: dict[int, tuple[Journey, float, int]] = {}  # when its KV arrives, and its slot on P
        self._forget_at = _MANY
        self.refused_by: Callable[[int], None] = lambda replica: None
        """Told of a replica at which nobody listened."""
        self.lost = self.computed_by_d = 0
        """Requests whose KV was lost with P; of these, those whose prompt D computed."""
        self._engines.died = self._died

    @property
    def ahead(self) -> bool:
        """Anything may happen."""
        return False

    def renew(self, rng: np.random.Generator) -> None:
        """The routers are started anew, knowing nothing."""
        self._choices.renew(rng)
        for j in self._there.values():
            j.choice = -1  # the new routers know nothing of it

    # -- nobody listens

    def _put(self, j: Journey, replica: int, side: int, t: float, flags: int) -> None:
        if replica not in self._engines.dead:
            super()._put(j, replica, side, t, flags)
            return
        self.refused_by(replica)
        if j.d_slot >= 0:
            self._drop(j, t)
        if j.p_slot >= 0:
            self._rows.failed_on_p.append(j.number)
        self._give_up(j, t, FAILED if j.p_slot >= 0 or j.d_slot >= 0 else UNREACHABLE)

    def _drop(self, j: Journey, t: float) -> None:
        """D gives back what it has for it; its row says that it failed."""
        self._sides[self._pool[j.d]].drop_remote(j.d_at, j.d_slot, t)
        self._engines.stirred = True
        j.d_slot = -1

    # -- outcomes of what has changed its course

    def _happened(self, t: float, number: int, g: int, k: int, kind: int, slot: int, value: int) -> None:
        j = self._note_place(number, g, k)
        if kind in (ALLOCATED, CHUNK_DONE) or (kind == ENDED and not self._is_decode[g]):
            if j is None:  # D died while P was computing
                if kind == ENDED and value == FINISHED:
                    self._sides[g].release_kept(k, slot, t)
                return
            if kind == ENDED and value == FINISHED and j.gone:
                j.p_slot = slot
                if j.d_slot >= 0:
                    self._drop(j, t)
                else:
                    self._rows.left_on_p.append(number)
                self._give_up(j, t, FAILED)
                return
            if kind == ALLOCATED and j.lost:
                j.d_slot = slot
                self._times[0].append(number)
                self._times[1].append(t)
                self._times[2].append(float("nan"))
                self._never_comes(j, t)
                return
        super()._happened(t, number, g, k, kind, slot, value)

    def _carry(self, j: Journey, t: float, tokens: int) -> float:
        slot = j.p_slot
        there = super()._carry(j, t, tokens)
        if len(self._on_way) >= self._forget_at:
            self._on_way = {n: x for n, x in self._on_way.items() if x[1] > t}
            self._forget_at = max(_MANY, 2 * len(self._on_way))
        self._on_way[j.number] = j, there, slot
        return there

    # -- a replica dies

    def _died(self, replica: int, now: float) -> None:
        for j in list(self._there.values()):
            if j.p == replica and j.p_slot >= 0:  # computed, and kept for D
                j.p_slot, j.lost = -1, True
            if j.at_d and j.d == replica:
                j.d_slot = -1
                if j.p_slot >= 0:
                    self._orphaned(j, j.p_slot, now)
                    j.p_slot = -1
        for number, (j, there, slot) in list(self._on_way.items()):
            if there <= now:
                continue
            if j.d == replica:
                del self._on_way[number]
                self._orphaned(j, slot, now)
            elif j.p == replica:
                del self._on_way[number]
                if not j.gone:  # else D has its row already, and only its memory
                    self._there[number] = j
                    self._sent_on.pop(number, None)
                self._never_comes(j, now)

    def _orphaned(self, j: Journey, slot: int, now: float) -> None:
        self._sides[self._pool[j.p]].release_kept(j.p_at, slot, now + self._protocol.orphan_s)

    def _never_comes(self, j: Journey, t: float) -> None:
        """The KV that D has taken memory for was lost with P."""
        self.lost += 1
        self._rows.lost.append(j.number)
        g = self._pool[j.d]
        if not self._recomputes[g] or j.gone:
            self._drop(j, t)
            return
        self.computed_by_d += 1
        del self._there[j.number]
        self.use.left_p(j, t)
        if j.watch:
            self._sent_on[j.number] = j.request
        self._sides[g].compute_here(j.d_at, j.d_slot, t)

    # -- a client leaves

    def withdraw(self, request: Request) -> bool:
        """Whoever has it hears of it."""
        if request.replica >= 0:
            self._engines.settle(request.replica)
            self._leave(request)
            self._engines.after_looks()
        return False

    def _leave(self, request: Request) -> None:
        number, now = request.number, float(self._clock.now)
        j = self._there.get(number)
        if j is None:
            on_way = self._on_way.get(number)
            travels = on_way is not None and on_way[1] > now
            if on_way is not None and travels and self._protocol.first == "decode":
                del self._on_way[number]
                self._drop(on_way[0], now)
            elif number in self._sent_on:
                if on_way is not None and travels:
                    on_way[0].gone = True
                self._withdraw_at(request.replica, number, now)
            return
        if j in self._stranded:
            self._stranded.remove(j)
            self._rows.left_on_p.append(number)
            self._give_up(j, now, FAILED)
            return
        j.gone = True
        at_p = not j.at_d or (self._protocol.first == "decode" and j.d_slot >= 0)
        self._withdraw_at(j.p if at_p else j.d, number, now)

    def _withdraw_at(self, replica: int, number: int, now: float) -> None:
        self._engines.exits(replica).withdraw(self._number[replica], number, now)

    def notes(self) -> list[str]:
        """What was lost, beside what there is to say of any."""
        out = super().notes()
        if self.lost:
            done = (
                f"the decode side computed {self.computed_by_d:,} of them itself" if self.computed_by_d else "they failed there"
            )
            out.append(f"the KV of {self.lost:,} requests was lost with their prefill replica: {done}")
        return out

    def totals(self) -> dict[str, float]:
        """Likewise."""
        return super().totals() | {"fleet_kv_lost": float(self.lost), "fleet_kv_recomputed": float(self.computed_by_d)}
