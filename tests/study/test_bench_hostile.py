"""Whatever a result file holds, the answer is a run whose every figure can be used, a reason, or one clear error."""

import copy
import json

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.errors import ServesimError
from sim.study.bench import read
from tests.study.test_bench import AGGREGATE, INFX, LLMPERF, TGI, guidellm, records, stage, vllm

WHOLE = [
    vllm(),
    vllm(request_rate=2.0, start_times=[0.0, 1.0, 2.0, 3.0]), AGGREGATE, stage(), guidellm({"type_": "concurrent", "streams": 2}), records(2), [LLMPERF],
    [INFX], TGI, [{"n_prompt": 512, "n_gen": 0, "avg_ts": 2400.0}],
    {"backend": "sglang", "random_input_len": 9, "completed": 3, "total_input_tokens": 9, "total_output_tokens": 9, "duration": 2.0, "median_ttft_ms": 5},
]  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**25), 10**25), st.floats(), st.text(max_size=4), st.lists(st.integers(-2, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.sampled_from(["inf", "", "nan", "1e400", "-1", [], {}, 0, -0.0, 1e308]),
)  # fmt: skip


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for k, v in value.items():
            yield from places(v, (*path, k))
    elif isinstance(value, list):
        for i, v in enumerate(value[:3]):
            yield from places(v, (*path, i))


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), document=st.sampled_from(WHOLE), changes=st.integers(1, 3), lines=st.booleans())
def test_mangled_results(tmp_path, data, document, changes, lines):
    document = copy.deepcopy(document)
    for _ in range(changes):
        there = [p for p in places(document) if p]
        if not there:
            break
        path = data.draw(st.sampled_from(there))
        inside = document
        for key in path[:-1]:
            inside = inside[key]
        if data.draw(st.booleans()) and isinstance(inside, dict):
            inside.pop(path[-1], None)
        else:
            inside[path[-1]] = data.draw(ODD)
    rows = document if isinstance(document, list) and lines else [document]
    file = tmp_path / "x.json"
    file.write_text("\r\n".join(map(json.dumps, rows)), encoding="utf-8")
    try:
        runs = read(file)
    except ServesimError as error:
        assert str(file.name) in str(error)
        return
    for run in runs:
        assert run.refused or run.measured
        assert all(np.isfinite(v) and v >= 0 for v in run.measured.values()), run.measured
        if run.columns and not run.refused:
            c = run.columns
            assert len({len(v) for v in c.values()}) == 1
            assert (c["prompt_tokens"] >= 1).all()
            assert (c["output_tokens"] >= 0).all()
            assert np.isfinite(c["arrival_s"]).all()
            assert c["arrival_s"].min() == 0


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text(max_size=60).map(str.encode))
def test_any_bytes(tmp_path, content):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    try:
        read(file)
    except ServesimError as error:
        assert str(error)
