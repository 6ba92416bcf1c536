"""A resolved scenario has every default in it, loads back to itself, and its schema knows everything that is registered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import sim
import sim.config as config
from sim import registry
from sim.config.text import dump, parse
from sim.errors import ConfigError, NotModelledError, UnknownNameError
from sim.study.schemas import schema
from tests.config.conftest import POOLS, TEXT

EXTRAS = (
    "traffic.closed_loop={concurrency: 4, think_time: 2s}",
    "traffic.synthetic.sessions={turns: [1, 3]}",
    "traffic.synthetic.prefixes={shared_tokens: 9}",
    "expect={ttft_s.p99: {max: 1}, 'no': {value: 2, tolerance: 0.1}}",
    "question='1:30, yes, 1e6 – ¿?'",
    "until=1h",
)


@given(st.text(alphabet="0123456789.eE+-_xob:~ynul'#", min_size=1, max_size=8))
def test_text_stays_text(value):
    assert parse(dump({"question": value, value: [value]}), "x") == {"question": value, value: [value]}


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
    ("engine", "card", "prefill", "decode"),
    [
        ("mindie", "ascend-910b3", {"inferMode": "dmi", "role": "P"}, {"inferMode": "dmi", "role": "D"}),
        (
            "sglang",
            "h100-sxm",
            {"disaggregation_mode": "prefill"},
            {"disaggregation_mode": "decode", "disable_radix_cache": True},
        ),
        ("vllm", "h100-sxm", {"kv_role": "kv_producer"}, {"kv_role": "kv_consumer"}),
        ("{name: vllm, version: '0.5.0'}", "h100-sxm", {}, {}),
        ("vllm-ascend", "ascend-910b3", {"kv_role": "kv_producer"}, {"kv_role": "kv_consumer"}),
    ],
)
def test_pools_with_roles_resolve_to_what_they_run_with(scenario, engine, card, prefill, decode):
    """Also where the role makes other defaults than the engine has, which a saved scenario would contradict."""
    one = f"accelerator: {card}, engine: {engine}"
    pools = f"pools=[{{name: p, role: prefill, {one}}}, {{name: d, role: decode, {one}}}]"
    s = scenario(pools, text=TEXT.split("deployment")[0])
    resolved = config.resolve(s)

    for pool, says in zip(resolved.pools, (prefill, decode), strict=True):
        written = pool.engine.settings
        assert (written | (written.get("kv_transfer_config") or {})).items() >= says.items()
    assert config.resolve(resolved) == resolved == config.loads(config.to_yaml(s))
    if prefill:
        result, again = sim.run(s), sim.run(resolved)
        assert again.summary == result.summary and again.scenario == result.scenario
    else:
        with pytest.raises(NotModelledError, match="not modelled"):
            sim.run(resolved)


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


@pytest.mark.parametrize("kind", ["scenario", "accelerator", "link", "engine-profile", "servers", "summary"])
def test_schemas_are_schemas(kind):
    Draft202012Validator.check_schema(schema(kind))


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


def test_a_default_without_end_can_be_written_and_read_again(scenario):
    s = scenario("router={name: ray_serve, prefix_aware: true}")
    assert "imbalanced_threshold: .inf" in config.to_yaml(s)
    for text in (config.to_yaml(s), TEXT + "router: {name: ray_serve, prefix_aware: true, imbalanced_threshold: .inf}\n"):
        assert config.resolve(config.loads(text, ["deployment.replicas=2"])) is not None
