"""A resolved scenario has every default in it, loads back to itself, and its schema knows everything that is registered."""

import json

import pytest

import sim.config as config
from sim import registry
from sim.errors import ConfigError, UnknownNameError
from tests.config.conftest import POOLS, TEXT

EXTRAS = (
    "traffic.closed_loop={concurrency: 4, think_time: 2s}",
    "traffic.synthetic.sessions={turns: [1, 3]}",
    "traffic.synthetic.prefixes={shared_tokens: 9}",
    "expect={ttft_s.p99: {max: 1}, 'no': {value: 2, tolerance: 0.1}}",
    "question='1:30, yes, 1e6 – ¿?'",
    "until=1h",
)


@pytest.mark.parametrize("text", [TEXT, POOLS])
@pytest.mark.parametrize("overrides", [(), EXTRAS, ("name='1e3'", "model='0x10'", "slo={ttft: 1ms}")])
def test_yaml_round_trip(scenario, text, overrides):
    s = config.resolve(scenario(*overrides, text=text))
    written = config.to_yaml(s)

    assert config.loads(written) == s == config.resolve(s)
    assert config.to_yaml(config.loads(written)) == written


def test_defaults_are_written(scenario):
    written = config.to_yaml(scenario("router=power_of_two"))

    for line in ("seed: 0", "max_batch_size: 8", "choices: 2", "rate: 8.0", "max_points: 2000"):
        assert line in written


@pytest.mark.parametrize("engine", registry.names("engine"))
def test_every_engine_resolves_with_its_defaults(scenario, engine):
    s = config.resolve(scenario(f"deployment.engine={engine}"))

    assert config.resolve(s) == s == config.loads(config.to_yaml(s))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("deployment.engine=stattic", "deployment.engine.name.*did you mean 'static'"),
        ("router=rnd", "router.name.*round_robin"),
        ("traffic.synthetic.arrival.process=poison", "did you mean 'poisson'"),
        ("traffic.synthetic.lengths.kind=fixd", "did you mean 'fixed'"),
        ("deployment.engine.max_batch_sizes=3", "deployment.engine.max_batch_sizes.*did you mean 'max_batch_size'"),
        ("deployment.engine.max_batch_size=0", "deployment.engine.max_batch_size"),
        ("traffic.synthetic.prefixes={groups: 2}", "traffic.synthetic.prefixes.shared_tokens"),
        ("traffic.synthetic.arrival.rate=fast", "traffic.synthetic.arrival.rate"),
    ],
)
def test_settings_of_registered_classes(scenario, override, says):
    with pytest.raises(ConfigError, match=says):
        config.resolve(scenario(override))


def test_traces_resolve_with_the_settings_of_their_format(tmp_path, scenario):
    (tmp_path / "t.csv").touch()
    s = config.loads(TEXT, ["traffic={trace: {format: csv, path: t.csv, window: [null, 10s]}}"], folder=tmp_path)
    resolved = config.resolve(s)

    assert resolved.traffic.trace.settings["block_tokens"] == 512
    assert config.loads(config.to_yaml(s)) == resolved
    with pytest.raises(UnknownNameError):
        config.resolve(scenario("traffic={trace: {format: cvs, path: t}}"))


def test_the_schema_describes_everything_registered():
    made = config.schema()
    text = json.dumps(made)

    for kind in ("engine", "router", "arrival", "length", "trace"):
        for name in registry.names(kind):
            assert f'"{name}"' in text
    for name in registry.names("engine"):
        for setting in registry.lookup("engine", name).Params.model_fields:
            assert f'"{setting}"' in text
    assert '"shared_tokens"' in text
    _check_refs(made, made)


def _check_refs(node, whole):
    """Every reference leads somewhere, every property says what it is."""
    if isinstance(node, dict):
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in whole["$defs"]
        for value in node.values():
            _check_refs(value, whole)
    elif isinstance(node, list):
        for value in node:
            _check_refs(value, whole)
