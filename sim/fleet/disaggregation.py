"""Requests that are prefilled by one pool and decoded by another: router → P → hand-over → link → D.

Engines take their own decisions on either side (`sim.engine.hand_over`); this takes requests from one to the other at the very time of
the outcome that says so, asks routers, and owns the links (`kv_links`). The order of events is the engine's protocol (`HandOver`):

* prefill first (vLLM with NIXL; MindIE): P computes the prompt → D gets the request, takes memory → the KV travels → D decodes.
* decode first (SGLang): D takes memory → P gets the request → its KV travels, chunk by chunk where the protocol does that → D decodes.

P keeps the KV until it has arrived. A request that a decode engine gives back starts again as prompt plus what was delivered. *Assumed*: the
proxy between the sides takes no time.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.engine.hand_over import Sides
from sim.fleet.clock import Clock
from sim.fleet.dispatch import in_service
from sim.fleet.hand_over_flow import Flow, known
from sim.fleet.hand_over_rows import Columns, HandOverRows
from sim.fleet.journey import InUse, Journey, SideColumns, protocol_of
from sim.fleet.kv_links import Ports, Wire
from sim.fleet.request import Request
from sim.fleet.side_choice import Choices
from sim.fleet.station import Station
from sim.fleet.view import View
from sim.ledger import (
    ALLOCATED,
    CHUNK_DONE,
    COMPUTE,
    FAILED,
    FINISHED,
    FIRST_TOKEN,
    HAND_OVER,
    REMOTE_KV,
    RETURNED,
    WATCH_CHUNKS,
    WATCH_FINISH,
    WATCH_FIRST_TOKEN,
)
from sim.policy.router import Router
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.fleet.build import Plan
    from sim.fleet.engines import JoinedEngines

_ALLOCATED, _CHUNK_DONE, _FIRST_TOKEN = int(ALLOCATED), int(CHUNK_DONE), int(FIRST_TOKEN)


class HandOvers(Station):
    """Between routers and engines. ``routers``: in the order of `sim.fleet.routers.seats`, or one `Router.whole`; ``views``: what each sees;
    ``wires``: what leads to the replicas of each pool.
    """

    def __init__(
        self,
        clock: Clock,
        engines: JoinedEngines,
        views: Sequence[View],
        plans: Sequence[Plan],
        routers: Sequence[Router],
        wires: Sequence[Wire],
    ) -> None:
        super().__init__()
        self._clock, self._engines = clock, engines
        self._protocol = protocol_of(plans, routers)
        self._groups = engines.groups
        self._is_decode = [p.role == "decode" for p in plans]
        self._pool, self._number, self._first = engines.pool_of, engines.number_of, engines.first_row
        self._sides = [Sides(g) for g in self._groups]
        self._facts = engines.view.facts
        self._ports = Ports.of(plans, wires)
        self._layers = [
            p.model.layers if w.layerwise else 0 for p, w in zip(plans, wires, strict=True) for _ in range(p.replicas)
        ]
        """Of each replica: its KV leaves in so many parts while it is computed; 0: when it is computed."""
        together = self._protocol.pair or self._protocol.first == "decode" or any(self._layers)
        self._choices = Choices(plans, views, routers, together)
        self._says_at_d = self._protocol.first_token != "prefill" and not routers[0].whole
        """Whether the first token that a client sees comes from D."""
        self._there: dict[int, Journey] = {}
        self._sent_on: dict[int, Request] = {}  # whose KV has gone to D, which has the rest
        self._columns = SideColumns()
        self._times = [array("d") for _ in range(3)]  # request, KV memory taken, KV there
        self._rows = HandOverRows(plans, self._protocol.first_token)
        self.use = InUse(clock, len(self._pool))
        self._stranded: list[Journey] = []
        self.watches = 3 if routers[0].hears and not routers[0].whole else 0  # ends and first tokens
        self._place = {r: i for members in self._choices.members for i, r in enumerate(members)}
        engines.happened = self._happened
        engines.counts = self._rows.ended

    @property
    def ahead(self) -> bool:
        """Where nobody else acts."""
        nobody = not (self.use.asked or self.watches or any(self._layers)) and self._engines.ahead
        first, *others = self._choices.each
        return nobody and not others and known(self._protocol, first.routers, self._groups)

    def arrive_ahead(self, block: RequestBlock, lo: int, hi: int, first: int) -> None:
        """Compiled code takes them from P to D."""
        if self._engines.flow is None:
            choice = self._choices.each[0]
            self._engines.flow = Flow(
                self._engines, self._choices.members, self._protocol, choice.pairs, self._facts, choice.routers, self._ports
            )
        self._engines.flow.send(block, lo, hi, first)

    def start(self) -> None:
        """The routers look at their replicas."""
        self._choices.start(self._clock, self._engines.after_looks)

    def leaves(self) -> Mapping[str, object]:
        """Who used which link when."""
        return {"links": self._ports.log}

    def set_links(self, factor: float, until: float) -> None:
        """The links carry ``factor`` times as much as ever; with 0 nothing before ``until``."""
        self._ports.scale(factor, until)

    def arrive(self, request: Request) -> bool:
        """A request has come, now. False if no replica can be had."""
        choice = self._choices.of(request)
        return self._begin(request, *choice.choose(request.block, request.row), choice.count - 1)

    def send(self, request: Request, replica: int, decode: int = -1) -> None:
        """A router with a queue of its own lets a request go to these two."""
        self._begin(request, replica, decode, -1)

    def in_turn(self, request: Request) -> bool:
        """Round robin on either side: the scheduler is out of reach."""
        return self._begin(request, *self._choices.of(request).in_turn(), -1)

    def in_use(self, replica: int) -> bool:
        """Whether a request is on its way there, or its KV still lies there."""
        return self.use.of[replica] > 0

    @property
    def stranded(self) -> int:
        """Requests whose prompts are computed while no decode replica serves."""
        return len(self._stranded)

    def stranded_of(self, model: int) -> int:
        """The same of one model."""
        return sum(j.request.model == model for j in self._stranded)

    def go_on(self) -> None:
        """A decode replica serves again."""
        waiting, self._stranded = self._stranded, []
        for j in waiting:
            self._to_chosen_decode(j, float(self._clock.now))

    def _happened(self, t: float, number: int, g: int, k: int, kind: int, slot: int, value: int) -> None:
        """A prompt is computed, memory is taken, D has given a first token, or a request has ended."""
        self._note_place(number, g, k)
        if kind == _FIRST_TOKEN:
            self.before.first_token(self._sent_on[number], t)
        elif kind == _ALLOCATED:
            self._allocated(self._there[number], t, slot, value)
        elif kind == _CHUNK_DONE:
            self._chunk_done(self._there[number], t, slot, value)
        elif self._is_decode[g]:
            self._left_decode(number, g, k, t, slot, value)
        elif value == FINISHED:
            self._prompt_computed(self._there[number], t, slot)
        else:
            self._left_prefill(self._there[number], t, value)

    def _note_place(self, number: int, g: int, k: int) -> Journey | None:
        """Where an engine's own balancer has put it is known from what happens to it."""
        j = self._there.get(number)
        if j is not None and self._is_decode[g]:
            j.d_at = k
        elif j is not None:
            j.p_at = k
        return j

    # -- steps of the journey

    def _begin(self, request: Request, p: int, d: int, choice: int) -> bool:
        """False if no replica can be had."""
        if max(p, d) < 0:
            return False
        self._engines.took(request)
        j = Journey(request, p, d, choice)
        t = max(float(self._clock.now), request.arrival)
        if p < 0:  # D computes the prompt itself: nothing is handed over
            self._rows.alone += 1
            if j.watch:
                self._sent_on[j.number] = request
            self._to_decode(j, t)
        else:
            request.replica = p
            self._there[request.number] = j
            self._start(j, t)
        return True

    def _start(self, j: Journey, t: float) -> None:
        self.use.at_p(j)
        self.use.at_d(j)
        if self._protocol.first == "prefill":
            self._to_prefill(j, t)
        else:
            self._to_decode(j, t)

    def _put(self, j: Journey, replica: int, side: int, t: float, flags: int) -> None:
        block, row = self._engines.as_seen(replica, j.block, j.row)
        columns = self._columns.of(block)[side]
        columns[0][row] = t
        pool = self._pool[replica]
        self._engines.taken[pool] += 1
        self._groups[pool].submit(self._number[replica], columns, block.spans, row, row + 1, j.number - row, flags)

    def _to_prefill(self, j: Journey, t: float) -> None:
        """P gets the request, for one token."""
        if self.watches:
            self._clock.call(t, lambda: self._choices.router(j.request, 0).on_sent(j.number, self._place[j.p], j.block, j.row, t))
        self._put(j, j.p, 0, t, HAND_OVER | WATCH_CHUNKS if self._protocol.sends == "chunks" else HAND_OVER)

    def _to_decode(self, j: Journey, t: float) -> None:
        """D gets the request, without the KV of its prompt, or for itself where there is no P."""
        if self.watches:
            self._clock.call(t, lambda: self._choices.router(j.request, 1).on_sent(j.number, self._place[j.d], j.block, j.row, t))
        j.at_d = True
        j.request.replica = j.d
        told = WATCH_FINISH if j.watch or self._protocol.returns else 0
        first = j.watch & WATCH_FIRST_TOKEN if self._says_at_d else 0
        self._put(j, j.d, 1, t, (REMOTE_KV if j.p >= 0 else COMPUTE) | told | first)
        self.use.left_d(j)  # from now on it is one of those that D has not finished
        self._choices.of(j.request).reached(j.choice, t)

    def _prompt_computed(self, j: Journey, t: float, slot: int) -> None:
        j.p_slot = slot
        self._tell_ended(0, j.request, t)
        if not self._says_at_d:
            self.before.first_token(j.request, t)
        protocol = self._protocol
        if protocol.first_token == "prefill":
            j.seen = t
            if j.again:
                self._sides[self._pool[j.p]].note_gap(j.p_at, t - j.last)
            if j.block.output_tokens[j.row] == 1:
                self._rows.ended_on_p.append(j.number)
                self._give_up(j, t)
                return
        if protocol.first == "decode":
            self._carry(j, t, j.need - j.sent)
            return
        if self._layers[j.p]:  # P knows where to: what it computes has been on its way, into a buffer of D
            j.there = self._send(j, int(j.block.prompt_tokens[j.row]), t, slot)
        self._to_chosen_decode(j, t)

    def _to_chosen_decode(self, j: Journey, t: float) -> None:
        if j.d < 0:
            choice = self._choices.of(j.request)
            j.d = choice.choose_decode(j.block, j.row, j.p, t)
            if j.d < 0 and not in_service(choice.routers[-1], 1):  # the side scales and nobody serves: somebody will
                self._stranded.append(j)
                return
            if j.d < 0:
                self._rows.failed_on_p.append(j.number)
                self._give_up(j, t, FAILED)
                return
            self.use.at_d(j)
        self._to_decode(j, t)

    def _allocated(self, j: Journey, t: float, slot: int, tokens: int) -> None:
        """D has memory for the KV of ``tokens`` tokens."""
        j.d_slot, j.need = slot, tokens
        self._times[0].append(j.number)
        self._times[1].append(t)
        if self._protocol.first == "decode":
            self._times[2].append(np.nan)
            self._to_prefill(j, t)
        else:
            self._carry(j, t, tokens)

    def _chunk_done(self, j: Journey, t: float, slot: int, tokens: int) -> None:
        """P has computed so much of the prompt; whole blocks of what D lacks are sent."""
        size = self._facts[j.d].block_size
        due = max(tokens - (int(j.block.prompt_tokens[j.row]) - j.need), 0) // size * size
        if due > j.sent:
            self._send(j, due - j.sent, t, slot)
            j.sent = due
        j.done_until = t

    def _send(self, j: Journey, tokens: int, t: float, slot: int) -> float:
        """KV of so many tokens goes from ``slot`` of P to D; answers when it will be there."""
        block = self._facts[j.d].block_size
        size = -(-tokens // block) * block * self._facts[j.d].kv_bytes_per_token
        ends = (
            self._first[self._pool[j.p]] + j.p_at,
            self._first[self._pool[j.d]] + (j.d_at if j.d_at >= 0 else self._number[j.d]),
        )
        if not self._layers[j.p]:
            return self._ports.send(*ends, size, t)
        begun = max(self._sides[self._pool[j.p]].scheduled(j.p_at, slot), j.done_until)
        return self._ports.send_while(*ends, size, begun, t, self._layers[j.p])

    def _carry(self, j: Journey, t: float, tokens: int) -> float:
        """The rest of the KV travels; both sides are told when it will have arrived, which is returned."""
        p, d = j.p, j.d
        there = self._send(j, tokens, t, j.p_slot) if np.isnan(j.there) else max(j.there, t)
        self._times[2].append(there)
        if self._protocol.first == "decode":
            self._times[0].append(j.number)
            self._times[1].append(np.nan)
        self._sides[self._pool[d]].kv_arrived(j.d_at, j.d_slot, there, self._protocol.delivered, j.seen)
        self._sides[self._pool[p]].release_kept(j.p_at, j.p_slot, there)
        j.p_slot = -1
        self.use.left_p(j, there)
        if not self._protocol.returns:
            del self._there[j.number]
            if j.watch:
                self._sent_on[j.number] = j.request
        return there

    def _give_up(self, j: Journey, t: float, status: int = FINISHED) -> None:
        """Nothing is left to do for it: P may forget its KV, the client has its answer."""
        j.request.status = status
        if j.p_slot >= 0:
            self._sides[self._pool[j.p]].release_kept(j.p_at, j.p_slot, t)
        self.use.left_p(j, t)
        self.use.left_d(j)
        self._there.pop(j.number, None)
        self._sent_on.pop(j.number, None)
        self._tell_ended(0, j.request, t)
        self._tell_ended(1, j.request, t)
        self.before.ended(j.request, t, j.d if j.d >= 0 else j.p)

    def _left_prefill(self, j: Journey, t: float, status: int) -> None:
        """P has refused it, or died."""
        if j.d_slot >= 0:
            self._sides[self._pool[j.d]].drop_remote(j.d_at, j.d_slot, t)
        self._give_up(j, t, status)

    def _left_decode(self, number: int, g: int, k: int, t: float, slot: int, status: int) -> None:
        j = self._there.get(number)
        if status == RETURNED:
            assert j is not None, "a protocol that returns requests says so: HandOver.returns"
            self._again(j, t, *self._sides[g].delivered(k, slot))
        elif j is not None:
            self._give_up(j, t, status)
        else:
            request = self._sent_on.pop(number, None)
            if request is not None:
                request.status = status
                self._tell_ended(1, request, t)
                self.before.ended(request, t, self._engines.first[g] + k // self._groups[g].ranks)

    def _tell_ended(self, side: int, request: Request, t: float) -> None:
        if self.watches:
            self._clock.call(t, lambda: self._choices.router(request, side).on_end(request.number, t))

    def _again(self, j: Journey, t: float, done: int, last: float) -> None:
        """Prompt and what was delivered are the new prompt; routers choose anew, the old replicas where they have none."""
        self._rows.returned += 1
        j.block = j.again_as(t, done)
        j.at_d = False
        j.row, j.p_slot, j.d_slot, j.sent, j.seen, j.last = 0, -1, -1, 0, np.nan, last
        j.there, j.done_until = np.nan, -np.inf
        for view in self._engines.views:
            view.moment = t
        choice = self._choices.of(j.request)
        p, d = choice.choose(j.block, 0)
        if p >= 0:
            j.p, j.d, j.choice = p, d, choice.count - 1
        self._start(j, t)

    # -- results

    def join(self, rows: Columns, requests: int) -> Columns:
        """One row per request: what P and D say of it, and the times between them."""
        flow = self._engines.flow
        return self._rows.join(rows, self._times if flow is None else flow.stages())

    def totals(self) -> dict[str, float]:
        """Figures for the summary: ``fleet_kv_…``."""
        span = max(g.totals()["last_s"] for g in self._groups)
        return self._ports.totals(span) | self._rows.totals()

    def notes(self) -> list[str]:
        """The same in sentences."""
        return self._rows.notes()
