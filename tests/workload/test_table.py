"""Blocks of requests: slices, joins, and what is refused."""

import numpy as np
import pytest

from sim.errors import DataError
from sim.workload.table import RequestBlock, reblock
from tests.workload.conftest import as_bytes


def block_with_spans(rows=7):
    counts = np.arange(rows) % 3
    off = np.concatenate([[0], np.cumsum(counts)])
    spans = (off, np.arange(off[-1]) + 5, np.zeros(off[-1]), np.full(off[-1], 10))
    return RequestBlock.of(np.arange(rows), np.maximum(counts, 1) * 10, np.full(rows, 3), spans=spans).validate()


def test_a_block_is_the_join_of_its_slices():
    block = block_with_spans()

    for cut in range(len(block) + 1):
        assert as_bytes(block) == as_bytes(RequestBlock.concat([block[:cut].validate(), block[cut:].validate()]))


def test_rows_are_chosen_with_their_spans():
    block = block_with_spans()
    keep = np.array([True, False, True, True, False, False, True])

    want = RequestBlock.concat([block[i : i + 1] for i in np.flatnonzero(keep)])
    assert as_bytes(block.where(keep).validate()) == as_bytes(want)


def test_a_slice_shares_its_columns():
    block = block_with_spans()

    assert np.shares_memory(block[2:5].prompt_tokens, block.prompt_tokens)
    assert np.shares_memory(block[2:5].span_id, block.span_id)
    with pytest.raises(ValueError, match="steps of 1"):
        block[::2]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_reblocking_changes_nothing_but_the_cuts(rows):
    block = block_with_spans()
    pieces = list(reblock([block[:3], block[3:4], block[4:]], rows))

    assert as_bytes(block) == as_bytes(RequestBlock.concat(pieces))
    assert [rows] * (7 // rows) + [7 % rows] * (7 % rows > 0) == [len(p) for p in pieces]


def test_a_client_limit_ends_long_outputs():
    block = RequestBlock.of([0, 1], [5, 5], [10, 90]).limited(50).validate()

    assert block.output_tokens.tolist() == [10, 50]
    assert block.max_tokens.tolist() == [50, 50]


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("arrival_s", [1.0, 0.0], "backwards"),
        ("arrival_s", [np.nan, 1.0], "finite"),
        ("arrival_s", [-1.0, 1.0], "at least 0"),
        ("prompt_tokens", [0, 1], r"row 0, column 'prompt_tokens': must be in \[1, "),
        ("output_tokens", [1, 0], "row 1"),
        ("max_tokens", [1, 0], "at least output_tokens"),
        ("span_off", [0, 1, 2], "number of spans"),
    ],
)
def test_a_broken_promise_is_named(column, value, rule):
    block = RequestBlock.of([0, 1], [5, 5], [1, 1])
    setattr(block, column, np.array(value, getattr(block, column).dtype))

    with pytest.raises(DataError, match=rule):
        block.validate()


def test_spans_must_fill_the_prompt_and_be_merged():
    with pytest.raises(DataError, match="add up"):
        RequestBlock.of([0], [5], [1], spans=([0, 1], [7], [0], [4])).validate()
    with pytest.raises(DataError, match="merged"):
        RequestBlock.of([0], [5], [1], spans=([0, 2], [7, 7], [0, 2], [2, 3])).validate()
    RequestBlock.of([0], [5], [1], spans=([0, 2], [7, 7], [0, 3], [2, 3])).validate()
