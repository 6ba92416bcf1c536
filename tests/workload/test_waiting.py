import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import DataError
from sim.workload.traces._auto import reader
from sim.workload.traces._source import Source
from sim.workload.traces._waiting import WaitingRows

maybe = st.one_of(st.none(), st.integers(0, 50).map(float))
row = st.tuples(maybe, maybe, st.integers(-1, 3))


@given(st.lists(st.lists(row, min_size=1, max_size=8), min_size=1, max_size=4))
def test_pieces_wait_as_rows_do_one_by_one(pieces):
    alone, together = WaitingRows(), WaitingRows()
    for piece in pieces:
        at, wait, session = (np.array([np.nan if x is None else x for x in column]) for column in zip(*piece, strict=True))
        wrong, problem = together.add_all(at, wait, session.astype(np.int64))
        for k, (a, w, s) in enumerate(piece):
            said = alone.add(a, w, s)
            if said:
                assert (wrong, problem) == (k, said)
                return
        assert wrong == -1
    for name in ("starts", "waits", "counts", "parents"):
        np.testing.assert_array_equal(np.array(getattr(alone, name)), np.array(getattr(together, name)))
    assert alone._last == together._last


def rows(tmp_path, *objects):
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, objects)))
    return file


@pytest.mark.parametrize("later", [{"timestamp": 1000}, {"delay": 500}])
def test_turns_that_hold_only_what_they_add_are_put_together(tmp_path, later):
    lengths = [(100, 5), (50, 6), (20, 7)]
    talk = [
        {"session_id": "a", "input_length": p, "output_length": o, **(later if k else {"timestamp": 0})}
        for k, (p, o) in enumerate(lengths)
    ]
    file = rows(tmp_path, talk[0], {"timestamp": 10, "input_length": 70, "output_length": 5}, *talk[1:])
    whole = reader(file, "mooncake").read(file)
    block = reader(file, "mooncake", {"context": "accumulate"}).read(file).validate()
    mine = block.where(block.session >= 0)

    assert sorted(whole.prompt_tokens.tolist()) == [20, 50, 70, 100]
    assert mine.prompt_tokens.tolist() == [100, 100 + 5 + 50, 155 + 6 + 20]
    assert block.where(block.session < 0).prompt_tokens.tolist() == [70]
    assert mine.span_len[mine.span_off[2] :].tolist() == [100, 5, 50, 6, 20]
    assert mine.span_id[mine.span_off[2] + 1] == mine.out_content[0]
    np.testing.assert_array_equal(block.arrival_s, whole.arrival_s)
    assert (block.waits is None) == ("timestamp" in later)


def test_prompts_that_say_how_long_they_are(tmp_path):
    file = rows(
        tmp_path, {"prompt": "a b", "prompt_len": 17, "expected_output_len": 9}, {"prompt": "c d e f g", "output_tokens": 3}
    )
    made = reader(file)
    block = made.read(file)

    assert (made.name, block.prompt_tokens.tolist(), block.output_tokens.tolist()) == ("vllm-custom", [17, 3], [9, 3])


@pytest.mark.parametrize("context", ["whole", "accumulate"])
@pytest.mark.parametrize("delays", ["wait", "after_arrival"])
def test_turns_may_have_their_first_delay_in_a_later_piece_of_the_file(tmp_path, monkeypatch, delays, context):
    rows = [{"timestamp": 500 + k, "session_id": k, "input_length": 10, "output_length": 5} for k in range(40)]
    later = {"session_id": 100, "input_length": 20, "output_length": 5}
    rows += [{"timestamp": 600, **later}, {"delay": 50, **later}]
    rows += [
        {"delay": 7, "session_id": k, "input_length": 30, "output_length": 5} for k in range(3)
    ]  # after turns of another piece
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read():
        return reader(file, "mooncake", {"context": context, "delays": delays}).read(file).validate()

    whole, pieces = read(), Source.pieces
    monkeypatch.setattr(Source, "pieces", lambda self, size=1500: pieces(self, size))
    cut = read()
    assert len(cut) == len(whole) == 45
    for name in ("prompt_tokens", "session", "arrival_s"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), atol=1e-12)
    assert (cut.waits is None) == (whole.waits is None) == (delays != "wait")
    if delays == "after_arrival":
        later = [x for k in range(3) for x in whole.arrival_s[whole.session == k].tolist()]
        np.testing.assert_allclose(later, [0, 0.007, 0.001, 0.008, 0.002, 0.009], atol=1e-12)
    if whole.waits is not None:
        np.testing.assert_array_equal(cut.waits.wait_s, whole.waits.wait_s)
        np.testing.assert_array_equal(cut.waits.key, whole.waits.key)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"timestamp": -250}, r"line 2, column 'timestamp': must not be negative \(got -250"),
        ({"delay": -3}, r"line 2, column 'delay': must not be negative \(got -3"),
    ],
)
def test_a_negative_time_is_shown_as_the_file_has_it(tmp_path, wrong, said):
    rows = [{"timestamp": 0, "session_id": 1}, {"session_id": 1} | wrong, {"delay": -70, "session_id": 1}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"input_length": 10, "output_length": 5} | row) + "\n" for row in rows))
    if "timestamp" in wrong:
        file.write_text(file.read_text().replace("-70", "70"))
    with pytest.raises(DataError, match=said):
        reader(file, "mooncake").read(file)
