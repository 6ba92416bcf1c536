"""Live migration of running requests between replicas, in stages, while they decode on.

Stage k copies the KV blocks filled since the stage before, all but the last one, and decoding continues at the source. When at most
``last_stage_max_blocks`` are left the request stops, the rest is copied, and it decodes on at the destination: the down-time is that copy, the
commit, and the waits for a step to end on both sides. The destination holds the blocks of each stage before it is copied; without memory there,
when the request finishes or is preempted meanwhile, or when ``max_stages`` were not enough, the migration is given up and the request stays.
*Source*: AlibabaPAI/llumnix 24220fb8 ``llumnix/backends/migration_coordinator.py``; that too many stages end in giving up is assumed.

Transfers of different pairs do not slow each other; decoding is not slowed by copying. Only running requests move; a waiting one stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import simpy

from sim.fleet.clock import Clock
from sim.fleet.station import Station
from sim.fleet.view import View
from sim.ledger import COLUMNS, request_row
from sim.policy.migration import MigrationParams
from sim.policy.router import Relocation

if TYPE_CHECKING:
    from sim.engine.rows import Passenger
    from sim.engine.seam import I8


class Migrator(Station):
    """Carries out the relocations that a router asks for. ``view``: of all engines. Raises `NotModelledError` where requests cannot move."""

    def __init__(self, clock: Clock, view: View, params: MigrationParams) -> None:
        super().__init__()
        self._env, self._view = clock, view
        self._p = params
        view.movable()
        self._busy = np.zeros(view.replicas, np.int64)
        self._under_way: set[int] = set()
        self._moves: Counter[int] = Counter()
        self._in_transit: dict[int, tuple[int, tuple[Passenger, I8]]] = {}
        self.outcomes: Counter[str] = Counter()
        self.down_times: list[float] = []
        self.copied_blocks = 0
        self.worse = 0
        self.relieved = 0

    def move(self, moves: Sequence[Relocation]) -> None:
        """Begin what can begin: both sides below their concurrency, the request not under way yet."""
        for move in moves:
            if move.source == move.destination or move.request in self._under_way:
                continue
            if max(self._busy[move.source], self._busy[move.destination]) >= self._p.concurrency:
                continue
            self._busy[move.source] += 1
            self._busy[move.destination] += 1
            self._under_way.add(move.request)
            self._env.process(self._migrate(move))

    def _migrate(self, move: Relocation) -> Generator[simpy.Event, object, None]:
        outcome = yield from self._stages(move)
        self.outcomes[outcome] += 1
        self._busy[move.source] -= 1
        self._busy[move.destination] -= 1
        self._under_way.discard(move.request)

    def in_use(self, replica: int) -> bool:
        """Whether a request is about to come or go there."""
        return bool(self._busy[replica])

    def _find(self, move: Relocation) -> tuple[int, int] | None:
        """(slot, tokens with KV) of the request if it decodes at the source: after a preemption its KV has to be computed again first."""
        rows, _ = self._view.running(move.source)
        at = np.flatnonzero(rows[:, 0] == move.request)
        if at.size == 0:
            return None
        _, slot, tokens, delivered, prompt = rows[at[0]].tolist()
        if delivered == 0 or tokens < prompt + delivered - 1:
            return None
        return slot, tokens

    def _stages(self, move: Relocation) -> Generator[simpy.Event, object, str]:
        view, p = self._view, self._p
        target, there = view.inside(move.destination)
        size = view.facts[move.destination].block_size
        held = 0
        for stage in range(1, p.max_stages + 1):
            found = self._find(move)
            if found is None:
                return self._abort(move, held, "gone" if stage > 1 else "not_running")
            blocks = -(-found[1] // size) - held
            last = blocks <= p.last_stage_max_blocks
            if last:
                return (yield from self._last_stage(move, held))
            blocks -= 1
            view.sync(move.destination)
            if not target.hold(there, blocks, 1):
                return self._abort(move, held, "no_memory")
            held += blocks
            yield from self._copy(move, blocks)
        return self._abort(move, held, "too_many_stages")

    def _copy(self, move: Relocation, blocks: int) -> Generator[simpy.Event, object, None]:
        facts = self._view.facts[move.source]
        self.copied_blocks += blocks
        size = blocks * facts.block_size * facts.kv_bytes_per_token
        yield self._env.timeout(self._p.overhead + size / self._p.bandwidth)

    def _last_stage(self, move: Relocation, held: int) -> Generator[simpy.Event, object, str]:
        view = self._view
        source, here = view.inside(move.source)
        target, there = view.inside(move.destination)
        yield from self._step_end(move.source)
        found = self._find(move)
        if found is None:
            return self._abort(move, held, "gone")
        slot, tokens = found
        need = max(-(-(tokens + 1) // view.facts[move.destination].block_size) - held, 0)
        view.sync(move.destination)
        if not target.hold(there, need, 1):
            return self._abort(move, held, "no_memory")
        held += need
        stopped = self._env.now
        free = view.free_blocks(move.source), view.free_blocks(move.destination)
        blocked = view.look()["waiting"][move.source] > 0
        passenger = source.take_out(here, slot, stopped)
        self._in_transit[move.request] = (move.source, passenger)
        yield from self._copy(move, need)
        yield self._env.timeout(self._p.commit)
        while True:
            yield from self._step_end(move.destination)
            if target.put_in(there, passenger, held, self._env.now):
                break
            yield self._env.timeout(self._p.commit or 1e-3)
        del self._in_transit[move.request]
        self.down_times.append(self._env.now - stopped)
        self._moves[move.request] += 1
        self.worse += free[1] < free[0]
        self.relieved += bool(blocked)
        return "moved"

    def _step_end(self, replica: int) -> Generator[simpy.Event, object, None]:
        """Wait until no step is under way."""
        view = self._view
        inside, k = view.inside(replica)
        while True:
            view.sync(replica)
            end = inside.boundary(k)
            now = self._env.now
            if end is None:
                return
            delay = max(end - now, 0.0)
            while delay > 0.0 and now + delay > end:  # come too early rather than after the next step has begun
                delay = float(np.nextafter(delay, 0.0))
            yield self._env.timeout(delay if delay > 0.0 else float(np.nextafter(now, np.inf)) - now)

    def _abort(self, move: Relocation, held: int, why: str) -> str:
        if held:
            view = self._view
            target, there = view.inside(move.destination)
            view.sync(move.destination)
            target.unhold(there, held, self._env.now)
        return why

    # -- results

    def rows(self) -> Iterable[Mapping[str, float]]:
        """Requests that are on neither side when the run ends."""
        for source, (request, _) in self._in_transit.values():
            yield request_row(replica=source, **{c.name: getattr(request, c.slot) for c in COLUMNS if c.slot})

    def totals(self) -> dict[str, float]:
        """Figures for the summary: ``fleet_migrations`` … in requests, seconds and blocks."""
        down = np.array(self.down_times or [0.0])
        return {
            "fleet_migrations": float(self.outcomes["moved"]),
            "fleet_migrations_aborted": float(sum(self.outcomes.values()) - self.outcomes["moved"]),
            "fleet_migrations_to_fuller": float(self.worse),
            "fleet_migrations_relieving": float(self.relieved),
            "fleet_requests_moved_again": float(sum(n > 1 for n in self._moves.values())),
            "fleet_migration_downtime_mean_s": float(down.mean()),
            "fleet_migration_downtime_max_s": float(down.max()),
            "fleet_migration_blocks": float(self.copied_blocks),
        }

    def notes(self) -> list[str]:
        """What migration did, in sentences for the report."""
        moved = self.outcomes["moved"]
        if not self.outcomes:
            return ["migration is on, and nothing had to move"]
        again = sum(n > 1 for n in self._moves.values())
        given_up = {k: n for k, n in self.outcomes.items() if k != "moved"}
        down = np.array(self.down_times or [0.0])
        text = (
            f"migration moved {moved:,} running requests, {again:,} of them more than once; down-time {1e3 * down.mean():.1f} ms on average, "
            f"{1e3 * down.max():.1f} ms at most; {self.copied_blocks:,} KV blocks copied"
        )
        out = [text]
        if given_up:
            words = ", ".join(f"{k.replace('_', ' ')} {n:,}" for k, n in sorted(given_up.items()))
            out.append(f"migrations given up: {words}")
        if self.relieved:
            out.append(
                f"{self.relieved:,} of {moved:,} migrations left a replica in whose queue requests waited: "
                "free KV memory that was scattered over replicas was brought together"
            )
        if moved and self.worse > 0.3 * moved:
            out.append(
                f"{self.worse:,} of {moved:,} migrations went to a replica with fewer free KV blocks than the one they left: "
                "the threshold lets requests move without gain, and each move costs its down-time"
            )
        return out
