"""A KV cache does not outlive its process: what a restarted engine is sent must be text that it has never seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sim.workload.table import RequestBlock

_TEXT_BITS: Final = 44
_STARTS: Final = 1 << 15
"""Of a content id's 60 bits (`sim.workload.content`): the text's number, the number of the start above it."""


def shift_of(start: int) -> int:
    """What is added to the content ids."""
    return (start % _STARTS) << _TEXT_BITS


def unseen(block: RequestBlock, row: int, start: int) -> tuple[RequestBlock, int]:
    """The request as (block, row) for an engine that was started ``start`` times before: its texts are new there, equal among themselves."""
    if start == 0 or not block.span_id.size:
        return block, row
    one = block[row : row + 1]
    shift = shift_of(start)
    return replace(one, span_id=one.span_id + shift, out_content=one.out_content + shift), 0
