"""What a result says of itself."""

import pytest

import sim
from sim.fleet.build import plan
from sim.study.single import _context, _evidence


@pytest.mark.parametrize(
    ("settings", "shown"), [({"version": "0.32"}, "vllm 0.32"), ({}, "vllm 0.33.0"), ({"version": "0.33"}, "vllm 0.33.0")]
)
def test_the_release_that_was_asked_for_is_the_one_that_is_shown(settings, shown):
    overrides = [f"deployment.engine.{k}='{v}'" for k, v in settings.items()]
    plans = plan(sim.load("quickstart", overrides))

    assert _context(plans)["engine"] == shown
    assert _evidence(plans)[0]["what"] == f"scheduler: {shown}"
