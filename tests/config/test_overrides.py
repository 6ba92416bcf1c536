"""``--set path=value``."""

import pytest

from sim.config import load
from sim.errors import ConfigError, ServesimError
from sim.fleet.build import plan
from tests.config.conftest import POOLS


def test_values_are_yaml(scenario):
    s = scenario("deployment.tp=2", "slo.ttft=1s", "record.timeseries=false", "deployment.kv_blocks=null")

    assert (s.deployment.tp, s.slo.ttft, s.record.timeseries, s.deployment.kv_blocks) == (2, 1.0, False, None)


def test_the_last_one_wins(scenario):
    assert scenario("seed=1", "seed=2").seed == 2


def test_a_setting_of_a_bare_name(scenario):
    s = scenario("deployment.engine.max_batch_size=4", "router=power_of_two", "router.choices=3")

    assert (s.deployment.engine.name, s.deployment.engine.settings) == ("static", {"max_batch_size": 4})
    assert (s.router.name, s.router.settings) == ("power_of_two", {"choices": 3})


@pytest.mark.parametrize("path", ["pools[1].replicas", "pools.1.replicas"])
def test_a_place_in_a_list(scenario, path):
    assert scenario(f"{path}=7", text=POOLS).pools[1].replicas == 7


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("deploment.tp=2", "did you mean 'deployment'"),
        ("deployment.tensor=2", "deployment.tensor.*allowed: accelerator, tp"),
        ("slo.tttf=1s", "slo.tttf.*did you mean 'ttft'"),
        ("deployment.tp=abc", "deployment.tp.*'abc'"),
        ("deployment.tp=0", "deployment.tp.*greater than or equal to 1"),
        ("deployment.tp=true", "deployment.tp"),
        ("slo.ttft=5 parsec", "slo.ttft.*unknown unit 'parsec'"),
        ("slo.ttft=-1s", "slo.ttft"),
        ("slo.ttft=.nan", "slo.ttft"),
        ("slo=3", "slo: must be a mapping.*ttft"),
        ("expect.ttft_s.mni=1", "expect.ttft_s.mni.*did you mean 'min'"),
        ("deployment.tp.x=2", "deployment.tp"),
        ("pools[5].tp=1", "pools"),
        ("deployment.tp", "PATH=VALUE|path=value"),
        ("=3", "PATH=VALUE|path=value"),
        ("", "PATH=VALUE|path=value"),
        ("seed=[", "--set seed"),
        ("seed=-1", "seed"),
    ],
)
def test_errors_name_field_value_and_choices(scenario, override, says):
    with pytest.raises(ServesimError, match=says):
        scenario(override)


def test_a_place_beyond_the_list(scenario):
    with pytest.raises(ServesimError, match="0 to 1"):
        scenario("pools[2].tp=1", text=POOLS)


def test_a_version_that_yaml_reads_as_a_number_says_how_to_quote_it():
    with pytest.raises(ConfigError, match=r'engine.version: must be text.*version: "0.1"'):
        plan(load("quickstart", overrides=("deployment.engine.version=0.10",)))
