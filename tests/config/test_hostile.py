"""Whatever is written in a scenario, the answer is a scenario or one error of ours."""

import contextlib

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import sim
import sim.config as config
from sim.config.text import dump, parse
from sim.errors import ConfigError, DataError, ServesimError
from sim.profile_files import parse_mapping
from sim.workload.arrivals.mmpp import MmppParams
from tests.config.conftest import POOLS, TEXT

QUIET = settings(max_examples=150, suppress_health_check=list(HealthCheck))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=8
)
WORDS = st.sampled_from(
    [
        "model",
        "traffic",
        "synthetic",
        "trace",
        "deployment",
        "pools",
        "engine",
        "name",
        "tp",
        "slo",
        "ttft",
        "[0]",
        "[9]",
        "0",
        "x",
        "arrival",
        "lengths",
        "path",
        "settings",
        "window",
        "router",
        "expect",
        "record",
        "until",
        "kind",
        "process",
        "rate",
    ]
)


def survives(text, overrides=()):
    try:
        s = config.loads(text, overrides)
        config.loads(config.to_yaml(s))
    except ServesimError as error:
        assert str(error)


@QUIET
@given(st.text(max_size=200))
@example("!!python/object:os.system x")
@example("a: !!timestamp 2024-99-99")
@example("a: 2024-99-99")
@example("a: !!int x")
@example("a: 1:99:99")
@example("<<: 3")
@example("? &a [*a]\n: 1")
@example("- &a *a")
@example("a: 0x\nb: 0b2")
@example("--- 1\n--- 2")
@example("%YAML 9.9\n---\n1")
@example("a: " + "9" * 5000)
def test_any_text(text):
    survives(text)


@QUIET
@given(st.binary(max_size=80))
def test_any_bytes(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "s.yaml"
    file.write_bytes(data)
    with contextlib.suppress(ServesimError):
        config.load(file)


@QUIET
@given(st.lists(WORDS, min_size=1, max_size=5), VALUES, st.sampled_from([TEXT, POOLS]))
def test_any_value_in_any_place(words, value, text):
    path = ".".join(words).replace(".[", "[")
    survives(text, [f"{path}={yaml.safe_dump(value, default_flow_style=True)}"])


@QUIET
@given(st.dictionaries(WORDS | st.integers(), VALUES, max_size=5))
def test_any_mapping(data):
    survives(yaml.safe_dump(data))


@QUIET
@given(st.text(max_size=40))
def test_any_override(text):
    survives(TEXT, [text])


@pytest.mark.parametrize("text", ["!!bool foo", "!!timestamp x", '!!int ""', "!!int _", "!!set [1]", "? !!set {a}"])
def test_a_value_that_its_tag_does_not_fit_is_an_error_of_ours(text):
    with pytest.raises(DataError):
        parse(text, "a.yaml")


@pytest.mark.parametrize("engine", ["{name: sglang, max_prefill_tokens: %d}", "{name: tgi, max_input_tokens: %d}"])
@pytest.mark.parametrize("much", [2**64, 10**30])
def test_whole_numbers_have_an_upper_bound(engine, much):
    with pytest.raises(ConfigError, match=r"deployment\.engine\.max_\w+_tokens: is too large"):
        sim.run(sim.load("quickstart", (f"deployment.engine={engine % much}",)))


@pytest.mark.parametrize("value", ["2026-11-30", "2026-11-30 12:00:00", "1:30", "12:30:45.5", "010", "08"])
def test_what_looks_like_another_number_than_yaml_makes_of_it_is_text(value):
    """A date, ninety, eight: nobody who writes a scenario means what YAML 1.1 makes of these."""
    assert parse(f"a: {value}", "x") == {"a": value}
    assert parse_mapping(f"a: {value}", "x", "test") == {"a": value}


@pytest.mark.parametrize(
    "value", [0, -7, 12, 1_000_000, 0.5, -2.25, 1e-7, 1e22, 5.0, float("inf"), -float("inf"), "1", "", "a: b", "010", True, None]
)
def test_numbers_and_texts_come_back_as_they_were_written_down(value):
    assert parse(dump({"a": value}), "x") == {"a": value}


@pytest.mark.parametrize("value", ["!!timestamp 2026-11-30", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]"])
def test_what_json_does_not_have_is_refused(value):
    for read in (lambda text: parse(text, "x"), lambda text: parse_mapping(text, "x", "test")):
        with pytest.raises(DataError, match="the tag"):
            read(f"a: {value}")


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((1, -1), r"^x\.states\[1\]\.rate: must be greater than or equal to 0 \(got -1\)$"),
        ((1,), r"^x\.states: must have at least 2 items"),
        ((-1,), r"^x\.states\[0\]\.rate: must .*; also x\.states: must have at least 2 items"),
        ((1,) * 65, r"^x\.states: must have at most 64 items"),
    ],
)
def test_a_list_is_too_short_only_where_too_little_was_given(rates, said):
    with pytest.raises(ConfigError, match=said):
        config.settings(MmppParams, {"states": [{"rate": rate, "lasts": "10s"} for rate in rates]}, "x")
