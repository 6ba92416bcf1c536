"""What a server had served before the run that was measured: its prefix cache still holds that.

``vllm bench serve --dataset-name random`` makes the k-th prompt of tokens ``(offset_k + k + i) % vocabulary`` (`vllm/benchmarks/datasets.py`,
`RandomDataset`) and draws the offsets from a generator that each run seeds alike. Where all prompts of a run have one length, lengths draw
nothing from it. So the k-th prompt of a run begins as the k-th prompts of all other such runs do: runs of other lengths against one server meet
blocks that the longer ones left. gpt-oss-20b on A100 shows it: of 1,000 prompts of 128 tokens behind 500 of 2,000, one half has its first token
within 2.0 s, the other half takes 3.3 s more; tokens come 47 ms apart at the median and 102 ms at p99.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sim.workload import content
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.study.accuracy.point import Point, Told

APART = 86400.0
"""Seconds between runs against one server: more than any of them takes. What happens in between does not matter, as nothing does."""

_RANDOM = re.compile(r"random prompts of \d+ tokens")


def behind_others(points: Iterable[Point]) -> Iterator[Point]:
    """The points of one folder, with the runs that came before each of them at the same server (`Point.earlier`), as far as their prompts
    are the same: bursts of random prompts by ``vllm bench serve``, in the order of the file.
    """
    served: dict[str, list[Told]] = {}
    for point in points:
        if not _same_prompts(point):
            yield point
            continue
        server = repr(
            (point.engine, point.version, sorted(point.settings.items()), point.tp, point.pp, point.dp, point.ep, point.nodes)
        )
        before = served.setdefault(server, [])
        yield replace(point, earlier=tuple(before)) if before else point
        before.append(point.traffic)


def _same_prompts(point: Point) -> bool:
    one_length = isinstance(point.traffic.get("prompt_tokens"), int | float) and point.traffic["kind"] == "burst"
    return one_length and point.generator.startswith("vllm bench serve") and any(map(_RANDOM.match, point.assumed))


def in_turn(runs: Sequence[RequestBlock]) -> RequestBlock:
    """All requests of runs against one server; the k-th prompts of the runs begin alike, answers are texts of their own."""
    blocks: list[RequestBlock] = []
    for number, run in enumerate(runs):
        prompt, k = run.prompt_tokens.astype(np.int64), np.arange(len(run))
        spans = np.arange(len(run) + 1), content.PROMPT + k, np.zeros_like(k), prompt
        first = sum(map(len, blocks))
        blocks.append(RequestBlock.of(run.arrival_s + number * APART, prompt, run.output_tokens, first, spans=spans))
    return RequestBlock.concat(blocks)


def begins(point: Point) -> float:
    """Seconds at which the measured run begins."""
    return len(point.earlier) * APART


def alone(point: Point) -> Point | None:
    """What the server had served before, as the measured run of it; None where nothing is known of that."""
    return replace(point, traffic=point.earlier[-1], earlier=point.earlier[:-1]) if point.earlier else None
