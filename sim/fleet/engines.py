"""The end of the road: the engines of all pools, brought up lazily to the next outside event by compiled calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from sim.engine.order import stretch
from sim.errors import NotModelledError
from sim.fleet.caches import shift_of, unseen
from sim.fleet.clock import Clock
from sim.fleet.kept import Kept
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.fleet.view import View
from sim.jit import in_python
from sim.ledger import FIRST_TOKEN, Values
from sim.policy.router import ReplicaFacts

if TYPE_CHECKING:
    from sim.engine.group import EngineGroup
    from sim.engine.seam import Columns as BlockColumns
    from sim.engine.seam import Spans
    from sim.engine.state import EngineState
    from sim.engine.withdraw import Exits
    from sim.fleet.ahead import Choice
    from sim.fleet.hand_over_flow import Flow
    from sim.workload.table import RequestBlock

Columns = dict[str, Values]


class Engines(Station):
    """``groups``: an `EngineGroup` per pool; replicas are numbered through all of them."""

    def __init__(self, clock: Clock, groups: Sequence[EngineGroup], facts: Sequence[ReplicaFacts] | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.groups = list(groups)
        self.first: list[int] = np.cumsum([0, *(g.n for g in groups)]).tolist()
        """The first replica of each pool."""
        self.views: list[View] = []
        self.view = self.part(self.groups, facts)
        self.pool_of = [g for g, group in enumerate(groups) for _ in range(group.n)]
        self.number_of = [k for group in groups for k in range(group.n)]
        self.watched = False
        """Whether anybody waits for an outcome."""
        self.first_tokens = False
        """Whether first tokens are among the outcomes."""
        self.counts: Callable[[Columns], int] = lambda rows: len(rows["id"])
        """How many of the rows end their request."""
        self.taken = [0] * len(self.groups)
        """Requests that went to each pool, one by one."""
        self._starts = [0] * len(self.pool_of)
        self._shifts = np.zeros(len(self.pool_of), np.int64)
        self.first_row: list[int] = np.cumsum([0, *(g.n * g.ranks for g in groups)]).tolist()
        """The first row of results of each pool: they are by rank."""
        self._there: dict[int, Request] = {}
        self._came: dict[int, float] = {}  # requests that were kept before the engines: when they left their clients
        self.kept = Kept()
        self._block: tuple[RequestBlock, BlockColumns, Spans] | None = None
        self._exits: dict[int, Exits] = {}
        self.dead: set[int] = set()
        """Replicas at which nobody listens."""
        self.died: Callable[[int, float], None] = lambda replica, now: None
        """Told when a process has died, before its requests have their outcomes (`tell`)."""
        self.notices_after: list[float] = [0.0] * len(self.groups)
        """Of each pool: seconds between two looks at whether a client is still there."""

    def part(self, groups: Sequence[EngineGroup], facts: Sequence[ReplicaFacts] | None) -> View:
        """A view of some of the pools."""
        view = View(list(groups), self.clock, facts)
        numbers = [first + k for g, first in zip(self.groups, self.first, strict=False) if g in groups for k in range(g.n)]
        view.as_seen = lambda replica, block, row: self.as_seen(numbers[replica], cast("RequestBlock", block), row)
        self.views.append(view)
        return view

    @property
    def looks(self) -> int:
        """Times that somebody brought engines up to now to look at them."""
        return sum(view.looks for view in self.views)

    @property
    def by_blocks(self) -> bool:
        """Inboxes take future arrivals."""
        return True

    @property
    def ahead(self) -> bool:
        """One pool that one kernel runs, and nobody waits."""
        from sim.fleet.ahead import compiled

        return len(self.groups) == 1 and not self.watched and compiled(self.groups[0])

    @property
    def at_rest(self) -> bool:
        """Whether nothing happens here any more."""
        return all(group.next_event() == inf for group in self.groups)

    def leaves(self) -> Mapping[str, object]:
        """What tiers behind the caches did."""
        found = [use for group in self.groups if (use := group.tiers()) is not None]
        return {"kv_tiers": found} if found else {}

    # -- caches

    def restarted(self, replica: int) -> None:
        """A new process with an empty cache has taken the replica's place."""
        self._starts[replica] += 1
        self._shifts[replica] = shift_of(self._starts[replica])
        self.dead.discard(replica)

    def crash(self, replica: int, fresh: Sequence[EngineState]) -> int:
        """The process dies, now; ``fresh``: the states of the next, one of each rank. Returns the requests lost, whose outcomes `tell` passes on."""
        from sim.engine.crash import crash

        pool = self.pool_of[replica]
        self.dead.add(replica)
        lost = crash(self.groups[pool], self.number_of[replica], fresh, self.clock.now)
        self.died(replica, self.clock.now)
        return lost

    def as_seen(self, replica: int, block: RequestBlock, row: int) -> tuple[RequestBlock, int]:
        """The request as (block, row) with texts that are new to a replica that was restarted."""
        start = self._starts[replica]
        return unseen(block, row, start) if start else (block, row)

    # -- requests

    def took(self, request: Request) -> None:
        """A request goes to the engines now: who was kept on the way has his own time of arrival in the end."""
        if self.clock.now != request.arrival:
            self._came[request.number] = request.arrival

    def submit(self, request: Request, replica: int) -> None:
        """To its inbox. Engines take requests as of now."""
        block, row, number = request.block, request.row, request.number
        if self._starts[replica]:
            block, row = self.as_seen(replica, block, row)
        if self._block is None or block is not self._block[0]:
            self._block = block, block.columns, block.spans
        _, columns, spans = self._block
        if self.clock.now != request.arrival:
            self._came[number] = request.arrival
            one = slice(row, row + 1)
            _, prompt, output, limit, priority, lora, content = columns
            columns = (np.array([self.clock.now]), prompt[one], output[one], limit[one], priority[one], lora[one], content[one])
            spans = (spans[0][row : row + 2], *spans[1:])
            row = 0
        if request.watch:
            self._there[number] = request
            request.replica, request.came = replica, self.clock.now
        pool = self.pool_of[replica]
        self.taken[pool] += 1
        self.groups[pool].submit(self.number_of[replica], columns, spans, row, row + 1, number - row, request.watch)

    def withdraw(self, request: Request) -> bool:
        """Its engine hears of it when it looks, and does what it does (`sim.engine.withdraw`)."""
        now = self.clock.now
        period = self.notices_after[self.pool_of[request.replica]]
        if period == 0.0:
            self._let_go(request)
        else:
            looks = np.floor((now - request.came) / period) + 1.0
            self.clock.call(request.came + float(looks) * period, lambda: self._let_go(request))
        return False

    def _let_go(self, request: Request) -> None:
        if request.number not in self._there:
            return
        exits = self._exits_of(self.pool_of[request.replica])
        if exits.withdraw(self.number_of[request.replica], request.number, self.clock.now) == 1:
            self.tell()  # it has left

    def _exits_of(self, pool: int) -> Exits:
        if pool not in self._exits:
            from sim.engine.withdraw import Exits

            self._exits[pool] = Exits(self.groups[pool])
        return self._exits[pool]

    def row_of(self, replica: int) -> int:
        """The (first) row of results of a replica; −1 of none."""
        if replica < 0:
            return -1
        pool = self.pool_of[replica]
        return int(self.first_row[pool] + self.number_of[replica] * self.groups[pool].ranks)

    def submit_block(self, block: RequestBlock, replica_of: NDArray[np.int32], first: int) -> None:
        """To the inboxes, which keep future arrivals."""
        columns, spans = block.columns, block.spans
        for group, low in zip(self.groups, self.first, strict=False):
            if len(self.groups) == 1:
                mine = replica_of if group.n > 1 else np.zeros(1, np.int32)
            else:
                inside = (replica_of >= low) & (replica_of < low + group.n)
                mine = np.where(inside, replica_of - low, -1).astype(np.int32)
                if len(mine) == 1 and mine[0] < 0:
                    continue
            group.submit_routed(mine, columns, spans, first)

    def submit_ahead(self, block: RequestBlock, lo: int, hi: int, first: int, choice: Choice) -> None:
        """Advance, choose, submit in one compiled call."""
        from sim.fleet.ahead import send_ahead

        send_ahead(self.groups[0], block, lo, hi, first, float(self.clock.now), choice, self._shifts)

    # -- running

    def advance(self, until: float) -> bool:
        """Bring every engine up to ``until``; True if there was an outcome that somebody waits for, no engine being past its time."""
        groups = self.groups
        if len(groups) == 1:
            return groups[0].advance(until, self.watched)
        if not self.watched:
            for group in groups:
                group.advance(until, False)
            return False
        last = -inf
        while True:
            keys = [group.next_event() for group in groups]
            first, target, _ = in_python(stretch)(keys, until, last)
            if first > until or first == inf:
                return False
            last = first
            if any([group.advance(target, True) for group, key in zip(groups, keys, strict=True) if key <= first]):  # noqa: C419 - all of them
                return True
            if first >= until:
                return False

    def tell(self) -> None:
        """Pass on what has happened."""
        for group, first in zip(self.groups, self.first, strict=False):
            if self.first_tokens:
                for t, (number, k, kind, _, status) in zip(*group.take_outcomes(), strict=True):
                    if kind == FIRST_TOKEN:
                        self.before.first_token(self._there[number], t)
                    else:
                        request = self._there.pop(number)
                        request.status = status
                        self.before.ended(request, t, first + k)
                continue
            ids, times, replicas = group.take_watched()
            for number, t, k in zip(ids.tolist(), times.tolist(), replicas.tolist(), strict=True):
                self.before.ended(self._there.pop(number), t, first + k)

    def after_looks(self) -> None:
        """Somebody has looked at engines, and so brought them up to now."""

    def catch_up(self, until: float) -> None:
        """The run ends at ``until``: also for those that were left behind, as nothing anyone waits for happens there before."""
        if until < inf:
            for group in self.groups:
                group._keys.fill(-inf)
                group.advance(until, False)

    def notes(self) -> list[str]:
        """Engines that are told of nothing."""
        deaf = any(not exits.known for exits in self._exits.values())
        return ["an engine has no `withdraw`: it computes requests to the end whose clients have gone"] if deaf else []

    # -- results

    def collect(self) -> int:
        """Take the finished rows out of the recorders, so that memory follows requests in flight; returns how many requests they end."""
        ended = 0
        for group, first in zip(self.groups, self.first_row, strict=False):
            rows = group.drain()
            if len(rows["id"]):
                rows["replica"] += np.int32(first)
                self._restore(rows)
                ended += self.counts(rows)
                self.kept.add(rows)
        return ended

    def _restore(self, rows: Columns) -> None:
        if self._came:
            for i in np.flatnonzero(np.isin(rows["id"], list(self._came))).tolist():
                # a request that was handed over has several rows; its first arrival counts
                rows["arrival_s"][i] = self._came.pop(int(rows["id"][i]), rows["arrival_s"][i])

    def in_flight(self) -> list[Columns]:
        """Rows of the requests that have come here and have not left."""
        parts = []
        for group, first in zip(self.groups, self.first_row, strict=False):
            rows = group.in_flight()
            rows["replica"] += np.int32(first)
            self._restore(rows)
            parts.append(rows)
        return parts


class JoinedEngines(Engines):
    """The same where each outcome, of whatever kind, counts to the very moment over all pools: engines of one scheduler, watched always.

    ``happened(time, number, pool, replica of the pool, kind, slot, value)`` is told of each.
    """

    happened: Callable[..., None]
    stirred = False
    """An engine was told something by which a request may have ended, since `tell` began."""

    def __init__(self, clock: Clock, groups: Sequence[EngineGroup], facts: Sequence[ReplicaFacts] | None = None) -> None:
        super().__init__(clock, groups, facts)
        from sim.engine.group import state_type
        from sim.engine.joined import Joined
        from sim.fleet.ranks import RankedGroup

        if len({state_type(group) for group in groups}) > 1:
            why = "prefill and decode pools of models whose KV is kept in different ways (window layers or states, plain attention) are not run in one world"
            raise NotModelledError("pools.model", "several", why, "models of one kind")
        self.watched = True
        self.joined = Joined([getattr(group, "inner", group) for group in self.groups])  # of engines with ranks: the ranks
        self._ranked = [group for group in self.groups if isinstance(group, RankedGroup)]
        for group in self._ranked:
            group.at_once = True
        self.flow: Flow | None = None
        """Compiled code that does whatever follows from outcomes (`sim.fleet.hand_over_ahead.Flow`)."""

    @property
    def by_blocks(self) -> bool:
        """Each request counts."""
        return False

    @property
    def ahead(self) -> bool:
        """All pools are run by compiled code."""
        from sim.fleet.ahead import compiled

        return all(compiled(group) for group in self.groups)

    def start(self) -> None:
        """Balancers between ranks look at them."""
        for group in self._ranked:
            group.looks_with(self.clock, self.after_looks)

    def advance(self, until: float) -> bool:
        """As of any engines."""
        if self.flow is not None:
            self.flow.advance(until)
            return False
        return bool(self.joined.advance(until))

    def tell(self) -> None:
        """All outcomes in order of time."""
        looks, self.stirred = self.looks, False
        while True:
            times, rows = self.joined.outcomes()
            for t, row in zip(times, rows, strict=True):
                self.happened(t, *row)
            # a router that looked at the engines brought them to now, perhaps to more outcomes
            if (self.looks == looks and not self.stirred) or not self.joined.more_outcomes():
                return

    def settle(self, replica: int) -> None:
        """What a replica does up to now is done and passed on."""
        self.groups[self.pool_of[replica]].catch_up(self.clock.now, self.number_of[replica])
        self.after_looks()

    def crash(self, replica: int, fresh: Sequence[EngineState]) -> int:
        """As of any engines, after what the replica has done until now."""
        self.settle(replica)
        lost = super().crash(replica, fresh)
        self.joined.renewed(self.row_of(replica), fresh)
        self.joined.more_outcomes()  # what was lost is there for `tell`
        return lost

    def exits(self, replica: int) -> Exits:
        """The ways out of the pool of a replica."""
        return self._exits_of(self.pool_of[replica])

    def after_looks(self) -> None:
        """There may be outcomes."""
        if self.joined.more_outcomes():
            self.tell()

    def catch_up(self, until: float) -> None:
        """As of any engines."""
        self.joined.catch_up(until)
