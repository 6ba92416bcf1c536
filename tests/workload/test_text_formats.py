"""AIBrix workloads, batch files, instruction data: what is read and what is refused."""

import json

import pytest

from sim.errors import DataError, NotModelledError
from sim.workload import build_traffic
from tests.workload.conftest import whole


@pytest.fixture
def load(tmp_path):
    def make(name, text, timed=False, **settings):
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else "\n".join(json.dumps(row) for row in text) + "\n")
        section = {"path": str(path), "settings": settings}
        if not timed:
            section["arrival"] = {"process": "constant", "rate": 1}
        traffic = build_traffic({"trace": section})
        return whole(traffic), traffic.notes

    return make


AIBRIX = [
    {"timestamp": 0, "requests": [{"prompt": "abcd" * 10, "prompt_length": 12, "output_length": 7, "session_id": 4}]},
    {
        "timestamp": 1500,
        "requests": [
            {"prompt": "abcd" * 10, "prompt_length": None, "output_length": None, "session_id": 4},
            {"prompt_length": 33, "output_length": 2},
        ],
    },
]


def test_aibrix(load):
    block, notes = load("w.jsonl", AIBRIX, timed=True)
    assert "read as aibrix" in notes[0]
    assert block.arrival_s.tolist() == [0, 1.5, 1.5]
    assert block.prompt_tokens.tolist() == [12, 10, 33]
    assert block.output_tokens.tolist() == [7, 128, 2]
    assert block.session.tolist() == [4, 4, -1]
    assert block.span_id[0] == block.span_id[1]
    assert any("128 tokens where output_length is null" in n for n in notes)
    for broken, wrong in (
        ({"timestamp": -1, "requests": []}, "timestamp"),
        ({"timestamp": 0, "requests": [{"output_length": 3}]}, "prompt_length"),
        ({"timestamp": 0, "requests": [{"prompt_length": 1.5}]}, "prompt_length"),
        ({"timestamp": 0, "requests": [3]}, r"requests\[0\]"),
    ):
        with pytest.raises(DataError, match=wrong):
            load("w.jsonl", [AIBRIX[0], broken], timed=True)


def batch(body, url="/v1/chat/completions"):
    return {"custom_id": "1", "method": "POST", "url": url, "body": {"model": "m"} | body}


def test_openai_batch(load):
    system = {"role": "system", "content": "s" * 80}
    rows = [
        batch({"messages": [system, {"role": "user", "content": "u" * 40}], "max_tokens": 50}),
        batch({"messages": [system, {"role": "user", "content": [{"type": "text", "text": "v" * 20}]}]}),
        batch({"prompt": "p" * 8, "max_completion_tokens": 5}, "/v1/completions"),
    ]
    block, notes = load("b.jsonl", rows)
    assert "read as openai-batch" in notes[0]
    assert block.prompt_tokens.tolist() == [30, 25, 2]
    assert block.output_tokens.tolist() == [50, 256, 5]
    assert block.span_id[0] == block.span_id[2]
    with pytest.raises(NotModelledError, match="image_url"):
        load("b.jsonl", [batch({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})])
    with pytest.raises(NotModelledError, match="embeddings"):
        load("b.jsonl", [batch({"input": "x"}, "/v1/embeddings")])


def test_instructions(load):
    alpaca = [
        {"instruction": "i" * 40, "input": "", "output": "o" * 12},
        {"instruction": "j" * 39, "input": "x" * 40, "output": "o"},
    ]
    block, notes = load("a.json", json.dumps(alpaca))
    assert "read as alpaca" in notes[0]
    assert block.prompt_tokens.tolist() == [10, 20]
    assert block.output_tokens.tolist() == [3, 1]
    wrapped, _ = load("a.json", json.dumps(alpaca), template="alpaca")
    assert (wrapped.prompt_tokens > 40).all()
    dolly = [
        {"instruction": "why", "context": "c" * 21, "response": "r" * 8, "category": "qa"},
        {"instruction": "x", "response": ""},
    ]
    block, notes = load("d.jsonl", dolly)
    assert block.prompt_tokens.tolist() == [7]
    assert any("1 rows without an answer" in n for n in notes)
