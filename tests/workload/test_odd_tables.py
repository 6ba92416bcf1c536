"""Tables and JSON rows as people write them: times of any form, names of any spelling, any delimiter; or one clear error."""

import json

import pytest

from sim.errors import DataError
from sim.workload import build_traffic
from tests.workload.conftest import whole

LENGTHS = ((10, 5), (11, 6))


@pytest.fixture
def load(tmp_path):
    def make(text, name="t.csv", **settings):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        traffic = build_traffic({"trace": {"path": str(path), "settings": settings}})
        return whole(traffic), traffic.notes

    return make


def table(head, times, between=","):
    rows = [between.join((str(t), str(p), str(o))) for t, (p, o) in zip(times, LENGTHS, strict=True)]
    return "\n".join([between.join(head), *rows]) + "\n"


@pytest.mark.parametrize(
    ("column", "times", "gap", "said"),
    [
        ("timestamp", ("2026-01-01T00:00:00+01:00", "2026-01-01T00:00:01.5+01:00"), 1.5, "written out"),
        ("timestamp", ("2026-01-01T00:00:00Z", "2026-01-01T03:00:01+02:00"), 3601, "written out"),
        ("created_at", ("2026-01-01 00:00:00", "2026-01-01 00:00:00.25"), 0.25, "written out"),
        ("timestamp", (1700000000, 1700000001.5), 1.5, ""),
        ("timestamp", (1700000000000, 1700000001500), 1.5, "ms since 1970"),
        ("time", (1700000000000000, 1700000001500000), 1.5, "us since 1970"),
        ("Time", (1700000000000000000, 1700000001500000000), 1.5, "ns since 1970"),
        ("timestamp_ms", (0, 1500), 1.5, ""),
        ("Arrival Time (ms)", (0, 1500), 1.5, ""),
        ("arrival_s", (3, 4.5), 1.5, ""),
    ],
)
@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_times(load, column, times, gap, said, form):
    if form == "csv":
        block, notes = load(table((column, "prompt_tokens", "completion_tokens"), times))
    else:
        rows = [{column: t, "prompt_tokens": p, "completion_tokens": o} for t, (p, o) in zip(times, LENGTHS, strict=True)]
        block, notes = load(json.dumps(rows, indent=1) if form == "json" else "\n".join(map(json.dumps, rows)), f"t.{form}")
        assert "read as json-rows" in notes[0]
    assert block.arrival_s.tolist() == pytest.approx([0, gap], abs=1e-6)
    assert (block.prompt_tokens.tolist(), block.output_tokens.tolist()) == ([10, 11], [5, 6])
    assert not said or any(said in n for n in notes)


def test_times_that_could_be_of_any_unit_are_asked_for(load):
    text = table(("timestamp", "input_tokens", "output_tokens"), (0, 1500))
    with pytest.raises(DataError, match=r"'timestamp' does not say the unit of its times; settings.time_unit"):
        load(text)
    assert load(text, time_unit="ms")[0].arrival_s.tolist() == [0, 1.5]
    assert load(text, time_unit="s")[0].arrival_s.tolist() == [0, 1500]


@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "names",
    [
        ("prompt_tokens", "completion_tokens"),
        ("Prompt Tokens", "Output-Tokens"),
        ("ISL", "OSL"),
        ("num_input_tokens", "num_output_tokens"),
    ],
)
def test_names_and_delimiters(load, between, names):
    block, _ = load("# made by hand\n" + table(("arrival_s", *names), (0, 2), between).replace("\n", "\r\n"))
    assert (block.prompt_tokens.tolist(), block.arrival_s.tolist()) == ([10, 11], [0, 2])
    with pytest.raises(DataError, match="line 4, column"):
        load("# made by hand\n" + table(("arrival_s", *names), (0, "x"), between))


def test_requests_in_any_order_are_sorted_when_asked(load):
    text = table(("arrival_s", "prompt_tokens", "output_tokens"), (5, 1.5))
    with pytest.raises(DataError, match="line 3, column 'arrival_s': arrivals must be sorted"):
        load(text)
    block, _ = load(text, sort=True)
    assert (block.arrival_s.tolist(), block.prompt_tokens.tolist()) == ([0, 3.5], [11, 10])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0,-5,5", "line 2, column 'prompt_tokens'"),
        ("0,NaN,5", "line 2, column 'prompt_tokens'"),
        ('0,"1,024",5', "line 2, column 'prompt_tokens'"),
        ("0,5,0", "line 2, column 'output_tokens'"),
        ("0,5.5,7", "line 2, column 'prompt_tokens'"),
        ("inf,5,5", "line 2, column 'arrival_s'"),
        ("0,5", "line 2, column 'output_tokens'"),
        ("0,5,6,7", "is not a CSV table"),
        ("", "has a header and no rows"),
    ],
)
def test_what_cannot_be_used_is_named(load, rows, said):
    with pytest.raises(DataError, match=said):
        load(f"arrival_s,prompt_tokens,output_tokens\n{rows}\n")


def test_json_rows_name_what_is_wrong_and_what_is_not_used(load):
    rows = [
        {"arrival_s": 0, "prompt_tokens": 5, "output_tokens": 5, "user": "a"},
        {"arrival_s": 1, "prompt_tokens": -5, "output_tokens": 5},
    ]
    with pytest.raises(DataError, match=r"line 2, column 'prompt_tokens': must be a whole number of tokens .*-5"):
        load("\n".join(map(json.dumps, rows)), "r.jsonl")
    _, notes = load(json.dumps(rows[:1]), "r.json")
    assert any("column user not used" in n for n in notes)
    with pytest.raises(DataError, match="has no column"):
        load("\n".join(map(json.dumps, [rows[0], rows[0]])), "r.jsonl", arrival_column="when")
