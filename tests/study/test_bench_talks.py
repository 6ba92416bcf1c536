"""Benchmark records of conversations."""

import json

import numpy as np
import pytest

import sim
from sim.study.accuracy import read_points
from sim.study.accuracy.predict import predict
from sim.study.accuracy.traffic import traffic_of
from sim.workload import RequestBlock


def records(folder, lengths, pause=0.0, concurrency=None):
    """aiperf records of two conversations of turns with these prompts; answers of 50 tokens in 1 s."""
    rows = []
    for talk in range(2):
        at = 0.25 * talk
        for turn, prompt in enumerate(lengths):
            about = {
                "conversation_id": f"c{talk}",
                "turn_index": turn,
                "request_start_ns": int(at * 1e9),
                "benchmark_phase": "profiling",
            }
            figures = {"time_to_first_token": 100.0, "request_latency": 1000.0}
            metrics = {k: {"value": v, "unit": "ms"} for k, v in figures.items()}
            metrics |= {
                k: {"value": v, "unit": "tokens"} for k, v in (("input_sequence_length", prompt), ("output_sequence_length", 50))
            }
            rows.append({"metadata": about, "metrics": metrics, "error": None})
            at += 1.0 + pause
    file = folder / "profile_export.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    if concurrency:
        told = {"request_latency": {"unit": "ms", "avg": 1.0}, "input_config": {"loadgen": {"concurrency": concurrency}}}
        (folder / "profile_export_aiperf.json").write_text(json.dumps(told))
    return file


def point_of(file):
    (point,) = read_points([file], sim.load("quickstart"))
    return point


def block_of(point):
    return RequestBlock.concat(list(traffic_of(point).blocks()))


@pytest.mark.parametrize(("lengths", "counts"), [([1000, 1200, 1400], "whole prompts"), ([1000, 150, 150], "what a turn adds")])
def test_later_prompts_begin_with_what_was_said(tmp_path, lengths, counts):
    point = point_of(records(tmp_path, lengths, pause=2.0))
    block = block_of(point)
    first, second, third = (block.where(block.session == 0)[k : k + 1] for k in range(3))

    assert [int(b.prompt_tokens[0]) for b in (first, second, third)] == [1000, 1200, 1400], counts
    assert third.span_id[:3].tolist() == [*second.span_id.tolist()[:1], first.out_content[0], second.span_id[2]]
    assert third.span_len.tolist() == [1000, 50, 150, 50, 150]
    np.testing.assert_allclose(block.waits.wait_s[np.isfinite(block.waits.wait_s)], 2.0)
    assert any("prompts begin with what was said" in note for note in point.notes)
    assert any("counts what a turn adds" in note for note in point.notes) == (counts == "what a turn adds")


def test_reasoning_that_is_dropped_and_talks_that_are_cut_share_less(tmp_path):
    block = block_of(point_of(records(tmp_path, [1000, 1020, *range(1100, 2500, 100), 300])))
    mine = block.where(block.session == 0)
    parts = [mine[k : k + 1].span_len.tolist() for k in range(len(mine))]

    assert parts[1] == [1000, 20]  # the answer of 50 tokens does not fit
    assert parts[2][:3] == [1000, 20, 50]
    assert parts[-1] == [300]


@pytest.mark.parametrize("concurrency", [None, 1])
def test_conversations_are_predicted_by_their_own_rows(tmp_path, concurrency):
    point = point_of(records(tmp_path, [20_000, 20_200, 20_400], concurrency=concurrency))
    found = predict(point)

    assert point.traffic["kind"] == ("closed_loop" if concurrency else "trace")
    assert set(found) >= {"ttft_s.mean", "e2e_s.mean", "tpot_s.mean"}
    alone = predict(point_of(records(tmp_path, [20_000])))
    assert found["ttft_s.mean"] < 0.6 * alone["ttft_s.mean"]  # two turns of three are in the prefix cache
