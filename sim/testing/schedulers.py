"""The laws of schedulers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from sim.config import settings
from sim.ledger import FINISHED, IN_FLIGHT
from sim.metrics.laws import check_laws
from sim.metrics.record import RunRecord, collect
from sim.testing._base import refuses_unknown_settings, subject
from sim.workload.table import RequestBlock

_HISTOGRAM = (3800, 1e-5, 200.0)


class SchedulerLaws:
    """What every scheduler keeps, compiled or in plain Python. Say ``engine``; ``profile`` if it has no cost profile of its name.

    ``cases`` times, with settings drawn by `settings` and KV memory drawn by `kv_blocks`, for random traffic on ``replicas`` engines:

    * requests and tokens are conserved: each leaves finished, refused or failed, a finished one with all its tokens; no time runs backwards;
      the running sums agree with the rows (`sim.metrics.laws`);
    * memory in use never exceeds memory there is, and comes back at the end (``keeps_kv = True`` for engines that keep it as a cache);
    * the same input gives the same bytes; so do steps taken one by one and in one stroke, and time cut into pieces anywhere;
    * a lone request on an idle engine starts as it arrives (``waits = True`` for one that waits for others on purpose).
    """

    engine: ClassVar[str] = ""
    profile: ClassVar[str | None] = None
    cases: ClassVar[int] = 20
    replicas: ClassVar[int] = 2
    scenario: ClassVar[str] = "quickstart"
    overrides: ClassVar[Sequence[str]] = ()
    waits: ClassVar[bool] = False
    keeps_kv: ClassVar[bool] = False

    def settings(self, rng: np.random.Generator) -> Mapping[str, object]:
        """Settings of one case, as in ``deployment.engine``."""
        return {}

    def kv_blocks(self, rng: np.random.Generator) -> int:
        """KV blocks of one case; few enough that requests get in each other's way."""
        return int(rng.integers(260, 700))

    def requests(self, rng: np.random.Generator) -> RequestBlock:
        """Traffic of one case; prompt and output of a request together fit the memory of `kv_blocks`."""
        n = int(rng.integers(5, 50))
        arrival = np.cumsum(rng.exponential(rng.choice([0.001, 0.02, 0.2]), n)).round(3)
        prompt = rng.integers(1, int(rng.choice([20, 300, 1500])), n)
        output = rng.integers(1, int(rng.choice([3, 40, 200])), n)
        return RequestBlock.of(arrival, prompt, output).validate()

    def _case(self, case: int) -> tuple[Any, RequestBlock]:
        """A planned pool and its requests."""
        rng = np.random.default_rng([case, 11])
        base = self._plan()
        given = settings(base.scheduler.Params, self.settings(rng), "engine")
        params = base.scheduler.resolve(given, base.site)
        budget = replace(base.budget, kv_blocks=self.kv_blocks(rng)) if base.budget else None
        return replace(base, params=params, budget=budget, replicas=self.replicas), self.requests(rng)

    def _plan(self) -> Any:
        import sim
        from sim.fleet.build import plan

        subject("engine", self.engine, self)
        given = [f"deployment.engine={self.engine}", *([f"deployment.profile={self.profile}"] if self.profile else ())]
        return plan(sim.load(self.scenario, [*given, *self.overrides]))[0]

    def _run(self, p: Any, block: RequestBlock, one_stroke: bool = True, cuts: Sequence[float] = ()) -> tuple[Any, Any]:
        group = p.build(0, 1.0, _HISTOGRAM)
        group.set_front(0.0)
        group.set_multi_step(one_stroke)
        to = (np.arange(len(block)) % self.replicas).astype(np.int32)
        group.submit_routed(to if self.replicas > 1 else np.zeros(1, np.int32), block.columns, block.spans, 0)
        for time in (*cuts, np.inf):
            group.advance(time, False)
            used, total = group.gauges()[2:4]
            assert (used <= total).all(), f"KV memory in use exceeds what there is at {time} s: {used} of {total}"
            assert (used >= 0).all(), f"KV memory in use is negative at {time} s: {used}"
        done, left = group.drain(), group.in_flight()
        rows = {name: np.concatenate([done[name], left[name]]) for name in done}
        order = np.argsort(rows["id"], kind="stable")
        return group, {name: column[order] for name, column in rows.items()}

    def _same(self, case: int, one: Mapping[str, object], two: Mapping[str, object], what: str) -> None:
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=f"case {case}: {name} differs {what}")

    def test_requests_tokens_and_memory_are_conserved(self) -> None:
        """Nothing is lost, nothing happens twice, no time runs backwards, all memory comes back."""
        for case in range(self.cases):
            p, block = self._case(case)
            group, rows = self._run(p, block)
            check_laws(RunRecord(requests=rows, **collect([group])))
            assert len(rows["id"]) == len(block), f"case {case}: {len(block)} requests came, {len(rows['id'])} are known"
            stuck = rows["id"][rows["status"] == IN_FLIGHT]
            assert not len(stuck), f"case {case}: requests {stuck[:5].tolist()} never leave"
            done = rows["status"] == FINISHED
            np.testing.assert_array_equal(
                rows["output_tokens"][done],
                block.output_tokens[rows["id"][done]],
                err_msg=f"case {case}: tokens of finished requests",
            )
            gauges = group.gauges()
            assert not gauges[:2].any(), f"case {case}: {gauges[:2]} requests run or wait in idle engines"
            if not self.keeps_kv:
                assert not gauges[2].any(), f"case {case}: {gauges[2]} KV blocks are still in use"

    def test_the_same_input_gives_the_same_bytes(self) -> None:
        """No state outside the engine."""
        for case in range(min(self.cases, 5)):
            p, block = self._case(case)
            self._same(case, self._run(p, block)[1], self._run(p, block)[1], "between two runs")

    def test_steps_in_one_stroke_are_the_same_as_one_by_one(self) -> None:
        """`steady_steps` promises no more than is sure."""
        for case in range(self.cases):
            p, block = self._case(case)
            (a, one), (b, two) = self._run(p, block, True), self._run(p, block, False)
            self._same(case, one, two, "between one stroke and step by step")
            assert a.totals()["steps"] == b.totals()["steps"], (
                f"case {case}: {a.totals()} steps in strokes, {b.totals()} one by one"
            )

    def test_nothing_depends_on_how_time_is_cut(self) -> None:
        """An engine that is asked to stop anywhere goes on as if it had not been."""
        for case in range(self.cases):
            p, block = self._case(case)
            _, rows = self._run(p, block)
            end = np.nanmax(rows["finish_s"])
            cuts = np.sort(np.random.default_rng(case).random(30)) * end
            self._same(case, rows, self._run(p, block, cuts=cuts.tolist())[1], "when time is cut")

    def test_a_lone_request_starts_as_it_arrives(self) -> None:
        """Work conservation in its simplest form."""
        if self.waits:
            return
        for case in range(min(self.cases, 5)):
            p, _ = self._case(case)
            _, rows = self._run(p, RequestBlock.of([1.5], [50], [3]))
            assert rows["first_scheduled_s"][0] == 1.5, f"case {case}: it waits until {rows['first_scheduled_s'][0]} s"

    def test_unknown_settings_are_refused(self) -> None:
        """By their name."""
        refuses_unknown_settings(subject("engine", self.engine, self))
