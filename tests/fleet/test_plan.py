"""What a deployment cannot be is said before it runs."""

import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import plan


def planned(*overrides):
    return plan(sim.load("quickstart", overrides=overrides))


def test_imbalance_needs_experts_on_several_ranks():
    with pytest.raises(ConfigError, match="expert_imbalance.*ep > 1"):
        planned("deployment.expert_imbalance=1.3")
    with pytest.raises(ConfigError, match="expert_imbalance"):
        planned("model.name=mixtral-8x7b", "deployment.tp=2", "deployment.expert_imbalance=1.3")

    (there,) = planned("model.name=mixtral-8x7b", "deployment.tp=2", "deployment.ep=2", "deployment.expert_imbalance=1.3")

    assert there.layout.expert_imbalance == 1.3


@pytest.mark.parametrize("value", [0.9, -1, "inf", "a lot", 1000])
def test_imbalance_is_a_ratio(value):
    with pytest.raises(ConfigError, match=r"deployment\.expert_imbalance"):
        planned(f"deployment.expert_imbalance={value}")


def test_grammars_are_refused_where_their_time_is_not_known():
    with pytest.raises(NotModelledError, match="structured_output"):
        planned("traffic.structured_output=0.5", "deployment.engine={name: tgi}")

    for asked in ("sampling=greedy", "penalties=0.5", "logprobs=0.5", "n=2"):
        with pytest.raises(NotModelledError, match=asked.partition("=")[0]):
            planned(f"traffic.{asked}", "deployment.engine={name: tgi}")
    assert any("structured output" in note for note in planned("traffic.structured_output=0.5")[0].evidence.notes)
