"""The laws of routers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sim import guard
from sim.config import settings
from sim.policy import answers
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts, Router
from sim.testing._base import refuses_unknown_settings, skip, subject
from sim.workload.table import RequestBlock


class Engines:
    """A snapshot (`sim.policy.router.Snapshot`) of replicas whose figures are made up; each request that is sent shows at once."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        from sim.ledger import LOOK

        self.n = n
        self.now = 0.0
        self.outstanding: NDArray[np.int64] = rng.integers(0, 20, n)
        self._rows = {name: rng.integers(0, 50, n).astype(float) for name in LOOK}
        self._rows["total_blocks"] = np.full(n, 1000.0)
        self._rows["seen_until"] = np.full(n, np.inf)

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, n]."""
        names = ("running", "waiting", "used_blocks", "total_blocks", "seen_until")
        return np.array([self._rows[name] for name in names])

    def look(self) -> dict[str, NDArray[np.float64]]:
        """f8[n] by name."""
        return self._rows

    def cached(self, block: Requests, row: int) -> NDArray[np.float64]:
        """f8[n]: nothing is."""
        return np.zeros(self.n)

    def running(self, replica: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nobody runs."""
        return np.zeros((0, 5), np.int64), np.zeros(0)

    def sent(self, replica: int, prompt: int) -> None:
        """A request goes to a replica."""
        self.outstanding[replica] += 1
        self._rows["waiting"][replica] += 1
        self._rows["waiting_blocks"][replica] += prompt // 16 + 1
        self._rows["waiting_tokens"][replica] += prompt


class RouterLaws:
    """What every router keeps. Say ``router``, and ``settings`` where it needs some; ``overrides`` of the scenario for whole runs.

    *On replicas that are made up*: `choose` answers with the number of a replica, or −1, whatever the load; the same seed gives the same
    answers; a single replica is the only choice; nothing that it is shown is changed (arrays are handed out read-only); a ``stateless`` router
    answers whole blocks with one number a row; an ``elastic`` one goes on, within their number, as replicas come and go; unknown settings are
    refused by name.

    *In a whole run* of ``scenario`` with ``requests`` requests: each request is accounted for, on a replica that exists; the same seed gives
    the same bytes. ``runs = False`` leaves these out, for routers that need a deployment of their own.
    """

    router: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, object]] = {}
    scenario: ClassVar[str] = "quickstart"
    overrides: ClassVar[Sequence[str]] = ()
    requests: ClassVar[int] = 200
    runs: ClassVar[bool] = True
    replicas: ClassVar[int] = 4

    def make(self, replicas: int, seed: int = 0) -> Router:
        """The router under test among so many replicas."""
        cls: Any = guard.guarded(subject("router", self.router, self), Router, everything=True)
        router: Router = cls(settings(cls.Params, self.settings, "router"), replicas, np.random.default_rng(seed))
        router.setup([ReplicaFacts(16, 1000.0, "vllm", slots=256)] * replicas)
        return router

    def block(self, rng: np.random.Generator, n: int = 60) -> RequestBlock:
        """Requests of a few sessions, some of which share the beginning of their prompts."""
        prompt = rng.integers(100, 2000, n)
        group, shared = rng.integers(0, 3, n), rng.integers(1, 90, n)
        ids = np.stack([group, 1000 + np.arange(n)], axis=1).ravel()
        length = np.stack([shared, prompt - shared], axis=1).ravel()
        spans = (2 * np.arange(n + 1), ids, np.zeros(2 * n, np.int64), length)
        arrival = np.cumsum(rng.exponential(0.05, n))
        return RequestBlock.of(arrival, prompt, rng.integers(1, 300, n), session=rng.integers(0, 9, n), spans=spans).validate()

    def _asked(self, replicas: int, seed: int = 0) -> list[int]:
        rng = np.random.default_rng(seed)
        router, seen, block = self.make(replicas, seed), Engines(replicas, rng), self.block(rng)
        if router.coordinates or router.whole:
            skip("it keeps a queue of its own, or chooses for two sides")
        polled = 0.0
        chosen = []
        for row in range(len(block)):
            seen.now = float(block.arrival_s[row])
            while router.interval is not None and polled <= seen.now:
                router.poll(seen)
                polled += router.interval
            chosen.append(int(router.choose(seen, block, row)))
            if chosen[-1] >= 0:
                seen.sent(chosen[-1], int(block.prompt_tokens[row]))
        return chosen

    def test_it_answers_with_a_replica_and_changes_nothing(self) -> None:
        """Numbers out of range and writing to what is shown raise `PluginError` out of the guard."""
        for seed in range(5):
            self._asked(self.replicas, seed)

    def test_the_same_seed_gives_the_same_answers(self) -> None:
        """Randomness comes from ``rng`` alone."""
        assert self._asked(self.replicas, 3) == self._asked(self.replicas, 3)

    def test_one_replica_is_the_only_choice(self) -> None:
        """−1 is allowed: a router may refuse."""
        assert set(self._asked(1)) <= {0, -1}

    def test_a_stateless_router_answers_blocks(self) -> None:
        """One number for each row, and the same for the same seed."""
        cls = subject("router", self.router, self)
        if not cls.stateless:
            skip("it looks at state")
        for n in (1, 2, 60):
            block = self.block(np.random.default_rng(n), n)
            found = self.make(self.replicas).route(block)
            assert len(found) == n, f"{len(found)} answers for a block of {n} requests"
            assert not answers.rows(self.make(self.replicas), found), answers.rows(self.make(self.replicas), found)
            np.testing.assert_array_equal(found, self.make(self.replicas).route(block))

    def test_an_elastic_router_goes_on_as_replicas_come_and_go(self) -> None:
        """After `members` it answers with places among those there are."""
        cls = subject("router", self.router, self)
        if not cls.elastic:
            skip("its replicas are fixed")
        rng = np.random.default_rng(5)
        router, block = self.make(self.replicas), self.block(rng)
        for row, numbers in enumerate(([0], [0, 1, 2], [2], [1, 2, 3], [0, 1, 2, 3])):
            router.members(numbers)
            seen = Engines(len(numbers), rng)
            seen.now = float(block.arrival_s[row])
            if router.interval is not None:
                router.poll(seen)
            for _ in range(8):
                assert -1 <= router.choose(seen, block, row) < len(numbers)

    def test_unknown_settings_are_refused(self) -> None:
        """By their name."""
        refuses_unknown_settings(subject("router", self.router, self))

    def _run(self) -> Any:
        import sim

        if not self.runs:
            skip("only on replicas that are made up")
        given = [f"router.{key}={value}" for key, value in self.settings.items()]
        base = [f"router={self.router}", f"traffic.synthetic.requests={self.requests}", f"deployment.replicas={self.replicas}"]
        return sim.run(sim.load(self.scenario, [*base, *given, *self.overrides]))

    def test_every_request_is_accounted_for(self) -> None:
        """In a whole run: finished, refused or failed, none in flight, each on a replica that exists or (−1) turned away before any."""
        result = self._run()
        assert len(result.requests) == self.requests
        assert (result.requests["status"] != "in flight").all() if result.requests["status"].dtype == object else True
        assert set(result.requests["replica"]) <= {-1, *range(self.replicas)}

    def test_a_run_gives_the_same_bytes_again(self) -> None:
        """In a whole run."""
        one, two = self._run().requests, self._run().requests
        for name in one.columns:
            assert one[name].equals(two[name]), f"column {name} differs between two runs with one seed"
