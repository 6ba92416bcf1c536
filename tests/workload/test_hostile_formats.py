"""Mangled files of every format: traffic that keeps its promises, or one clear error that names the file."""

import copy
import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.errors import ServesimError
from sim.workload import build_traffic
from tests.workload.conftest import whole
from tests.workload.test_formats import BLIS, MOONCAKE, SHAREGPT, WEKA

ROWS = [
    MOONCAKE, SHAREGPT, [WEKA], [{"prompt": "what?", "output_tokens": 3}] * 2,
    [{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 20, "output_length": 2, "type": "text", "turn": 1, "hash_ids": [1, 2]}] * 2,
    [{"input_toks": 5, "output_toks": 2, "arrival_time_ns": 5, "input_tok_ids": [1, 2, 3, 4, 5]}] * 2,
    [{"session_id": 1, "arrival_time_ns": 0, "sub_requests": [{"input_toks": 5, "output_toks": 1, "tool_duration_ns": 2e9}]}],
    [{"trace_id": "t", "start_time": "2026-01-01T00:00:00Z", "attributes": {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2}}],
    [{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "a", "startTimeUnixNano": "5", "attributes": [
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "9"}}, {"key": "gen_ai.usage.output_tokens", "value": {"intValue": 2}}]}]}]}]}],
]  # fmt: skip
TABLES = [
    BLIS, "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,1,2,ChatGPT,4,3,7,API log\n6,,2,GPT-4,4,0,4,x\n",
    "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-08 00:00:00.184,0,125,6\n2024-10-08 00:00:01,2,31,1\n",
    "arrival_s,prompt_size,token_size,priority,adapter,session_id,max_tokens,hash_ids\n0,10,5,3,x,s,9,1\n1,20,5,,,t,4,1\n",
]  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**25), 10**25), st.floats(), st.text(max_size=4), st.lists(st.integers(-2, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.sampled_from(["inf", "", "nan", [], {}, 0, -1, 1e308, 10**19]),
)  # fmt: skip
HARD = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for k, v in value.items():
            yield from places(v, (*path, k))
    elif isinstance(value, list):
        for i, v in enumerate(value[:3]):
            yield from places(v, (*path, i))


def attempt(file, content):
    file.write_bytes(content)
    try:
        whole(build_traffic({"trace": {"path": str(file), "arrival": None}, "closed_loop": {"concurrency": 1}}))
    except ServesimError as error:
        assert file.name in str(error), str(error)


@HARD
@given(
    data=st.data(),
    rows=st.sampled_from(ROWS),
    changes=st.integers(1, 3),
    form=st.sampled_from(["lines", "array", "packed", "cut"]),
)
def test_mangled_objects(tmp_path, data, rows, changes, form):
    rows = copy.deepcopy(rows)
    for _ in range(changes):
        there = [p for p in places(rows) if p]
        if not there:
            break
        path = data.draw(st.sampled_from(there))
        inside = rows
        for key in path[:-1]:
            inside = inside[key]
        if data.draw(st.booleans()) and isinstance(inside, dict):
            inside.pop(path[-1], None)
        else:
            inside[path[-1]] = data.draw(ODD)
    text = json.dumps(rows) if form == "array" else "\r\n".join(map(json.dumps, rows))
    content = text.encode()
    content = (
        gzip.compress(content)
        if form == "packed"
        else content[: data.draw(st.integers(0, len(content)))]
        if form == "cut"
        else content
    )
    attempt(tmp_path / "x.jsonl", content)


@HARD
@given(data=st.data(), table=st.sampled_from(TABLES), changes=st.integers(1, 3))
def test_mangled_tables(tmp_path, data, table, changes):
    rows = [line.split(",") for line in table.splitlines()]
    for _ in range(changes):
        row = data.draw(st.integers(0, len(rows) - 1))
        field = data.draw(st.integers(0, max(len(rows[row]) - 1, 0)))
        if data.draw(st.booleans()):
            rows[row][field : field + 1] = []
        elif rows[row]:
            rows[row][field] = data.draw(
                st.one_of(st.text(max_size=4), st.integers(-3, 10**19).map(str), st.sampled_from(["", "nan", "1e400", '"', "|"]))
            )
    attempt(tmp_path / "x.csv", "\n".join(",".join(r) for r in rows).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "content", [b"[", b"[1]", b"[{}", b"{}", b"[{}]", b'{"a":' + b"[" * 100_000, b"\xef\xbb\xbf", b"[{},\x00]", b"[\xff]"]
)
def test_odd_beginnings(tmp_path, content):
    attempt(tmp_path / "x.json", content)
