"""Files of texts and spans are read some megabytes at a time, in arrays: the same requests as one by one, and as all at once."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim.workload.traffic as building
from sim.errors import DataError
from sim.workload import build_traffic, streamed
from sim.workload.traces import _objects, _scan
from sim.workload.traces._auto import reader
from sim.workload.traces._objects import Item, Objects, items
from tests.workload.conftest import whole

TEXT = st.text(alphabet='ab "\\{}[],:é漢', max_size=9)
TALK = st.lists(st.tuples(st.sampled_from(["human", "gpt", "system", "User", "assistant"]), st.none() | TEXT), max_size=5)


def columns(block):
    """What is read, whatever the ids of equal texts are."""
    first, number = np.unique(block.span_id, return_index=True, return_inverse=True)[1:]
    names = ("arrival_s", "prompt_tokens", "output_tokens", "session", "out_content", "span_off", "span_start", "span_len")
    return {name: getattr(block, name).tolist() for name in names} | {"equal": first[number].tolist()}


def forms(rows):
    """The same objects as an array on one line, indented with either kind of line ends, and as lines."""
    indented = json.dumps(rows, indent=2, ensure_ascii=False)
    return json.dumps(rows), indented, indented.replace("\n", "\r\n"), "\r\n".join(map(json.dumps, rows)) + "\n"


def one_by_one(monkeypatch):
    monkeypatch.setattr(Objects, "table", lambda self, fields, others=False: None)


@given(st.lists(TALK, min_size=1, max_size=6), st.sampled_from(["first", "all"]), st.sampled_from([8, 40, 1 << 16]))
@settings(max_examples=60)
def test_conversations(tmp_path_factory, talks, turns, size):
    folder = tmp_path_factory.mktemp("talks")
    rows = [{"id": k, "conversations": [{"from": who, "value": text} for who, text in talk]} for k, talk in enumerate(talks)]
    found = []
    for k, text in enumerate(forms(rows)):
        for slow in (False, True):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_objects.pieces, "__defaults__", (size,))
                if slow:
                    one_by_one(patch)
                file = folder / f"{k}.json"
                file.write_bytes(text.encode())
                try:
                    found.append(columns(reader(file, "sharegpt", {"turns": turns}).read(file).validate()))
                except DataError as error:
                    found.append(str(error).partition(": ")[2])
    assert all(one == found[0] for one in found)


def test_conversations_in_parquet_are_those_in_json(tmp_path, monkeypatch):
    talk = [("user", "a b c d e"), ("assistant", "x" * 9), ("user", ""), ("assistant", None)]
    rows = [
        {"conversation_id": str(k), "conversation": [{"role": r, "content": t} for r, t in talk[: k % 5]]} for k in range(1, 12)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "c.json").write_text(json.dumps(rows))
    made = [reader(tmp_path / name) for name in ("c.parquet", "c.json")]
    assert {one.name for one in made} == {"sharegpt"}
    monkeypatch.setattr("sim.workload.traces.sharegpt._BATCH", 3)
    blocks = [one.read(tmp_path / name) for one, name in zip(made, ("c.parquet", "c.json"), strict=True)]
    assert columns(blocks[0]) == columns(blocks[1])
    rows[5]["conversation"][0]["role"] = "narrator"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"rows 4 to 6, column 'conversation': must be lists of messages with one of human"):
        reader(tmp_path / "c.parquet").read(tmp_path / "c.parquet")


SPAN = {"traceId": "a", "startTimeUnixNano": "1700000000123456789", "attributes": []}


def spans(calls, listed, as_text):
    for k, (prompt, output, other) in enumerate(calls):
        names = {"gen_ai.usage.input_tokens": prompt, "gen_ai.usage.output_tokens": output} if not other else {"tool": 1}
        value = {name: {"intValue": str(x) if as_text else x} for name, x in names.items()}
        attributes = [{"key": name, "value": x} for name, x in value.items()] if listed else names
        yield SPAN | {
            "traceId": f"t{k // 2}",
            "startTimeUnixNano": str(1_700_000_000_000_000_000 + 7_000_000 * (k ^ 1)),
            "attributes": attributes,
        }


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("shape", ["document", "spans", "bare"])
def test_calls_of_opentelemetry(tmp_path, monkeypatch, listed, as_text, shape):
    calls = [(10 + k, 3 + k % 4, k % 5 == 3) for k in range(20)] + [(5, 0, False)]
    rows = list(spans(calls, listed, as_text))
    if shape == "document":
        rows = [{"resourceSpans": [{"scopeSpans": [{"spans": rows[k : k + 3]}]}]} for k in range(0, len(rows), 3)]
    elif shape == "spans":
        rows = [{"spans": rows[k : k + 3]} for k in range(0, len(rows), 3)]
    file = tmp_path / "o.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = reader(file)
    block = quick.read(file).validate()
    assert quick.name == "otel"
    assert len(block) == 16
    assert block.arrival_s[1] == pytest.approx(7e-3, abs=1e-12)
    assert any("4 spans without token counts" in n for n in quick.notes)
    assert any("1 calls without prompt or output" in n for n in quick.notes)
    monkeypatch.setattr(_objects.pieces, "__defaults__", (300,))
    assert columns(reader(file).read(file)) == columns(block)
    one_by_one(monkeypatch)
    assert columns(reader(file).read(file)) == columns(block)


def test_counts_of_different_kinds_side_by_side(tmp_path):
    call = {"gen_ai.usage.input_tokens": "5", "gen_ai.usage.output_tokens": 2, "llm.usage.prompt_tokens": 7}
    row = {"trace_id": "t", "start_time": "2026-01-01T00:00:00Z", "attributes": call}
    file = tmp_path / "o.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"trace_id": 3}) + "\n")
    block = reader(file).read(file)
    assert (block.prompt_tokens.tolist(), block.output_tokens.tolist()) == ([5, 5], [2, 2])
    assert block.session[1] == 3


def test_spans_of_another_form_than_the_first_are_read_too(tmp_path):
    call = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6}
    listed = [{"key": name, "value": {"intValue": x}} for name, x in call.items()]
    first = {"start_time": "2026-01-01T00:00:00Z", "attributes": call}
    others = [
        {"start_time": 1767225601.5, "attributes": call},
        {"start_time": "2026-01-01T01:00:02+01:00", "attributes": listed},
        {"spans": [{"start_time": "1767225603", "attributes": {name: str(x) for name, x in call.items()}}]},
    ]
    file = tmp_path / "o.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (first, *others)))
    assert reader(file).read(file).arrival_s.tolist() == pytest.approx([0, 1.5, 2, 3])


@pytest.mark.parametrize("timed", [False, True])
def test_prompts(tmp_path, monkeypatch, timed):
    rows = [{"prompt": f"ab {k % 3}", "output_tokens": None if k % 4 == 0 else k} for k in range(1, 40)]
    rows = [row | ({"timestamp": 100 - k} if timed else {}) for k, row in enumerate(rows)]
    rows[7]["prompt_len"], rows[8]["user"] = 99, "me"
    file = tmp_path / "c.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = reader(file)
    block = made.read(file).validate()
    assert made.timed == timed
    assert block.output_tokens.tolist()[:: -1 if timed else 1][:5] == [1, 2, 3, 256, 5]
    assert sorted(block.prompt_tokens.tolist())[-2:] == [1, 99]
    assert any("column user not used" in n for n in made.notes)
    monkeypatch.setattr(_objects.pieces, "__defaults__", (100,))
    one_by_one(monkeypatch)
    again = reader(file).read(file)
    assert {**columns(again), "out_content": 0} == {**columns(block), "out_content": 0}
    rows[30].pop("timestamp") if timed else rows[30].update(timestamp=3)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"item 31, key 'timestamp': must be in every object or in none"):
        reader(file).read(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1} {"a": "x\ny"}]', "item 2: is not JSON"),
        ('[{"a": 1}, 3]', "item 2: must be a JSON object"),
        ('[{"a": 1}, {"a": 2}', "its array does not end"),
        ('[{"a": 1}] 7', "something follows its array"),
        ('{"a": 1}, {"a": 2}', "item 2: is not JSON"),
        ('{"a": 1}\n{"a": }', "item 2: is not JSON"),
        ('{"a": 1}\n{"a": 2', "item 2: is not JSON"),
        ('{"a": "x\ry"}', "item 1: is not JSON"),
        ('{"a": 1}\n{"a": \x00}', "not a text file|is not JSON"),
        ("[]", "has no objects"),
        (" \n", "is empty"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, text, said):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        list(items(file))


def test_a_field_nested_very_deeply_is_an_error_and_no_crash(tmp_path):
    row = {"timestamp": 0, "input_length": 5, "output_length": 5}
    deep = json.dumps(row)[:-1] + ', "x": ' + '{"c":' * 200_000 + "1" + "}" * 200_001
    file = tmp_path / "m.jsonl"
    file.write_text(json.dumps(row) + "\n" + deep + "\n")
    with pytest.raises(DataError, match="line 2: is not JSON"):
        reader(file, "mooncake").read(file)
    file.write_text(json.dumps({"prompt": "x"}) + '\n{"prompt": "y", "x": ' + deep.partition('"x": ')[2])
    with pytest.raises(DataError, match="item 2: is not JSON"):
        reader(file, "vllm-custom").read(file)


def test_brackets_in_strings_are_none():
    text = b'{"a": "}\\\\", "b": "\\"}{", "c": [1]} , {"d": {}}{"e'
    lines, count, stop, deepest = _scan.as_lines(text, True)
    assert (count, deepest) == (2, 2)
    assert [json.loads(line) for line in lines.splitlines()] == [{"a": "}\\", "b": '"}{', "c": [1]}, {"d": {}}]
    assert text[stop:] == b'{"e'


def test_texts_that_are_too_many_for_memory_are_the_same_requests(tmp_path, monkeypatch):
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{k}" * (k % 7 + 1), "output_tokens": 3}) + "\n" for k in range(3000)))
    section = {"trace": {"path": str(file), "arrival": {"process": "poisson", "rate": 8}, "limit": 2500, "max_tokens": 2}}
    held = whole(build_traffic(section, 5))
    monkeypatch.setattr(building, "HELD_ROWS", 100)
    monkeypatch.setattr(_objects.pieces, "__defaults__", (4096,))
    large = build_traffic(section, 5)
    assert isinstance(large, streamed.StreamedTraffic)
    assert large.total == 2500
    assert columns(whole(large)) == columns(held) == columns(whole(large))
    assert large.with_rate(3).mean_rate == pytest.approx(3)


def test_items_know_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(_objects.pieces, "__defaults__", (10,))
    file = tmp_path / "i.json"
    file.write_text(json.dumps([{"k": k} for k in range(9)]))
    assert [(one.place, one.value["k"]) for one in _objects.columns(file, None, lambda table: None, list) for one in one[1]] == [
        (f"item {k + 1}", k) for k in range(9)
    ]
    assert isinstance(next(items(file)), Item)
