"""What a server served before the run that was measured."""

import json

import pytest

from sim.ledger import Values
from sim.study.accuracy import read_points
from sim.study.accuracy.earlier import APART, alone
from sim.study.accuracy.predict import predict
from sim.study.accuracy.traffic import traffic_of
from sim.workload import RequestBlock


def burst(number: int, prompt: object, **changes: object) -> dict[str, object]:
    return {
        "id": f"d/{number}",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "weights": "bf16",
        "engine": {"name": "vllm", "version": "0.15.1", "settings": {}},
        "accelerator": "h100_sxm",
        "traffic": {"kind": "burst", "num_requests": 20, "prompt_tokens": prompt, "output_tokens": 4},
        "measured": {"ttft_s": {"mean": 0.5}, "itl_s": {"mean": 0.02}},
        "assumed": [f"random prompts of {prompt} tokens"],
    } | changes


def read(tmp_path, *raw, generator="vllm bench serve, chat completions"):
    (tmp_path / "points.jsonl").write_text("\n".join(map(json.dumps, raw)))
    (tmp_path / "deployment.json").write_text(json.dumps({"load_generator": generator}))
    return list(read_points([tmp_path]))


def test_runs_of_one_server_that_begin_alike_are_known_to_the_later_ones(tmp_path):
    other = {"engine": {"name": "vllm", "version": "0.15.1", "settings": {"max_num_seqs": 64}}}
    raw = [burst(0, 2000), burst(1, 500, assumed=[]), burst(2, 2000, **other), burst(3, {"uniform": [1, 9]}), burst(4, 128)]

    found = read(tmp_path, *raw)

    assert [len(p.earlier) for p in found] == [0, 0, 0, 0, 1]
    assert found[4].earlier == (found[0].traffic,)
    assert (before := alone(found[4])) is not None
    assert before.traffic == found[0].traffic
    assert not any(p.earlier for p in read(tmp_path, *raw, generator="sglang bench_serving"))


def test_prompts_of_the_runs_begin_alike_and_answers_do_not(tmp_path):
    short = read(tmp_path, burst(0, 2000), burst(1, 128))[1]

    block = RequestBlock.concat(list(traffic_of(short).blocks()))

    first, second = block[:20], block[20:]
    assert list(second.arrival_s - first.arrival_s) == pytest.approx([APART] * 20)
    assert list(first.span_id) == list(second.span_id)
    assert (first.prompt_tokens[0], second.prompt_tokens[0]) == (2000, 128)
    texts: Values = block.out_content
    assert len(set(texts.tolist())) == 40


def test_a_burst_of_known_prompts_is_through_sooner_and_its_figures_are_its_own(tmp_path):
    cold = read(tmp_path, burst(0, 4000))[0]
    again = read(tmp_path, burst(0, 4000), burst(1, 4000))[1]
    unlike = read(tmp_path, burst(0, 4000), burst(1, 4000), generator="own script")[1]

    known, unknown = predict(again), predict(unlike)

    assert predict(cold) == unknown
    assert known["ttft_s.mean"] < 0.3 * unknown["ttft_s.mean"]
    assert known["itl_s.mean"] < 0.5 * unknown["itl_s.mean"]
