"""Whatever a file or a section holds, the answer is traffic that keeps its promises, or one clear error."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sim import registry
from sim.errors import DataError, ServesimError
from sim.workload import build_traffic
from tests.workload.conftest import whole

SLOW = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
FIELD = st.one_of(
    st.integers(-3, 10**19).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", " ", "NA", "nan", "-0", "1e3", "0x10", "1_000", "true", '"', "'", "2023-11-16 18:17:03.97", "0000-00-00", "5 6", "|"]
    ),
    st.text(max_size=5),
)
HEADERS = [
    "arrival_s,input_tokens,output_tokens",
    "TIMESTAMP,ContextTokens,GeneratedTokens",
    "arrival_s,input_tokens,output_tokens,hash_ids",
]
FORMATS = st.sampled_from(["auto", *(n for n in registry.names("trace") if n != "servegen")])


def attempt(path, format, content):
    path.write_bytes(content)
    try:
        whole(build_traffic({"trace": {"format": format, "path": str(path)}}))
    except ServesimError as error:
        assert str(error)


@SLOW
@given(
    format=FORMATS,
    header=st.sampled_from(HEADERS),
    rows=st.lists(st.lists(FIELD, min_size=1, max_size=5), max_size=6),
    packed=st.booleans(),
)
def test_tables(tmp_path, format, header, rows, packed):
    content = "\n".join([header, *(",".join(row) for row in rows)]).encode("utf-8", "surrogatepass")
    attempt(tmp_path / "t", format, gzip.compress(content) if packed else content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
RECORD = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.integers(0, 9) | JSON,
        "input_length": st.integers(1, 2000) | JSON,
        "output_length": st.integers(1, 9) | JSON,
        "hash_ids": st.lists(st.integers(0, 5), max_size=4) | JSON,
        "more": JSON,
    },
)


@SLOW
@given(records=st.lists(RECORD | JSON, max_size=4), junk=st.text(max_size=8))
def test_json_lines(tmp_path, records, junk):
    import json

    content = "\n".join([*map(json.dumps, records), junk]).encode("utf-8", "surrogatepass")
    attempt(tmp_path / "t", "mooncake", content)


@SLOW
@given(format=FORMATS, content=st.binary(max_size=60))
@example(format="csv", content=b"\x1f\x8b")
@example(format="csv", content=b"PAR1")
@example(format="mooncake", content=b"{")
@example(format="csv", content=b'"')
def test_any_bytes(tmp_path, format, content):
    attempt(tmp_path / "t", format, content)


NUMBER = st.one_of(
    st.integers(-2, 3000), st.floats(), st.none(), st.booleans(), st.text(max_size=3), st.lists(st.integers(-1, 50), max_size=3)
)
SETTING = st.dictionaries(
    st.sampled_from(
        ["kind", "process", "rate", "cv", "prompt_tokens", "output_tokens", "max_total_tokens", "turns", "think_time", "x"]
    ),
    NUMBER
    | st.sampled_from(["poisson", "gamma", "burst", "fixed", "uniform", "8/s"])
    | st.fixed_dictionaries({"mean": NUMBER, "cv": NUMBER}),
    max_size=5,
)


@SLOW
@given(
    arrival=SETTING | st.just({"process": "gamma", "rate": 1, "cv": 2}),
    lengths=SETTING | st.just({"kind": "uniform", "prompt_tokens": [1, 5], "output_tokens": [1, 5]}),
    more=st.dictionaries(st.sampled_from(["sessions", "prefixes", "max_tokens"]), SETTING | NUMBER, max_size=2),
)
def test_sections(arrival, lengths, more):
    try:
        traffic = build_traffic({"synthetic": {"arrival": arrival, "lengths": lengths, "requests": 50, **more}})
        assert len(whole(traffic)) == 50
    except ServesimError as error:
        assert str(error)


@SLOW
@given(
    seed=st.integers(0, 5),
    turns=st.integers(1, 9),
    rate=st.floats(0.01, 1000),
    think=st.just(0.0) | st.floats(1e-9, 100),
    cv=st.just(0.0) | st.floats(0.001, 5),
    requests=st.integers(1, 300),
    rows=st.integers(1, 400),
)
def test_any_sessions_keep_the_promises_of_a_block(seed, turns, rate, think, cv, requests, rows):
    section = {
        "arrival": {"process": "poisson", "rate": rate},
        "lengths": {"kind": "uniform", "prompt_tokens": [1, 9], "output_tokens": [1, 9]},
        "requests": requests,
        "sessions": {"turns": [1, turns], "think_time": think, "think_cv": cv},
    }
    block = whole(build_traffic({"synthetic": section}, seed), rows)

    assert len(block) == requests == len(np.unique(block.out_content))


def test_a_header_without_end_is_an_error_of_ours(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("x" * 200_000 + ",b\n1,2\n")
    with pytest.raises(DataError, match="header"):
        whole(build_traffic({"trace": {"format": "csv", "path": str(file)}}))
