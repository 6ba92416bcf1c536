"""The prompt of one row of a request block as spans."""

from __future__ import annotations

from sim.policy.requests import Requests


def spans_of(block: Requests, row: int) -> list[tuple[int, int, int]]:
    """(content id, start, length) of each piece; empty where the content is nobody else's."""
    lo, hi = int(block.span_off[row]), int(block.span_off[row + 1])
    if lo == hi:
        return []
    ids, starts, lengths = block.span_id[lo:hi], block.span_start[lo:hi], block.span_len[lo:hi]
    return list(zip(ids.tolist(), starts.tolist(), lengths.tolist(), strict=True))
