"""Every trace format: found by its names, its figures right, and what is left out named."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest

from sim.errors import ConfigError, DataError, NotModelledError
from sim.workload import build_traffic, content, streamed
from sim.workload import traffic as building
from tests.workload.conftest import tokens_of, whole

POISSON = {"process": "poisson", "rate": "2/s"}


@pytest.fixture
def load(tmp_path):
    """(one block, notes) of a file with the given content, its format found."""

    def make(name, text, closed_loop=None, **section):
        file = tmp_path / name
        data = text if isinstance(text, bytes) else (text if isinstance(text, str) else json.dumps(text)).encode()
        file.write_bytes(data)
        made = build_traffic({"trace": {"path": str(file), **section}, "closed_loop": closed_loop})
        return whole(made), made.notes

    return make


def lines(*rows):
    return "\n".join(map(json.dumps, rows))


def test_burstgpt_requests_that_failed_are_left_out(load):
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,12,3,ChatGPT,472,18,490,Conversation log\n45,,2,ChatGPT,1087,230,1317,API log\n"
        "118,7,9,GPT-4,417,276,693,Conversation log\n185,,1,ChatGPT,1360,0,1360,API log\n"
    )
    block, notes = load("b.csv", text)

    assert block.arrival_s.tolist() == [0, 40, 113]
    assert (block.prompt_tokens.tolist(), block.output_tokens.tolist()) == ([472, 1087, 417], [18, 230, 276])
    assert block.session.tolist() == [12, -1, 7]
    assert notes[0] == "b.csv is read as burstgpt (format: auto)"
    assert "1 of 4 requests failed" in notes[1]
    only, _ = load("b.csv", text, settings={"model": "GPT-4"})
    assert only.prompt_tokens.tolist() == [417]
    with pytest.raises(DataError, match="line 5, column 'Response tokens'"):
        load("b.csv", text, settings={"failed": "refuse"})
    with pytest.raises(DataError, match="no request left"):
        load("b.csv", text, settings={"model": "GPT-9"})


def test_azure_images_are_named_or_counted(load):
    text = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-08 00:00:00.184000,0,1250,64\n2024-10-08 00:00:01.021000,2,3140,120\n"
    block, notes = load("a.csv", text)

    assert block.arrival_s.tolist() == pytest.approx([0, 0.837])
    assert block.prompt_tokens.tolist() == [1250, 3140]
    assert "column NumImages not used" in notes[1]
    more, notes = load("a.csv", text, settings={"image_tokens": 576})
    assert more.prompt_tokens.tolist() == [1250, 3140 + 2 * 576]
    assert len(notes) == 1


MOONCAKE = [
    {"timestamp": 0, "input_length": 1000, "output_length": 50, "hash_ids": [0, 1], "session_id": "a", "priority": 1},
    {"timestamp": 100, "input_length": 1500, "output_length": 50, "hash_ids": [0, 1, 2], "session_id": "a"},
]


def test_mooncake_carries_sessions_and_priorities(load):
    block, notes = load("m.jsonl", lines(*MOONCAKE))

    assert block.arrival_s.tolist() == pytest.approx([0, 0.1])
    assert block.session[0] == block.session[1] >= 0
    assert block.priority.tolist() == [1, 0]
    assert any("priority is passed on" in n for n in notes)


def test_mooncake_without_hash_ids(load):
    rows = [
        {"timestamp": 0, "input_length": 512, "output_length": 128},
        {"timestamp": 50, "input_length": 256, "output_length": 64},
    ]
    block, notes = load("m.jsonl", lines(*rows))

    assert block.arrival_s.tolist() == pytest.approx([0, 0.05])
    assert len(block.span_id) == 0
    assert notes[0] == "m.jsonl is read as mooncake (format: auto)"


def test_guidellm_counts_in_seconds(load):
    rows = [
        {"timestamp": 0, "input_length": 256, "output_length": 128},
        {"timestamp": 0.5, "input_length": 512, "output_length": 64},
    ]
    block, notes = load("g.jsonl", lines(*rows))

    assert block.arrival_s.tolist() == [0, 0.5]
    assert "guidellm" in notes[0]


def test_a_turn_waits_for_an_answer_or_is_counted_from_arrivals(load):
    rows = [{**MOONCAKE[0]}, {"session_id": "a", "delay": 500, "input_length": 1500, "output_length": 50, "hash_ids": [0, 1, 2]}]
    block, notes = load("m.jsonl", lines(*rows))
    assert block.arrival_s.tolist() == [0, 0]
    assert block.waits.wait_s[1] == 0.5
    assert block.waits.key.tolist() == [block.out_content[0]]
    assert block.waits.awaited.tolist() == [1, 0]
    assert any("after the answer before them" in n for n in notes)
    block, notes = load("m.jsonl", lines(*rows), settings={"delays": "after_arrival"})
    assert block.arrival_s.tolist() == [0, 0.5]
    assert any("count from the arrival of the turn before" in n for n in notes)


def test_requests_that_wait_for_several_others(load):
    base = {"input_length": 512, "output_length": 8}
    rows = [
        {"timestamp": 1000, "request_id": "a", **base},
        {"request_id": "b", "wait_for": ["a"], "tool_wait_ms": 250, **base},
        {"request_id": "c", "wait_for": ["a"], "tool_wait_ms": 250, **base},
        {"timestamp": 1200, "request_id": "other", **base},
        {"request_id": "d", "wait_for": ["b", "c"], "tool_wait_ms": 10, **base},
    ]
    block, _ = load("m.jsonl", lines(*rows))
    w = block.waits
    assert block.arrival_s.tolist() == pytest.approx([0, 0, 0, 0, 0.2])
    assert w.wait_s.tolist() == pytest.approx([np.nan, 0.25, 0.25, 0.01, np.nan], nan_ok=True)
    assert w.awaited.tolist() == [2, 1, 1, 0, 0]
    assert w.key.tolist() == block.out_content[[0, 0, 1, 2]].tolist()
    with pytest.raises(DataError, match="waits for 'x'"):
        load("m.jsonl", lines(rows[0], {"wait_for": ["x"], **base}))
    with pytest.raises(DataError, match="no time stamp"):
        load("m.jsonl", lines({"delay": 5, **base}))
    with pytest.raises(NotModelledError, match="wait_for"):
        load("m.jsonl", lines(*rows), settings={"delays": "ignore"})


def test_columns_that_are_not_used_are_named(load):
    text = (
        "arrival_s,prompt_size,token_size,batch_size,priority,adapter,session_id,max_tokens\n0,10,5,1,3,x,s,9\n1,20,5,1,,,t,4\n"
    )
    block, notes = load("s.csv", text)

    assert notes[1:] == ("s.csv: column batch_size not used",)
    assert block.priority.tolist() == [3, 0]
    assert block.lora.tolist() == [1, 0]
    assert block.max_tokens.tolist() == [9, 5]
    assert block.session[0] != block.session[1]


SHAREGPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "x" * 40}, {"from": "gpt", "value": "y" * 20}, {"from": "human", "value": "z" * 8},
                                  {"from": "gpt", "value": "w" * 4}]},
    {"id": "b", "conversations": [{"from": "human", "value": "x" * 40}, {"from": "gpt", "value": "v" * 8}]},
    {"id": "c", "conversations": [{"from": "human", "value": "alone"}]},
]  # fmt: skip


@pytest.mark.parametrize("text", [json.dumps(SHAREGPT), json.dumps(SHAREGPT, indent=1), lines(*SHAREGPT)])
def test_sharegpt_as_benchmarks_sample_it(load, text):
    block, notes = load("s.json", text, arrival=POISSON)

    assert (block.prompt_tokens.tolist(), block.output_tokens.tolist()) == ([10, 10], [5, 2])
    assert tokens_of(block, 0) == tokens_of(block, 1)  # the same text
    assert any("4 characters each" in n for n in notes)
    assert any("1 conversations without an answer" in n for n in notes)
    assert block.arrival_s[1] > 0
    with pytest.raises(ConfigError, match=r"traffic.trace.arrival: is required: s.json does not say when"):
        load("s.json", text)


def test_every_turn_holds_what_was_said(load):
    block, _ = load("s.json", SHAREGPT, closed_loop={"concurrency": 1}, settings={"turns": "all"})

    assert block.prompt_tokens.tolist() == [10, 17, 10]
    assert block.session.tolist() == [0, 0, 1]
    assert tokens_of(block, 1)[:10] == tokens_of(block, 0)
    assert tokens_of(block, 1)[10:15] == [(int(block.out_content[0]), i) for i in range(5)]


def test_lmsys_and_custom_prompts(load):
    talk = {
        "conversation_id": "x",
        "conversation": [{"content": "hi there", "role": "user"}, {"content": "hello", "role": "assistant"}],
    }
    block, _ = load("l.jsonl", lines(talk), arrival=POISSON)
    assert (block.prompt_tokens.tolist(), block.output_tokens.tolist()) == ([2], [2])

    custom = [{"prompt": "What is the capital of India?", "output_tokens": 10}, {"prompt": "hi", "output_tokens": 5}]
    block, _ = load("v.jsonl", lines(*custom), arrival={"process": "burst"})
    assert (block.prompt_tokens.tolist(), block.output_tokens.tolist()) == ([8, 1], [10, 5])

    block, _ = load(
        "t.jsonl", lines({"text": "hi", "timestamp": 0, "output_length": 5}, {"text": "hi", "timestamp": 70, "output_length": 6})
    )
    assert block.arrival_s.tolist() == pytest.approx([0, 0.07])


WEKA = {
    "id": "c1", "block_size": 64,
    "requests": [
        {"t": 0.0, "type": "n", "in": 640, "out": 50, "hash_ids": list(range(1, 11)), "api_time": 1.2},
        {"t": 30.0, "type": "s", "in": 700, "out": 20, "hash_ids": list(range(1, 12)), "api_time": 0.9},
        {"t": 31.0, "type": "subagent", "requests": [{"t": 32.5, "type": "n", "in": 64, "out": 5, "hash_ids": [1]}]},
    ],
}  # fmt: skip


def test_agentic_conversations_keep_their_own_ids(load):
    block, _ = load("w.json", WEKA)

    assert block.arrival_s.tolist() == [0, 30, 32.5]
    assert block.prompt_tokens.tolist() == [640, 700, 64]
    assert tokens_of(block, 1)[:640] == tokens_of(block, 0)
    two, _ = load("w.jsonl", lines(WEKA, {**WEKA, "id": "c2"}), arrival={"process": "constant", "rate": 1})
    assert two.arrival_s.tolist() == [0, 1, 30, 31, 32.5, 33.5]
    assert not set(tokens_of(two, 0)) & set(tokens_of(two, 1))
    with pytest.raises(ConfigError, match="arrival"):
        load("w.jsonl", lines(WEKA, {**WEKA, "id": "c2"}))
    with pytest.raises(DataError, match=r"requests\[0\]\.hash_ids.*at most 10 blocks"):
        load("w.json", {"id": "x", "requests": [{"t": 0, "in": 640, "out": 1, "hash_ids": list(range(12))}]})


def test_llmservingsim(load):
    rows = [{"input_toks": 40, "output_toks": 16, "arrival_time_ns": 1_000_000, "input_tok_ids": list(range(40))},
            {"input_toks": 33, "output_toks": 5, "arrival_time_ns": 44_370_000, "input_tok_ids": [*range(32), 7]}]  # fmt: skip
    block, _ = load("l.jsonl", lines(*rows))

    assert block.arrival_s.tolist() == pytest.approx([0, 0.04337])
    assert tokens_of(block, 0)[:32] == tokens_of(block, 1)[:32]
    assert tokens_of(block, 0)[32] != tokens_of(block, 1)[32]
    session = {
        "session_id": 1,
        "arrival_time_ns": 0,
        "sub_requests": [{"input_toks": 5, "output_toks": 1, "tool_duration_ns": 2e9}] * 2,
    }
    block, _ = load("l.jsonl", lines(session))
    assert block.arrival_s.tolist() == [0, 0]
    assert block.waits.wait_s[1] == 2.0
    assert block.waits.key.tolist() == [block.out_content[0]]
    with pytest.raises(NotModelledError, match="sub_requests"):
        load("l.jsonl", lines(session), settings={"delays": "ignore"})
    block, _ = load("l.jsonl", lines(session), settings={"delays": "after_arrival"})
    assert block.arrival_s.tolist() == [0, 2]


BLIS = (
    "request_id,session_id,round_index,prefix_group,prefix_length,input_tokens,output_tokens,model,server_input_tokens,arrival_time_us,"
    "send_time_us,status\n0,s1,0,g,256,512,64,m,0,0,10,ok\n1,s1,0,g,256,512,64,m,0,250000,250010,ok\n2,s2,0,,0,100,8,m,130,300000,300010,ok\n"
)


def test_blis_prefixes_come_on_top(load, tmp_path):
    block, notes = load("t.csv", BLIS)

    assert block.arrival_s.tolist() == pytest.approx([0, 0.25, 0.3])
    assert block.prompt_tokens.tolist() == [768, 768, 130]  # without a group what the server counted
    assert tokens_of(block, 0)[:256] == tokens_of(block, 1)[:256]
    assert tokens_of(block, 0)[256] != tokens_of(block, 1)[256]
    assert any("column model not used" in n for n in notes)
    (tmp_path / "t.yaml").write_text("trace_version: 3\nsession_context_growth: accumulate\n")
    with pytest.raises(DataError, match="session_context_growth"):
        load("t.csv", BLIS.replace("1,s1,0", "1,s1,1"))


def test_opentelemetry_spans(load):
    def span(at, name="gen_ai.usage.input_tokens", out=7):
        pairs = [{"key": name, "value": {"intValue": "100"}}, {"key": "gen_ai.usage.output_tokens", "value": {"intValue": out}}]
        return {"traceId": "ab", "startTimeUnixNano": str(at), "attributes": pairs}

    spans = [span(2_000_000_000_000_000_000), span(2_000_000_001_500_000_000), span(2_000_000_002_000_000_000, "tool.name"),
             span(2_000_000_003_000_000_000, out=0)]  # fmt: skip
    block, notes = load("o.json", {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})

    assert block.arrival_s.tolist() == pytest.approx([0, 1.5])
    assert block.output_tokens.tolist() == [7, 7]
    assert block.session[0] == block.session[1]
    assert any("1 spans without token counts" in n for n in notes)
    flat = {
        "trace_id": "t",
        "start_time": "2026-01-01T00:00:00Z",
        "attributes": {"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.completion_tokens": 2},
    }
    block, _ = load("o.jsonl", lines(flat, {**flat, "start_time": "2026-01-01T00:00:02Z"}))
    assert block.arrival_s.tolist() == [0, 2]


def test_a_servegen_pool(tmp_path):
    (tmp_path / "chunk-0-trace.csv").write_text("0,2.0,1.0,Gamma,1.0,0.5\n600,0,0,,0,0\n1200,5,3,Weibull,0.5,0.2\n")
    (tmp_path / "chunk-0-dataset.json").write_text(
        json.dumps({"0": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{10: 1.0}"}})
    )
    (tmp_path / "chunk-1-trace.csv").write_text("0,1.0,1.0,Gamma,1.0,0.5\n")
    made = build_traffic({"trace": {"path": str(tmp_path), "settings": {"duration": "30min"}}})
    block = whole(made)

    assert 3900 < len(block) < 4500  # 1200 + 3000
    assert set(block.prompt_tokens.tolist()) == {100, 300}
    assert set(block.output_tokens.tolist()) == {10}
    assert not ((block.arrival_s > 605) & (block.arrival_s < 1190)).any()
    assert any("1 clients without chunk-N-dataset.json" in n for n in made.notes)
    with pytest.raises(DataError, match=r"has no chunk-N-dataset.json beside"):
        build_traffic({"trace": {"path": str(tmp_path / "chunk-1-trace.csv")}})


def test_lengths_without_times(load):
    text = "num_prefill_tokens,num_decode_tokens\n100,10\n200,20\n"
    with pytest.raises(ConfigError, match=r"v.csv does not say when its requests arrive"):
        load("v.csv", text)
    for settings in ({}, {"times": "none"}):
        block, _ = load("v.csv", text, settings=settings, arrival={"process": "constant", "rate": 4})
        assert block.arrival_s.tolist() == [0, 0.25]
    with pytest.raises(DataError, match=r"has no column 'arrival_s'"):
        load("v.csv", text, settings={"times": "needed"})
    with pytest.raises(DataError, match=r"has no column 'arrival_s'"):  # sent_at may be their time
        load("v.csv", "sent_at,num_prefill_tokens,num_decode_tokens\n0,100,10\n")


def test_turns_that_hold_only_what_is_new_are_said(load):
    def notes(second):
        rows = [
            {"session_id": "a", "input_length": 1000, "output_length": 9, "hash_ids": [1, 2], "timestamp": 0.0},
            {"session_id": "a", "input_length": 600, "output_length": 9, "hash_ids": second, "delay": 500.0},
        ]
        return load("m.jsonl", lines(*rows), settings={"delays": "after_arrival"})[1]

    assert any("do not begin as the turn before" in n for n in notes([7, 8]))
    assert not any("do not begin as the turn before" in n for n in notes([1, 3]))


def test_stat_traces_of_batches_have_lengths_in_order(load):
    rows = [{"request_id": i, "type": "text", "input_length": 60 + i, "output_length": 2000, "duration": 14000} for i in range(3)]
    block, notes = load("d.jsonl", lines(*rows), arrival={"process": "constant", "rate": 4})
    assert block.prompt_tokens.tolist() == [60, 61, 62]
    assert block.output_tokens.tolist() == [2000] * 3
    assert block.arrival_s.tolist() == [0, 0.25, 0.5]
    assert any("duration not used" in n for n in notes)
    with pytest.raises(DataError, match="output_length"):
        load("e.jsonl", lines({"request_id": 0, "type": "text", "input_length": 60, "hash_ids": [1, 2, 3, 4], "img_ids": []}))


def test_what_no_format_has_is_refused_with_its_names(load):
    with pytest.raises(DataError, match=r"is of no known trace format \(csv\); it has: a, b; known are .*burstgpt"):
        load("x.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match="is JSON, not a CSV table"):
        load("x.jsonl", lines(*MOONCAKE), format="csv")


PLAIN = "arrival_s,input_tokens,output_tokens\r\n" + "".join(f"{i / 10},{100 + i % 7},{5 + i % 3}\r\n" for i in range(5000))


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress, lambda b: pa.compress(b, codec="zstd", asbytes=True)])
def test_marks_line_ends_and_packing(load, pack):
    block, _ = load("p.csv", pack(b"\xef\xbb\xbf" + PLAIN.encode()))

    assert len(block) == 5000
    assert block.arrival_s[-1] == pytest.approx(499.9)


def test_a_large_trace_is_the_same_trace(load, tmp_path, monkeypatch):
    held, _ = load("p.csv", PLAIN, window=["10s", "300s"], limit=2000, rate_scale=2, max_tokens=6)
    monkeypatch.setattr(building, "HELD_ROWS", 1000)
    monkeypatch.setattr("sim.workload.traces._source.Source.pieces.__defaults__", (4096,))
    made = build_traffic(
        {"trace": {"path": str(tmp_path / "p.csv"), "window": ["10s", "300s"], "limit": 2000, "rate_scale": 2, "max_tokens": 6}}
    )
    streamed_block = whole(made)

    assert isinstance(made, streamed.StreamedTraffic)
    assert (made.total, made.max_prompt_tokens) == (2000, 106)
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens"):
        assert getattr(held, name).tolist() == getattr(streamed_block, name).tolist()
    assert made.with_rate(7).mean_rate == pytest.approx(7)
    assert whole(made.up_to(107)).prompt_tokens.max() <= 102


def test_an_error_in_a_later_piece_names_its_line(load, monkeypatch):
    monkeypatch.setattr("sim.workload.traces._source.Source.pieces.__defaults__", (4096,))
    rows = PLAIN.splitlines()
    rows[4000] = "1,5,5"
    with pytest.raises(DataError, match="line 4001, column 'arrival_s': arrivals must be sorted"):
        load("p.csv", "\n".join(rows))


def test_a_bomb_is_bounded(load):
    with pytest.raises(DataError, match="longer than|not a text file"):
        load("z.csv", gzip.compress(b"arrival_s,input_tokens,output_tokens\n" + b"1" * (300 << 20), 9))


def test_wide_hashes_are_the_same_in_every_piece(load, monkeypatch):
    monkeypatch.setattr("sim.workload.traces._source.Source.pieces.__defaults__", (64,))
    rows = [{"timestamp": i, "input_length": 512, "output_length": 1, "hash_ids": [2**63 + 5]} for i in range(9)]
    block, _ = load("m.jsonl", lines(*rows))

    assert len(set(block.span_id.tolist())) == 1
    assert block.span_id[0] >= content.RECORDED


def test_a_scenario_need_not_name_the_format(tmp_path):
    import sim

    rows = [MOONCAKE[0] | {"colour": "red"}, {**MOONCAKE[1], "session_id": "b"}]
    (tmp_path / "m.jsonl").write_text(lines(*rows))
    loaded = sim.load("quickstart", [f"traffic={{trace: {{path: {tmp_path / 'm.jsonl'}}}}}"])
    result = sim.run(loaded)

    assert result.summary["requests"]["finished"] == 2
    assert "m.jsonl is read as mooncake (format: auto)" in result.warnings
    assert "m.jsonl: column colour not used" in result.warnings
    assert "format: auto" in result.scenario
