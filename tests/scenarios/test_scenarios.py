"""Every built-in scenario runs, obeys the laws, and gives what it says it gives."""

from __future__ import annotations

import pytest

import sim
from sim.config import built_in
from sim.metrics.expect import unmet
from tests.scenarios.runs import result as run

NAMES = [name for name, _ in built_in()]


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_what_it_expects(name: str) -> None:
    scenario = sim.load(name)
    assert scenario.question
    result = run(name)
    assert unmet(result.summary, scenario.expect or {}) == []
    requests = result.summary["requests"]
    assert requests["injected"] == requests["finished"] + requests["rejected"] + requests["failed"] + requests["in_flight"]
    assert requests["finished"] > 0


def test_an_expectation_that_does_not_hold_is_named() -> None:
    scenario = sim.loads(sim.config.to_yaml(sim.load("quickstart")))
    wanted = scenario.model_copy(update={"expect": sim.load("quickstart").expect})
    summary = {"latency": {"ttft_s": {"p99": 3.0}, "tpot_s": {"p50": 0.0101}}}
    assert unmet(summary, wanted.expect) == ["latency.ttft_s.p99 is 3, expected at most 0.5"]
    assert "no such figure" in unmet({}, wanted.expect)[0]
