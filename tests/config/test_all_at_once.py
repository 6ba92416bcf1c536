"""One error names all that is wrong; odd paths are refused; a name is as good as a scenario; empty runs say why."""

import pytest

import sim
from sim.config import loads
from sim.errors import ConfigError

WRONG = """
model: llama-3.1-8b
traffic: {synthetic: {arrival: {process: poisson, rate: 1/s}, lengths: azure-2023-conv, requests: 0}}
deployment: {accelerator: h100-sxm, tp: 0, engine: vllm}
slo: {ttft: soon}
colour: red
"""


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        loads(WRONG)
    text = str(error.value)
    assert error.value.field == "colour"
    for said in (
        "colour: unknown setting",
        "also traffic.synthetic.requests",
        "also deployment.tp",
        "also slo.ttft: must be a time",
    ):
        assert said in text


def test_a_misspelt_key_explains_the_missing_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'accelerator'") as error:
        loads(WRONG.replace("accelerator", "acelerator"))
    assert "is required" not in str(error.value)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as error:
        loads(WRONG.replace("colour: red", f"colour: {'x' * 9000}"))
    assert len(str(error.value)) < 1000 and "of 9,002 characters" in str(error.value)


@pytest.mark.parametrize(
    "path", ["deployment..tp", ".deployment", "deployment.", "deployment[x]", "deployment]tp", "a[1]b", "[0]"]
)
def test_odd_paths_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="--set: must be path=value"):
        sim.load("quickstart", (f"{path}=1",))


def test_a_name_is_as_good_as_a_scenario() -> None:
    assert sim.memory("quickstart")[0][0] == sim.memory(sim.load("quickstart"))[0][0]
    with pytest.raises(ConfigError, match="scenario: is no scenario"):
        sim.run(3)
    with pytest.raises(ConfigError, match="scenario: is no scenario"):
        sim.compare([None, 3])


@pytest.mark.parametrize(
    ("setting", "says"), [("until=1ns", "No request arrived before the run ended"), ("warmup=1000s", "within the warm-up")]
)
def test_a_run_in_which_nothing_counts_says_why(setting: str, says: str) -> None:
    result = sim.run(sim.load("quickstart", (setting, "traffic.synthetic.requests=50")))
    assert any(says in w for w in result.warnings), result.warnings
