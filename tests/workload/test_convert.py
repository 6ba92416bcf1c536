"""What is written in a format is read as the same traffic by its reader."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim import registry
from sim.errors import ConfigError
from sim.workload import RequestBlock, content
from sim.workload.convert import convert, said, writable
from sim.workload.traces._auto import find, reader
from sim.workload.waits import Waits

EXACT_S = {"azure-2023": 1e-7, "blis": 1e-6, "llmservingsim": 1e-9}
"""Resolution of the times of a format; others keep every digit, or nanoseconds."""


class Given:
    """A trace reader of a block that is there already."""

    def __init__(self, block):
        self.block, self.notes, self.timed = block, [], True

    def pieces(self, _path):
        yield from (self.block[lo : lo + 5] for lo in range(0, len(self.block), 5))


@st.composite
def blocks(draw, waits=False):
    n = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    gaps = rng.choice([0.0, 1e-3, 0.37, 17.25, 1e4], n)
    gaps[0] = 0.0
    prompt, output = rng.integers(1, 200, n), rng.integers(1, 60, n)
    shared = np.where(rng.random(n) < 0.5, np.minimum(rng.integers(0, 100, n), prompt - 1), 0)
    count = 1 + (shared > 0)
    off = np.concatenate([[0], np.cumsum(count)])
    ids, length = np.zeros(off[-1], np.int64), np.zeros(off[-1], np.int64)
    ids[off[1:] - 1], length[off[1:] - 1] = content.PROMPT + np.arange(n), prompt - shared
    ids[off[:-1][shared > 0]], length[off[:-1][shared > 0]] = (
        content.SHARED + rng.integers(0, 2, (shared > 0).sum()),
        shared[shared > 0],
    )
    columns = {
        "session": rng.integers(-1, 4, n), "priority": rng.integers(0, 3, n), "lora": rng.integers(0, 3, n),
        "max_tokens": output + rng.integers(0, 3, n), "spans": (off, ids, np.zeros(off[-1], np.int64), length),
    }  # fmt: skip
    return RequestBlock.of(np.cumsum(gaps), prompt, output, **columns).validate()


@pytest.mark.parametrize("to", writable())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=blocks())
def test_what_is_written_is_read_again(tmp_path, monkeypatch, to, block):
    form = registry.lookup("trace", to)
    file = tmp_path / f"x{form.ends_with}"
    file.unlink(missing_ok=True)
    monkeypatch.setattr("sim.workload.convert.reader", lambda *_: Given(block))
    count, notes = convert(tmp_path / "given", file, to, block_tokens=16)
    again = reader(file, to, {"block_tokens": 16} if to in ("mooncake", "csv") else None)
    back = again.read(file)

    assert count == len(back) == len(block)
    assert back.prompt_tokens.tolist() == block.prompt_tokens.tolist()
    assert back.output_tokens.tolist() == block.output_tokens.tolist()
    if "times" in form.holds:
        np.testing.assert_allclose(back.arrival_s, block.arrival_s, rtol=0, atol=EXACT_S.get(to, 1e-11))
    for name, column in (("sessions", "session"), ("priorities", "priority"), ("adapters", "lora"), ("limits", "max_tokens")):
        if name == "adapters" and name in form.holds:
            assert (back.lora > 0).tolist() == (block.lora > 0).tolist()
        elif name in form.holds:
            assert getattr(back, column).tolist() == getattr(block, column).tolist()
    if to in ("mooncake", "csv"):
        assert common(back, 16) == common(block, 16)
    for name, n in said(block).items():
        assert (f"{to} has no {name}: those of {n:,} requests are not written" in notes) == (n > 0 and name not in form.holds)


def common(block, size):
    """How many whole blocks the first two prompts have in common."""

    def tokens(row):
        pieces = zip(*(x[block.span_off[row] : block.span_off[row + 1]].tolist() for x in block.spans[1:]), strict=True)
        return [(i, p) for i, start, n in pieces for p in range(start, start + n)]

    if len(block) < 2:
        return 0
    return _prefix(tokens(0), tokens(1)) // size


def _prefix(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


@pytest.mark.parametrize("to", [name for name in writable() if name != "guidellm"])
def test_the_format_of_what_is_written_is_found(tmp_path, monkeypatch, to):
    block = RequestBlock.of([0.0, 0.25, 1.5], [40, 50, 60], [7, 8, 9])
    file = tmp_path / "x.txt"
    monkeypatch.setattr("sim.workload.convert.reader", lambda *_: Given(block))
    convert(tmp_path / "given", file, to)

    assert find(file).name == to


def test_requests_that_wait_are_written_where_a_format_can_say_so(tmp_path, monkeypatch):
    block = RequestBlock.of([0.0, 0.0, 0.5, 0.0], [40, 50, 60, 70], [7, 8, 9, 10])
    key, off = block.out_content[[0, 1, 0]], np.array([0, 0, 1, 1, 3])
    block.waits = Waits(np.array([np.nan, 1.5, np.nan, 0.0]), np.array([2, 1, 0, 0], np.int32), off, key)
    monkeypatch.setattr("sim.workload.convert.reader", lambda *_: Given(block))
    with pytest.raises(ConfigError, match="cannot say that requests wait for the answers to others, as these do.*mooncake"):
        convert(tmp_path / "given", tmp_path / "x.csv", "csv")
    convert(tmp_path / "given", tmp_path / "x.jsonl", "mooncake")
    back = reader(tmp_path / "x.jsonl").read(tmp_path / "x.jsonl")

    order = np.lexsort((np.arange(4), block.arrival_s))
    want = block.take(order)
    np.testing.assert_array_equal(back.prompt_tokens, want.prompt_tokens)
    np.testing.assert_array_equal(back.waits.wait_s, want.waits.wait_s)
    np.testing.assert_array_equal(back.waits.awaited, want.waits.awaited)
    place = {k: int(p) for k, p in zip(back.out_content.tolist(), back.prompt_tokens, strict=True)}
    there = {k: int(p) for k, p in zip(want.out_content.tolist(), want.prompt_tokens, strict=True)}
    assert [place[k] for k in back.waits.key.tolist()] == [there[k] for k in want.waits.key.tolist()]
