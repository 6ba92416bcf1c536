"""Several questions asked side by side: their trials go out in one list, so that they run in parallel."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

from sim.study.base import Outcome, Trial

T = TypeVar("T")
Part = Generator[Sequence[Trial], list[Outcome], T]


def together(parts: Sequence[Part[T]]) -> Part[list[T]]:
    """The answers of all parts, in order; each part sees only the outcomes of its own trials."""
    answers: dict[int, T] = {}
    asked: dict[int, Sequence[Trial]] = {}
    for i, part in enumerate(parts):
        _step(i, part, None, asked, answers)
    while asked:
        order = sorted(asked)
        outcomes = yield [trial for i in order for trial in asked[i]]
        at = 0
        for i in order:
            mine = outcomes[at : at + len(asked[i])]
            at += len(asked[i])
            _step(i, parts[i], mine, asked, answers)
    return [answers[i] for i in range(len(parts))]


def _step(
    i: int, part: Part[T], outcomes: list[Outcome] | None, asked: dict[int, Sequence[Trial]], answers: dict[int, T]
) -> None:
    try:
        asked[i] = next(part) if outcomes is None else part.send(outcomes)
    except StopIteration as done:
        asked.pop(i, None)
        answers[i] = done.value
