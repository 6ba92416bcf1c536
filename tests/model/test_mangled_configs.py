"""Configs with one key spoilt: an error that names the key, or no change at all; never another number in silence."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import ServesimError
from sim.model import ModelSpec, spec_from_config

LINES = Path(__file__).with_name("real_configs.jsonl").read_text(encoding="utf-8").splitlines()
ROWS: list[dict[str, Any]] = [json.loads(line) for line in LINES]
JUNK = st.sampled_from(
    ["", "abc", -1, -7, 0.5, float("nan"), float("inf"), 1e400, [], ["x"], [[]], {}, {"a": 1}, [None], "²", True, 10**30]
)

LISTS = ("architectures", "targets", "ignore", "modules_to_not_convert")  # any text is the name of a module that may not be there
QUANT_KEYS = [
    "quant_method",
    "quantization",
    "config_groups",
    "weights",
    "num_bits",
    "ignore",
    "quant_algo",
    "bits",
    "format",
    "targets",
    "type",
]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node[:3]):
            yield (*path, i)
            yield from places(value, (*path, i))


def with_value(config: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    out = copy.deepcopy(config)
    node: Any = out
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return out


def numbers(m: ModelSpec) -> Any:
    return (
        m.param_count(),
        m.weight_bytes(),
        m.kv_groups(),
        m.state_bytes(),
        m.weights,
        m.kv_wanted,
        m.max_position,
        m.linear_shapes(),
        m.window,
    )


WANTED = {row["name"]: numbers(spec_from_config(row["config"], "mine", beside=row["beside"])) for row in ROWS}


@settings(max_examples=150)
@given(data=st.data())
def test_a_spoilt_value_is_named_or_means_nothing(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(ROWS))
    path = data.draw(st.sampled_from(list(places(row["config"]))))
    junk = data.draw(JUNK)
    config = with_value(row["config"], path, junk)
    try:
        found = numbers(spec_from_config(config, "mine", beside=row["beside"]))
    except ServesimError as problem:
        named = [str(step) for step in path if isinstance(step, str)]
        assert any(name in str(problem) for name in named) or "layer_types" in str(problem), (path, str(problem))
        return
    harmless = isinstance(junk, bool) or junk in ([], {}, "") or any(k in LISTS for k in path)
    harmless |= path[-1] == "ffn_mult" or path[-2:] in (("vision_config", "model_type"), ("vision_config",))
    assert harmless or found == WANTED[row["name"]], (row["name"], path, junk)


@settings(max_examples=100)
@given(data=st.data())
def test_a_missing_key_gives_an_error_or_the_default_of_the_family(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(ROWS))
    paths = [p for p in places(row["config"]) if isinstance(p[-1], str)]
    path = data.draw(st.sampled_from(paths))
    config = copy.deepcopy(row["config"])
    node: Any = config
    for step in path[:-1]:
        node = node[step]
    del node[path[-1]]
    try:
        model = spec_from_config(config, "mine", beside=row["beside"])
    except ServesimError as problem:
        assert str(problem)
        return
    assert model.param_count() > 0
    assert model.kv_bytes_per_token() > 0


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(QUANT_KEYS), inner, max_size=4),
        max_leaves=12,
    )
)  # fmt: skip
def test_any_quantisation_block_is_read_or_refused(block: Any) -> None:
    llama = next(row["config"] for row in ROWS if row["name"] == "RedHatAI-w8a16")
    try:
        model = spec_from_config({**llama, "quantization_config": block}, "mine")
    except ServesimError as problem:
        assert "quantization_config" in str(problem)
        return
    assert 0 < model.weight_bytes() <= 2.1 * model.param_count()
