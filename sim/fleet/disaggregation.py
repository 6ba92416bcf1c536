"""Requests that are prefilled by one pool and decoded by another: router → P → hand-over → link → D.

Engines take their own decisions on either side (`sim.engine.disaggregation`); this takes requests from one to the other at the very time of
the outcome that says so, asks routers, and owns the links (`kv_links`). The order of events is the engine's protocol (`HandOver`):

* prefill first (vLLM with NIXL; MindIE): P computes the prompt → D gets the request, takes memory → the KV travels → D decodes.
* decode first (SGLang): D takes memory → P gets the request → its KV travels, chunk by chunk where the protocol does that → D decodes.

P keeps the KV until it has arrived. A request that a decode engine gives back starts again as prompt plus what was delivered. *Assumed*: the
proxy between the sides takes no time.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.engine.disaggregation import Sides
from sim.engine.group import Joined
from sim.engine.state import (
    ALLOCATED,
    CHUNK_DONE,
    FAILED,
    FINISHED,
    HAND_OVER,
    IN_FLIGHT,
    REMOTE_KV,
    RETURNED,
    WATCH_CHUNKS,
    WATCH_FINISH,
)
from sim.errors import ConfigError, NotModelledError
from sim.fleet.kv_links import Ports, Wire
from sim.fleet.world import View
from sim.policy.router import Router
from sim.workload.table import RequestBlock

Array = NDArray[Any]
Columns = dict[str, Array]
_ALLOCATED, _CHUNK_DONE = int(ALLOCATED), int(CHUNK_DONE)
_NEW_CONTENT: Final = 1 << 50  # what a returned request says from then on is content of its own: it is hashed from its new start


def check_sides(plans: Sequence[Any]) -> None:
    """Whether the pools can hand requests over. Raises `ConfigError`, `NotModelledError`."""
    first = plans[0]
    if first.scheduler.hands_over is None:
        raise NotModelledError(
            f"{first.field}.role", first.role, f"prefill and decode sides of {first.scheduler.name} are not modelled", "vllm"
        )
    for p in plans:
        if p.ranks is not None:
            raise NotModelledError(
                f"{p.field}.dp", p.layout.dp, "data-parallel ranks on a disaggregated side are not modelled", "1"
            )
        if p.scheduler.name != first.scheduler.name:
            why = "KV is handed over between engines of one kind only"
            raise ConfigError(f"{p.field}.engine.name", p.scheduler.name, why, first.scheduler.name)
        if p.model is not first.model:
            raise ConfigError(f"{p.field}.model", p.model.name, "the sides serve one model", first.model.name)
        if p.budget is not None and p.budget.block_size != first.budget.block_size:
            size = first.budget.block_size
            raise ConfigError(f"{p.field}.engine.block_size", p.budget.block_size, "KV is handed over block by block", str(size))


class _Journey:
    """One request on its way. Replicas are numbered over all pools; −1: not chosen, or no slot yet."""

    __slots__ = (
        "again",
        "block",
        "choice",
        "d",
        "d_slot",
        "last",
        "need",
        "number",
        "p",
        "p_slot",
        "row",
        "seen",
        "sent",
        "watch",
    )

    def __init__(self, block: Any, row: int, number: int, watch: int, p: int, d: int, choice: int) -> None:
        self.block, self.row, self.number, self.watch = block, row, number, watch
        self.p, self.d, self.choice = p, d, choice
        self.p_slot = self.d_slot = -1
        self.need = self.sent = 0  # tokens whose KV must travel, and of them on their way
        self.seen = np.nan  # when the client got the first token from P
        self.last = np.nan  # of a returned request: when it had its last token
        self.again = 0  # times it was returned


class HandOvers:
    """Between routers and engines. ``routers``: one for each side (prefill, decode), or one `Router.whole` for both."""

    tell_computed: Any = None
    """Told ``(number, time)`` of every computed prompt; None: nobody wants to know."""

    def __init__(self, world: Any, plans: Sequence[Any], routers: Sequence[Router], wire: Wire) -> None:
        self._world, self._env = world, world.env
        self._protocol = plans[0].scheduler.hands_over
        groups = world.groups
        self._joined = Joined(groups)
        self._groups = groups
        self._is_decode = [p.role == "decode" for p in plans]
        self._pool = [g for g, p in enumerate(plans) for _ in range(p.replicas)]
        self._number = [k for p in plans for k in range(p.replicas)]
        self._sides = [Sides(g) for g in groups]
        facts = world.view.facts
        self._block_size = facts[0].block_size
        self._bytes = [f.kv_bytes_per_token for f in facts]
        self._ports = Ports(wire, [p.layout.tp * p.layout.pp for p in plans for _ in range(p.replicas)])
        self._routers = routers
        self._members = [[r for r, g in enumerate(self._pool) if self._is_decode[g] == decode] for decode in (False, True)]
        self._views: list[View] = []
        for decode, role in enumerate(("prefill", "decode")):
            mine = [g for g, is_decode in zip(groups, self._is_decode, strict=True) if is_decode == bool(decode)]
            self._views.append(View(mine, world.env, [facts[r] for r in self._members[decode]]))
            if not routers[0].whole:
                routers[decode].plays(role)
                routers[decode].setup(self._views[decode].facts)
        if routers[0].whole:
            routers[0].setup(facts)
        if routers[0].migration is not None:
            raise NotModelledError(
                "router", routers[0].name, "migration of running requests beside hand-overs is not modelled", "no migration"
            )
        self._pairs = self._protocol.pair or self._protocol.first == "decode" or routers[0].pairs
        for router in routers:
            router.pairs = self._pairs
        self._choices = 0  # pairs that routers have chosen
        self._turns = [0, 0]
        self._there: dict[int, _Journey] = {}
        self._columns: tuple[Any, Any, Any] = (None, None, None)  # of the latest block: columns for P, for D
        self._refused_by_d = 0
        self._returned = 0
        self._ended_on_p: list[int] = []
        self._failed_on_p: list[int] = []
        self._times = [array("d") for _ in range(3)]  # request, KV memory taken, KV there
        self._end = 0.0

    # -- from the world

    def schedule(self, request: tuple[Any, int, int, int]) -> bool:
        """A request has come, now. False if no replica can be had."""
        p, d = self._choose(request[0], request[1])
        if p < 0:
            return False
        self._begin(request, p, d, self._choices - 1)
        return True

    def begin(self, request: tuple[Any, int, int, int], p: int, d: int) -> None:
        """A router with a queue of its own lets a request go to these two."""
        self._begin(request, p, d, -1)

    def in_turn(self, request: tuple[Any, int, int, int]) -> bool:
        """Round robin on either side: the scheduler is out of reach."""
        chosen = []
        for side, members in enumerate(self._members):
            chosen.append(members[self._turns[side] % len(members)])
            self._turns[side] += 1
        self._begin(request, chosen[0], chosen[1], -1)
        return True

    def poll(self) -> tuple[()]:
        """The routers look at their replicas."""
        if self._routers[0].whole:
            self._routers[0].poll(self._world.view)
        else:
            for router, view in zip(self._routers, self._views, strict=True):
                router.poll(view)
        if self._joined.more_outcomes():
            self.handle_outcomes()
        return ()

    def advance(self, until: float) -> bool:
        """Bring all engines up to ``until``, or to the first outcome: then True."""
        return bool(self._joined.advance(until))

    def catch_up(self, until: float) -> None:
        """The run ends at ``until``."""
        self._joined.catch_up(until)

    def handle_outcomes(self) -> None:
        """Act upon everything that has happened: prompts computed, memory taken, requests ended."""
        looks = self._looks()
        while True:
            times, rows = self._joined.outcomes()
            for t, (number, g, k, kind, slot, value) in zip(times, rows, strict=True):
                if kind == _ALLOCATED:
                    self._allocated(self._there[number], t, slot, value)
                elif kind == _CHUNK_DONE:
                    self._chunk_done(self._there[number], t, value)
                elif self._is_decode[g]:
                    self._left_decode(number, g, k, t, slot, value)
                elif value == FINISHED:
                    self._prompt_computed(self._there[number], t, slot)
                else:
                    self._left_prefill(self._there[number], t)
            # a router that looked at the engines brought them to now, perhaps to more outcomes
            if self._looks() == looks or not self._joined.more_outcomes():
                return

    def _looks(self) -> int:
        return int(self._world.view.looks + self._views[0].looks + self._views[1].looks)

    # -- choices

    def _choose(self, block: Any, row: int) -> tuple[int, int]:
        """Prefill replica, and the decode replica where both are chosen at arrival; −1: none."""
        routers = self._routers
        if routers[0].whole:
            return routers[0].choose_pair(self._world.view, block, row)
        p = routers[0].choose(self._views[0], block, row)
        if p < 0:
            return -1, -1
        if not self._pairs:
            return self._members[0][p], -1
        d = routers[1].choose(self._views[1], block, row)
        if d < 0:
            routers[0].revert()
            return -1, -1
        self._choices += 1
        return self._members[0][p], self._members[1][d]

    def _choose_decode(self, j: _Journey, t: float) -> int:
        router = self._routers[-1]
        if router.whole:
            self._world.view.moment = t
            return router.choose_decode(self._world.view, j.block, j.row, j.p)
        self._views[1].moment = t
        d = router.choose(self._views[1], j.block, j.row)
        return self._members[1][d] if d >= 0 else -1

    # -- steps of the journey

    def _begin(self, request: tuple[Any, int, int, int], p: int, d: int, choice: int) -> None:
        block, row, number, watch = request
        arrival = float(block.arrival_s[row])
        self._world.taken(number, arrival)
        j = _Journey(block, row, number, watch, p, d, choice)
        self._there[number] = j
        self._start(j, max(float(self._env.now), arrival))

    def _start(self, j: _Journey, t: float) -> None:
        if self._protocol.first == "prefill":
            self._to_prefill(j, t)
        else:
            self._to_decode(j, t)

    def _columns_of(self, block: Any) -> tuple[Any, Any, Any]:
        if self._columns[0] is not block:
            arrival, prompt, output, limit, *rest = block.columns
            ones = np.ones(len(block), np.int32)
            self._columns = block, (arrival.copy(), prompt, ones, ones, *rest), (arrival.copy(), prompt, output, limit, *rest)
        return self._columns

    def _to_prefill(self, j: _Journey, t: float) -> None:
        """P gets the request, for one token."""
        columns, row = self._columns_of(j.block)[1], j.row
        columns[0][row] = t
        flags = HAND_OVER | WATCH_CHUNKS if self._protocol.sends == "chunks" else HAND_OVER
        self._groups[self._pool[j.p]].submit(self._number[j.p], columns, j.block.spans, row, row + 1, j.number - row, flags)

    def _to_decode(self, j: _Journey, t: float) -> None:
        """D gets the request, without the KV of its prompt."""
        columns, row = self._columns_of(j.block)[2], j.row
        columns[0][row] = t
        flags = REMOTE_KV | WATCH_FINISH if j.watch or self._protocol.returns else REMOTE_KV
        self._groups[self._pool[j.d]].submit(self._number[j.d], columns, j.block.spans, row, row + 1, j.number - row, flags)
        if self._pairs and not self._routers[-1].whole:
            self._routers[1].reached(j.choice, t)

    def _prompt_computed(self, j: _Journey, t: float, slot: int) -> None:
        j.p_slot = slot
        if self.tell_computed is not None:
            self.tell_computed(j.number, t)
        protocol = self._protocol
        if protocol.first_token == "prefill":
            j.seen = t
            if j.again:
                self._sides[self._pool[j.p]].note_gap(self._number[j.p], t - j.last)
            if j.block.output_tokens[j.row] == 1:
                self._ended_on_p.append(j.number)
                self._give_up(j, t)
                return
        if protocol.first == "decode":
            self._carry(j, t, j.need - j.sent)
            return
        if j.d < 0:
            j.d = self._choose_decode(j, t)
            if j.d < 0:
                self._refused_by_d += 1
                self._failed_on_p.append(j.number)
                self._give_up(j, t)
                return
        self._to_decode(j, t)

    def _allocated(self, j: _Journey, t: float, slot: int, tokens: int) -> None:
        """D has memory for the KV of ``tokens`` tokens."""
        j.d_slot, j.need = slot, tokens
        self._times[0].append(j.number)
        self._times[1].append(t)
        if self._protocol.first == "decode":
            self._times[2].append(np.nan)
            self._to_prefill(j, t)
        else:
            self._carry(j, t, tokens)

    def _chunk_done(self, j: _Journey, t: float, tokens: int) -> None:
        """P has computed so much of the prompt; whole blocks of what D lacks are sent."""
        size = self._block_size
        due = max(tokens - (int(j.block.prompt_tokens[j.row]) - j.need), 0) // size * size
        if due > j.sent:
            self._ports.send(j.p, j.d, (due - j.sent) * self._bytes[j.d], t)
            j.sent = due

    def _carry(self, j: _Journey, t: float, tokens: int) -> None:
        """The rest of the KV travels; both sides are told when it will have arrived."""
        size, p, d = self._block_size, j.p, j.d
        there = self._ports.send(p, d, -(-tokens // size) * size * self._bytes[d], t)
        self._times[2].append(there)
        if self._protocol.first == "decode":
            self._times[0].append(j.number)
            self._times[1].append(np.nan)
        self._sides[self._pool[d]].kv_arrived(self._number[d], j.d_slot, there, self._protocol.delivered, j.seen)
        self._sides[self._pool[p]].release_kept(self._number[p], j.p_slot, there)
        j.p_slot = -1
        if not self._protocol.returns:
            del self._there[j.number]

    def _give_up(self, j: _Journey, t: float) -> None:
        """Nothing is left to do for it: P may forget its KV, the client has its answer."""
        if j.p_slot >= 0:
            self._sides[self._pool[j.p]].release_kept(self._number[j.p], j.p_slot, t)
        self._there.pop(j.number, None)
        self._world.answered(j.number, t)

    def _left_prefill(self, j: _Journey, t: float) -> None:
        """P has refused it."""
        if j.d_slot >= 0:
            self._sides[self._pool[j.d]].drop_remote(self._number[j.d], j.d_slot, t)
        self._give_up(j, t)

    def _left_decode(self, number: int, g: int, k: int, t: float, slot: int, status: int) -> None:
        j = self._there.get(number)
        if status == RETURNED:
            assert j is not None, "a protocol that returns requests says so: HandOver.returns"
            self._again(j, t, *self._sides[g].delivered(k, slot))
        elif j is not None:
            self._give_up(j, t)
        else:
            self._world.answered(number, t)

    def _again(self, j: _Journey, t: float, done: int, last: float) -> None:
        """Prompt and what was delivered are the new prompt; routers choose anew, the old replicas where they have none."""
        self._returned += 1
        old, row = j.block, j.row
        lo, hi = int(old.span_off[row]), int(old.span_off[row + 1])
        spans: Any = (np.zeros(2, np.int64), (), (), ())
        if hi > lo:
            more = ([int(old.out_content[row])], [0], [done])
            parts = (
                [np.concatenate([a[lo:hi], b]) for a, b in zip(old.spans[1:], more, strict=True)]
                if done
                else [a[lo:hi] for a in old.spans[1:]]
            )
            spans = (np.array([0, len(parts[0])]), *parts)
        j.again += 1
        j.block = RequestBlock.of(
            [t],
            [int(old.prompt_tokens[row]) + done],
            [int(old.output_tokens[row]) - done],
            max_tokens=[int(old.max_tokens[row]) - done],
            priority=old.priority[row : row + 1],
            session=old.session[row : row + 1],
            lora=old.lora[row : row + 1],
            klass=old.klass[row : row + 1],
            out_content=[int(old.out_content[row]) + _NEW_CONTENT],
            spans=spans,
        )
        j.row, j.p_slot, j.d_slot, j.sent, j.seen, j.last = 0, -1, -1, 0, np.nan, last
        for view in (self._world.view, *self._views):
            view.moment = t
        p, d = self._choose(j.block, 0)
        if p >= 0:
            j.p, j.d, j.choice = p, d, self._choices - 1
        self._start(j, t)

    # -- results

    def ended(self, rows: Columns) -> int:
        """How many of the rows are the last of their request."""
        decode = self._decodes(rows["replica"])
        status = rows["status"]
        return int(np.count_nonzero(np.where(decode, status != RETURNED, status != FINISHED)))

    def _decodes(self, replica: Array) -> Array:
        found: Array = np.array(self._is_decode, bool)[np.array(self._pool)[replica]]
        return found

    def join(self, rows: Columns, n: int) -> Columns:
        """One row per request, ids 0…n−1: what P and D say of it, and the times between them (`sim.metrics.hand_over`)."""
        ids = rows["id"]
        decode = self._decodes(rows["replica"])
        order = np.lexsort((rows["arrival_s"], ids))
        p_rows, d_rows = (
            order[~decode[order]],
            order[decode[order]],
        )  # in order of time within a request: the last assignment stays
        out = {name: np.zeros(n, a.dtype) for name, a in rows.items()}
        nan = np.full(n, np.nan)
        out["id"] = np.arange(n, dtype=ids.dtype)
        for name in ("arrival_s", "taken_s", "first_scheduled_s"):
            values = nan.copy()
            np.fmin.at(values, ids, rows[name])
            out[name] = values
        firsts = order[::-1]
        out["prompt_tokens"][ids[firsts]] = rows["prompt_tokens"][firsts]
        earliest_p = p_rows[::-1]
        out["cached_tokens"][ids[earliest_p]] = rows["cached_tokens"][earliest_p]
        np.add.at(out["preemptions"], ids, rows["preemptions"])
        # tokens, and the first of them
        np.add.at(out["output_tokens"], ids[d_rows], rows["output_tokens"][d_rows])
        first_token = nan.copy()
        speaks = order if self._protocol.first_token == "prefill" else d_rows
        np.fmin.at(first_token, ids[speaks], rows["first_token_s"][speaks])
        out["first_token_s"] = first_token
        # where it ended, or is
        last_p, last_d = np.full(n, -1), np.full(n, -1)
        last_p[ids[p_rows]] = p_rows
        last_d[ids[d_rows]] = d_rows
        at_p = last_d < 0
        at_p[~at_p] = rows["status"][last_d[~at_p]] == RETURNED
        refused = (last_p >= 0) & (rows["status"][last_p] != FINISHED) & (rows["status"][last_p] != IN_FLIGHT)
        last = np.where(at_p | refused, last_p, last_d)
        for name in ("replica", "finish_s", "status"):
            out[name] = rows[name][last].copy()
        computed = at_p & (out["status"] == FINISHED)  # on its way from P to D, unless it ended there
        final = np.zeros(n, bool)
        final[self._ended_on_p + self._failed_on_p] = True
        out["status"][self._failed_on_p] = FAILED
        if self._protocol.first_token == "prefill":
            out["output_tokens"][computed] += 1
        between = computed & ~final
        out["status"][between] = IN_FLIGHT
        out["finish_s"][between] = np.nan
        out["prefill_replica"] = np.where(last_p >= 0, rows["replica"][last_p], -1).astype(np.int32)
        return out | self._stage_times(rows, n, p_rows, d_rows)

    def _stage_times(self, rows: Columns, n: int, p_rows: Array, d_rows: Array) -> Columns:
        """Of the latest try of each request; NaN where it did not happen."""
        ids = rows["id"]
        found = {name: np.full(n, np.nan) for name in ("prefill_end_s", "kv_allocated_s", "kv_arrived_s", "decode_start_s")}
        ended = p_rows[rows["status"][p_rows] == FINISHED]
        found["prefill_end_s"][ids[ended]] = rows["finish_s"][ended]
        found["decode_start_s"][ids[d_rows]] = rows["first_scheduled_s"][d_rows]
        number = np.array(self._times[0]).astype(np.int64)
        for name, times in zip(("kv_allocated_s", "kv_arrived_s"), self._times[1:], strict=True):
            values = np.array(times)
            known = ~np.isnan(values)
            found[name][number[known]] = values[known]
        # MindIE counts a request as scheduled when it has memory
        found["decode_start_s"] = np.maximum(found["decode_start_s"], found["kv_arrived_s"])
        return found

    def totals(self) -> dict[str, float]:
        """Figures for the summary: ``fleet_kv_…``."""
        span = max(g.totals()["last_s"] for g in self._groups)
        return self._ports.totals(span) | {"fleet_returned": float(self._returned), "fleet_no_decode": float(self._refused_by_d)}

    def notes(self) -> list[str]:
        """The same in sentences."""
        out = []
        if self._returned:
            out.append(f"{self._returned:,} requests lost their memory on a decode replica and were prefilled again")
        if self._refused_by_d:
            out.append(f"{self._refused_by_d:,} requests found no decode replica after their prefill and failed")
        return out
