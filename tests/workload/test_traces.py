"""Trace files: what is read from them, how they are cut and sped up, and what is said about bad ones."""

import gzip
import json

import numpy as np
import pytest

from sim.errors import ConfigError, DataError, UnknownNameError
from sim.workload import build_traffic
from tests.workload.conftest import tokens_of, whole

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:04.0319601,110,27
"""
PLAIN = "arrival_s,input_tokens,output_tokens\n" + "".join(f"{10 + 2 * k},{100 + k},{k + 1}\n" for k in range(10))
MOONCAKE = [
    {"timestamp": 0, "input_length": 1025, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 3000, "input_length": 1100, "output_length": 7, "hash_ids": [0, 1, 3]},
    {"timestamp": 3000, "input_length": 512, "output_length": 1, "hash_ids": [9]},
]


@pytest.fixture
def read(tmp_path):
    """Traffic of a file with the given content."""

    def make(text, format="csv", name="trace", **settings):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return build_traffic({"trace": {"format": format, "path": str(path), **settings}})

    return make


def lines(records):
    return "".join(json.dumps(r) + "\n" for r in records)


@pytest.mark.parametrize(
    "pack", [str.encode, lambda text: gzip.compress(text.encode()), lambda text: b"\xef\xbb\xbf" + text.encode()]
)
def test_azure(read, pack):
    block = whole(read(pack(AZURE), "azure-2023"))

    np.testing.assert_allclose(block.arrival_s, [0, 0.052, 0.0520001], atol=1e-12)
    assert block.prompt_tokens.tolist() == [4808, 3180, 110]
    assert [10, 8, 27] == block.output_tokens.tolist() == block.max_tokens.tolist()
    assert len(block.span_id) == 0


def test_azure_stamps_with_an_offset_and_without_a_fraction(read):
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,1,1\n2024-05-10 00:00:01+00:00,1,1\n"

    np.testing.assert_allclose(whole(read(text, "azure-2024")).arrival_s, [0, 0.99007])


def test_mooncake_ids_become_spans(read):
    block = whole(read(lines(MOONCAKE), "mooncake"))
    first, second, third = (tokens_of(block, row) for row in range(3))

    assert block.arrival_s.tolist() == [0, 3, 3]
    assert [len(first), len(second), len(third)] == [1025, 1100, 512]
    assert first[:1024] == second[:1024]
    assert not set(first[1024:]) & set(second[1024:])
    assert not set(third) & set(first)


def test_mooncake_slow_reading_agrees_with_fast(read):
    fast = whole(read(lines(MOONCAKE), "mooncake"))
    odd = [
        r | {"note": note} for r, note in zip(MOONCAKE, [1, "x", {"deep": []}], strict=True)
    ]  # no single type: not for the fast reader
    slow = whole(read("\n" + lines(odd), "mooncake"))

    for column in ("arrival_s", "prompt_tokens", "output_tokens", "span_off", "span_id", "span_len"):
        np.testing.assert_array_equal(getattr(fast, column), getattr(slow, column))


def test_wide_hashes(read):
    wide = [MOONCAKE[0] | {"hash_ids": [2**63 + 5, -4, 2**61]}, MOONCAKE[1] | {"hash_ids": [2**63 + 5, -4, 7]}]
    block = whole(read(lines(wide), "mooncake"))

    assert tokens_of(block, 0)[:1024] == tokens_of(block, 1)[:1024]
    assert len(np.unique(block.span_id)) == 4


def test_mooncake_batches_can_be_spread(read):
    stamps = [0, 0, 0, 3000, 3000]
    text = lines(MOONCAKE[2] | {"timestamp": t} for t in stamps)

    np.testing.assert_allclose(whole(read(text, "mooncake", spread=True)).arrival_s, [0, 1, 2, 3, 4.5])


def test_mooncake_block_size_is_not_in_the_file(read):
    with pytest.raises(
        DataError, match=r"line 1, column 'hash_ids': a prompt of 1025 tokens has 5 blocks of 256 tokens \(got '3 ids'\)"
    ):
        read(lines(MOONCAKE), "mooncake", block_tokens=256)


def test_a_mooncake_delay_without_a_turn_to_wait_for(read):
    rows = [MOONCAKE[0], {k: v for k, v in MOONCAKE[1].items() if k != "timestamp"} | {"delay_ms": 5}]
    with pytest.raises(DataError, match="no time stamp"):
        read(lines(rows), "mooncake")


def test_named_columns_units_and_block_ids(read):
    text = (
        "when;ignored,in,out,blocks\n1000,7,2,1|2\n2500,3,1,\n".replace(";", ",")
        .replace("1000,", "1000,x,")
        .replace("2500,", "2500,y,")
    )
    settings = {"arrival_column": "when", "prompt_column": "in", "output_column": "out", "hash_column": "blocks"}
    block = whole(read(text, **settings, time_unit="ms", block_tokens=4))

    assert block.arrival_s.tolist() == [0, 1.5]
    assert block.span_len.tolist() == [4, 3]
    assert block.span_off.tolist() == [0, 2, 2]


def test_window_limit_and_rate(read):
    cut = read(PLAIN, window=["4s", 12], limit=3)
    assert whole(cut).arrival_s.tolist() == [0, 2, 4]
    assert whole(cut).prompt_tokens.tolist() == [102, 103, 104]
    assert (cut.total, cut.mean_rate, cut.max_prompt_tokens, cut.max_tokens) == (3, 0.5, 104, 109)
    assert whole(read(PLAIN, window=[4, 12], limit=3, rate_scale=2)).arrival_s.tolist() == [0, 1, 2]
    assert whole(read(PLAIN, limit=3, rate="4/s")).arrival_s.tolist() == [0, 0.25, 0.5]
    assert read(PLAIN, rate_scale=3).mean_rate == pytest.approx(1.5)
    assert read(PLAIN, rate_scale=3).with_rate(7).mean_rate == pytest.approx(7)
    assert whole(read(PLAIN, window=[3, None])).arrival_s[0] == 1


def test_requests_that_are_too_long_are_left_out(read):
    traffic = read(PLAIN, rate_scale=2)
    short = traffic.up_to(107)

    assert whole(short).prompt_tokens.tolist() == [100, 101, 102, 103]
    assert (short.total, short.max_tokens) == (4, 107)
    assert short.mean_rate == pytest.approx(1)
    assert traffic.up_to(1000) is traffic
    with pytest.raises(ConfigError, match="this short"):
        traffic.up_to(50)


def test_client_limit(read):
    assert whole(read(PLAIN, max_tokens=5)).output_tokens.max() == 5


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"window": [5, 5]}, "0 <= start < end"),
        ({"window": [500, 600]}, "its last one comes at 18 s"),
        ({"window": [1]}, "must be .start, end."),
        ({"window": ["1 parsec", 2]}, "unknown unit"),
        ({"rate": 1, "rate_scale": 2}, "together with rate"),
        ({"rate": "fast"}, "must be a rate"),
        ({"rate": -1}, "must be in"),
        ({"rate_scale": 0}, "must be a number in"),
        ({"limit": 0}, "at least 1"),
        ({"limit": 1, "rate": 1}, "all arrive at one time"),
        ({"time_unit": "days"}, "time_unit"),
        ({"time_units": "s"}, "did you mean 'time_unit'"),
    ],
)
def test_bad_settings(read, settings, rule):
    with pytest.raises(ConfigError, match=rule):
        read(PLAIN, **settings)


def test_unknown_format(read):
    with pytest.raises(UnknownNameError, match="did you mean 'mooncake'"):
        read(PLAIN, "moonkake")


def replaced(line, text):
    rows = PLAIN.splitlines()
    rows[line - 1] = text
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"", "is empty"),
        (b" \n \n", "is empty"),
        (b"\x89PNG\r\n\0\0", "not a text file"),
        (b"\xff\xfea,b\n1,2\n", "not a text file"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:40], "not a whole gzip file"),
        ("arrival_s,input_tokens,output_tokens\n", "no rows"),
        ("arrival_s,input_tokens\n1,2\n", "has no column .*'output_tokens'.*its columns: arrival_s, input_tokens"),
        ("arrival_s,input_tokens,output_token\n1,2,3\n", "did you mean 'output_token'"),
        ("arrival_s,input_tokens,output_tokens,arrival_s\n1,2,3,4\n", "twice"),
        ("arrival_s,input_tokens,prompt_tokens,output_tokens\n1,2,3,4\n", "several columns"),
        (replaced(5, "16,103,4,99"), "line 5"),
        (replaced(5, "16,103"), "line 5, column 'output_tokens': must be a whole number.*got ''"),
        (
            replaced(5, "\n\n16,0,4"),
            r"line 7, column 'input_tokens': must be a whole number of tokens in \[1, 1073741823\] \(got 0\)",
        ),
        (replaced(5, "16,-3,4"), "line 5, column 'input_tokens'.*got -3"),
        (replaced(5, "16,10.5,4"), "line 5.*got 10.5"),
        (replaced(5, "16,many,4"), "line 5.*got 'many'"),
        (replaced(5, "16,1e12,4"), "line 5"),
        (replaced(5, "16,True,4"), "line 5"),
        (replaced(5, "16,103,0"), "line 5, column 'output_tokens'"),
        (replaced(5, "nan,103,4"), "line 5, column 'arrival_s': must be a finite time"),
        (replaced(5, "inf,103,4"), "line 5, column 'arrival_s': must be a finite time"),
        (replaced(5, ",103,4"), "line 5, column 'arrival_s': must be a finite time .got ''"),
        (replaced(2, "-1,103,4"), "line 2, column 'arrival_s': must not be negative .got -1"),
        (replaced(5, "1,103,4"), "line 5, column 'arrival_s': arrivals must be sorted.*got 1"),
    ],
)
def test_bad_tables(read, text, rule):
    with pytest.raises(DataError, match=rule):
        read(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (AZURE.replace("18:17:04.0319600", "18:16:04.0319600"), "line 3, column 'TIMESTAMP': arrivals must be sorted.*18:16:04"),
        (AZURE.replace("2023-11-16 18:17:04.0319600", "yesterday"), "line 3, column 'TIMESTAMP': must be a time such as"),
        (AZURE.replace("2023-11-16 18:17:04.0319600", "9999-11-16 18:17:04"), "line 3"),
        (AZURE.replace("2023-11-16 18:17:04.0319600", ""), "line 3.*got ''"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n5,1,1\n6,1,1\n", "line 2, column 'TIMESTAMP'.*got 5"),
        (AZURE.replace("3180", "0"), "line 3, column 'ContextTokens'"),
        (AZURE.replace("ContextTokens", "Context"), "'ContextTokens'"),
    ],
)
def test_bad_azure(read, text, rule):
    with pytest.raises(DataError, match=rule):
        read(text, "azure-2023")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("hello\n", "neither JSON lines nor a CSV"),
        (lines(MOONCAKE) + "{oops\n", "line 4: is not JSON"),
        (lines(MOONCAKE) + "[1]\n", "line 4: must be a JSON object"),
        (lines([{k: v for k, v in MOONCAKE[0].items() if k != "timestamp"}]), "line 1: has no field 'timestamp'"),
        (lines([MOONCAKE[0], MOONCAKE[1] | {"timestamp": -1}]), "line 2, column 'timestamp': must not be negative"),
        (lines([MOONCAKE[1], MOONCAKE[0]]), "line 2, column 'timestamp': arrivals must be sorted"),
        (lines([MOONCAKE[0] | {"timestamp": "now"}]), "line 1, column 'timestamp': must be a number"),
        (lines([MOONCAKE[0] | {"timestamp": float("nan")}]), "line 1, column 'timestamp': must be a finite time"),
        (lines([MOONCAKE[0] | {"timestamp": 10**400}]), "line 1, column 'timestamp'"),
        (lines([MOONCAKE[0] | {"input_length": 0}]), "line 1, column 'input_length'"),
        (lines([MOONCAKE[0] | {"output_length": None}]), "line 1, column 'output_length'"),
        (lines([MOONCAKE[0] | {"hash_ids": [0, 1]}]), "line 1, column 'hash_ids'.*has 3 blocks"),
        (lines([MOONCAKE[0] | {"hash_ids": [0, 1, "2"]}]), "must be a list of whole numbers"),
        (lines([MOONCAKE[0] | {"hash_ids": "1"}]), "must be a list of whole numbers"),
        ("[" * 100_000, "is a JSON array"),
        (json.dumps([MOONCAKE[0]]), "is a JSON array; write its objects one a line"),
        ("a,b\n1,2\n", "neither"),
        ('{"a":' + "[" * 100_000, "is not JSON"),
    ],
)
def test_bad_mooncake(read, text, rule):
    with pytest.raises(DataError, match=rule):
        read(text, "mooncake")


def test_missing_file(read, tmp_path):
    (tmp_path / "trace.csv").write_text(PLAIN)
    with pytest.raises(DataError, match=r"tracee.csv: no such file; did you mean 'trace.csv'"):
        build_traffic({"trace": {"format": "csv", "path": str(tmp_path / "tracee.csv")}})
    with pytest.raises(DataError, match="cannot be read"):
        build_traffic({"trace": {"format": "csv", "path": str(tmp_path)}})


@pytest.mark.parametrize("section", [{}, {"trace": {"format": "csv", "path": "x"}, "synthetic": {}}])
def test_exactly_one_source(section):
    with pytest.raises(ConfigError, match="exactly one source"):
        build_traffic(section)


@pytest.mark.parametrize(
    ("format", "file", "rows", "rate"),
    [
        ("azure-2023", "azure2023_conv", 19_366, 5.53),
        ("azure-2023", "azure2023_code", 8_819, 2.567),
        ("mooncake", "mooncake_conversation", 12_031, 3.401),
        ("csv", "mooncake_synthetic", 3_993, 3.907),
        ("csv", "speed_w100000_q8", 100_000, 8),
        ("csv", "apex_lmsys", 1_024, 0.244),
    ],
)
def test_public_traces(traces, format, file, rows, rate):
    traffic = build_traffic({"trace": {"format": format, "path": str(traces / f"{file}.csv.gz")}})

    assert len(whole(traffic)) == rows == traffic.total
    assert traffic.mean_rate == pytest.approx(rate, rel=2e-3)


def test_mooncake_prefix_hits_with_an_endless_cache(traces):
    """The share of prompt tokens seen before, counted from spans, is the published one."""
    block = whole(build_traffic({"trace": {"format": "mooncake", "path": str(traces / "mooncake_conversation.csv.gz")}}))
    first = np.zeros(len(block.span_id), bool)
    first[np.unique(block.span_id, return_index=True)[1]] = True

    assert len(np.unique(block.span_id)) == 182_790
    assert block.span_len[~first].sum() / block.span_len.sum() == pytest.approx(0.374, abs=0.002)


BAILIAN = [
    {"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.0, "input_length": 33, "output_length": 20, "type": "text", "turn": 1, "hash_ids": [1, 2, 3]},
    {"chat_id": 5, "parent_chat_id": 1, "timestamp": 61.1, "input_length": 48, "output_length": 9, "type": "text", "turn": 2, "hash_ids": [1, 2, 9]},
]  # fmt: skip


def test_bailian_times_are_seconds(read):
    block = whole(read(lines(BAILIAN), "bailian"))

    assert block.arrival_s.tolist() == [0.0, 61.1]
    assert block.span_len.tolist() == [16, 16, 1, 16, 16, 16]
    with pytest.raises(DataError, match="Qwen-Bailian.*format: bailian"):
        read(lines(BAILIAN), "mooncake")
    with pytest.raises(DataError, match="Qwen-Bailian.*format: bailian"):
        read(lines(BAILIAN), "mooncake", block_tokens=16)
