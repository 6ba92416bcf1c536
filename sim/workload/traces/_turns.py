"""Conversations: turns with what was said before, put in order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from sim.workload import content
from sim.workload.table import Given, RequestBlock
from sim.workload.waits import Waits

Span = tuple[int, int, int]
"""(content id, start, length)"""


@dataclass
class Request:
    """One request before it is a row: ``spans`` of its prompt (empty: content that nobody shares)."""

    arrival_s: float
    prompt: int
    output: int
    session: int = -1
    spans: Sequence[Span] = ()
    out_content: int | None = None
    priority: int = 0
    wait: float | None = None
    """Seconds after the answer to the request before it in the list; None: it is sent at its time."""


@dataclass
class Talk:
    """A conversation as it grows: everything said so far as spans; messages of equal text are equal content."""

    said: list[Span] = field(default_factory=list)
    tokens: int = 0

    def add(self, number: int, tokens: int) -> None:
        """A message with content id ``number``."""
        if tokens > 0:
            self.said.append((number, 0, tokens))
            self.tokens += tokens


def block_of(requests: Sequence[Request], sort: bool = True) -> RequestBlock:
    """The requests as a block, in order of arrival (stable) from the first one."""
    order = sorted(range(len(requests)), key=lambda i: requests[i].arrival_s) if sort else range(len(requests))
    rows = [requests[i] for i in order]
    spans = [merged(r.spans) for r in rows]
    counts = [len(s) for s in spans]
    flat = [piece for s in spans for piece in s]
    ids, start, length = (np.array([piece[k] for piece in flat], np.int64) for k in range(3))
    off = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    arrival = np.array([r.arrival_s for r in rows], np.float64)
    own = content.OUTPUT + np.arange(len(rows))
    columns: Given = {
        "session": np.array([r.session for r in rows], np.int64),
        "priority": np.array([r.priority for r in rows], np.int32),
        "out_content": np.array([own[i] if r.out_content is None else r.out_content for i, r in enumerate(rows)], np.int64),
        "spans": (off, ids, start, length),
        "waits": _waits(requests, order, own),
    }
    return RequestBlock.of(
        arrival - (arrival[0] if len(arrival) else 0.0), [r.prompt for r in rows], [r.output for r in rows], **columns
    )


def gathered(requests: Iterable[Request], many: int = 1 << 14) -> RequestBlock:
    """The requests, none of which waits for another, as they come: their arrivals are those given. Only ``many`` are ever held one by one."""
    blocks: list[RequestBlock] = []
    each, first = iter(requests), 0
    while some := list(islice(each, many)):
        block = block_of(some, sort=False)
        block.arrival_s = block.arrival_s + some[0].arrival_s
        block.out_content = block.out_content + first
        first += len(some)
        blocks.append(block)
    return RequestBlock.concat(blocks)


def _waits(requests: Sequence[Request], order: Sequence[int], own: NDArray[np.int64]) -> Waits | None:
    """Of the requests in this order, of which each may wait for the one before it in the list."""
    if all(r.wait is None for r in requests):
        return None
    place = {i: row for row, i in enumerate(order)}
    content_of = [own[place[i]] if r.out_content is None else r.out_content for i, r in enumerate(requests)]
    later = np.array([requests[i].wait is not None for i in order])
    awaited = np.array([i + 1 < len(requests) and requests[i + 1].wait is not None for i in order], np.int32)
    wait = np.array([np.nan if (w := requests[i].wait) is None else w for i in order])
    key = np.array([content_of[i - 1] for i in order if requests[i].wait is not None], np.int64)
    return Waits(wait, awaited, np.concatenate([[0], np.cumsum(later)]).astype(np.int64), key)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Canonical spans: pieces of one content that continue each other are one."""
    out: list[Span] = []
    for number, start, length in spans:
        if out and out[-1][0] == number and out[-1][1] + out[-1][2] == start:
            out[-1] = (number, out[-1][1], out[-1][2] + length)
        else:
            out.append((number, start, length))
    return out


def accumulated(block: RequestBlock) -> RequestBlock:
    """The requests with all that was said in their session before in front of their prompts; rows of a session are in its order."""
    off, ids, start, length = (x.tolist() for x in block.spans)
    own, outputs, prompts = block.out_content.tolist(), block.output_tokens.tolist(), block.prompt_tokens.tolist()
    talks: dict[int, Talk] = {}
    spans: list[list[Span]] = []
    for row, session in enumerate(block.session.tolist()):
        mine = [(ids[k], start[k], length[k]) for k in range(off[row], off[row + 1])]
        mine = mine or [(content.PROMPT + own[row] % content.NUMBERS, 0, prompts[row])]
        talk = talks.setdefault(session, Talk()) if session >= 0 else Talk()
        for piece in mine:
            talk.said.append(piece)
            talk.tokens += piece[2]
        spans.append(merged(talk.said))
        prompts[row] = talk.tokens
        talk.add(own[row], outputs[row])
    flat = np.array([piece for s in spans for piece in s], np.int64).reshape(-1, 3)
    counts = np.array([len(s) for s in spans])
    return block.with_prompts(prompts, (np.concatenate([[0], np.cumsum(counts)]), flat[:, 0], flat[:, 1], flat[:, 2]))


def by_arrival(block: RequestBlock) -> RequestBlock:
    """A block in order of arrival, from the first one."""
    made = block.take(np.argsort(block.arrival_s, kind="stable"))
    made.arrival_s = made.arrival_s - (made.arrival_s[0] if len(made) else 0.0)
    return made
