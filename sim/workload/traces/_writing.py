"""What writers of trace formats have in common: ids of blocks, and text of a given number of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from sim.workload import content
from sim.workload.table import RequestBlock

HOLDS = ("times", "sessions", "priorities", "adapters", "limits", "prefixes", "waits")
"""What a format may be able to say of requests besides their lengths."""
# Common English words that are one token each, with the blank before, in the tokenizers of Llama, Qwen and GPT: four characters, as estimates count.
_COMMON = """
the and for you not are was but all can had her one our out day get has him his how man new now old see two way who boy did its let put say she too
use any big run car cut eye far few got hot job key law lot low map may men met oil own pay per red sea set sit six
"""
_WORDS = np.array([f" {word}" for word in _COMMON.split()][:64])


def block_ids(block: RequestBlock, size: int) -> Iterator[list[int]]:
    """For every prompt the ids of its blocks: a block's id names its content and all before it; none for a prompt that is its own."""
    off, ids, start, length = (x.tolist() for x in block.spans)
    for row in range(len(block)):
        pieces = [(ids[k], start[k], length[k]) for k in range(off[row], off[row + 1])]
        yield _blocks(pieces, size)


def _blocks(pieces: list[tuple[int, int, int]], size: int) -> list[int]:
    out: list[int] = []
    state, room = hashlib.blake2b(digest_size=8), size
    for number, begin, tokens in pieces:
        while tokens:
            taken = min(tokens, room)
            state.update(b"%d,%d,%d;" % (number, begin, taken))
            begin, tokens, room = begin + taken, tokens - taken, room - taken
            if not room:
                out.append(int.from_bytes(state.digest(), "big") % content.NUMBERS)
                room = size
    if room < size and pieces:
        out.append(int.from_bytes(state.digest(), "big") % content.NUMBERS)
    return out


def prompts(block: RequestBlock) -> Iterator[str]:
    """A text for every prompt: as many words as it has tokens, equal as far as the prompts are."""
    off, ids, start, length = (x.tolist() for x in block.spans)
    own = block.out_content.tolist()
    for row, tokens in enumerate(block.prompt_tokens.tolist()):
        pieces = [(ids[k], start[k], length[k]) for k in range(off[row], off[row + 1])]
        yield "".join(text(*piece) for piece in pieces or [(content.PROMPT + own[row] % content.NUMBERS, 0, tokens)])


def text(number: int, start: int, tokens: int) -> str:
    """``tokens`` words of content ``number`` from its token ``start`` on."""
    with np.errstate(over="ignore"):
        x = (np.arange(start, start + tokens, dtype=np.uint64) ^ np.uint64(number)) * np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(29)
        x *= np.uint64(0xBF58476D1CE4E5B9)
    return "".join(_WORDS[(x >> np.uint64(58)).astype(np.int64)].tolist())
