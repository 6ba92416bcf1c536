"""Requests with images: tokens that an encoder makes, beside those of the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.ledger import Values
from sim.workload import content
from sim.workload.base import Traffic
from sim.workload.changed import ChangedTraffic
from sim.workload.labels import Draw
from sim.workload.table import MAX_TOKENS, RequestBlock

PER_REQUEST = 1 << 10
"""Most images of one request."""


def with_images(block: RequestBlock, images: Values, tokens: int) -> RequestBlock:
    """The requests with ``images`` [n] more images each, of so many tokens, in front of the last piece of their prompt. Nobody shares an image."""
    if not images.any():
        return block
    off, ids, start, length = block.spans
    none = np.diff(off) == 0
    number = block.out_content % content.NUMBERS
    # a prompt that is its own gets a piece for its text
    at = np.insert(np.arange(len(ids)), off[:-1][none], -1)
    text = np.repeat(np.arange(len(block)), np.diff(off) + none)
    own = at < 0
    ids = np.where(own, content.PROMPT + number[text], ids[at] if len(ids) else 0)
    start = np.where(own, 0, start[at] if len(start) else 0)
    length = np.where(own, block.prompt_tokens[text], length[at] if len(length) else 0)
    last = np.cumsum(np.diff(off) + none) - 1
    place = np.repeat(last, images)
    row = np.repeat(np.arange(len(block)), images)
    rank = np.arange(len(row)) - np.repeat(np.cumsum(images) - images, images)
    new = content.IMAGE + (number[row] * PER_REQUEST + rank) % content.NUMBERS
    spans = (
        np.concatenate([[0], np.cumsum(np.diff(off) + none + images)]), np.insert(ids, place, new), np.insert(start, place, 0),
        np.insert(length, place, tokens),
    )  # fmt: skip
    prompt = np.minimum(block.prompt_tokens.astype(np.int64) + images * tokens, MAX_TOKENS)
    return block.with_prompts(prompt, spans)


class ImageTraffic(ChangedTraffic):
    """Another traffic in which a share of the requests have images besides."""

    def __init__(self, inner: Traffic, draw: Draw, count: int, tokens: int) -> None:
        super().__init__(inner)
        self._draw, self._count, self._tokens = draw, count, tokens
        self.images = True
        more = count * tokens
        self.max_prompt_tokens = None if inner.max_prompt_tokens is None else inner.max_prompt_tokens + more
        self.max_tokens = None if inner.max_tokens is None else inner.max_tokens + more

    def _changed(self, block: RequestBlock) -> RequestBlock:
        return with_images(block, self._draw(block) * self._count, self._tokens)

    def _around(self, inner: Traffic) -> Traffic:
        return ImageTraffic(inner, self._draw, self._count, self._tokens)

    def _up_to(self, max_total_tokens: int) -> Traffic:
        return super()._up_to(max_total_tokens - self._count * self._tokens)


def imaged(traffic: Traffic, section: Mapping[str, Any], seed: int) -> Traffic:
    """The traffic with the images of its section (``{share, count, tokens}``, validated)."""
    share = float(section.get("share", 1.0))
    if not share:
        return traffic
    draw = Draw(seed, "images", [0, 1], [1.0 - share, share])
    return ImageTraffic(traffic, draw, int(section.get("count", 1)), int(section["tokens"]))
