"""What a length distribution is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.errors import ConfigError
from sim.guard import Guard
from sim.workload import answers
from sim.workload.settings import Params
from sim.workload.table import BLOCK_ROWS, MAX_TOKENS

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Prompt and output tokens of the same requests."""

_SMALLEST_SHARE = 0.001


class LengthParams(Params):
    """Settings that every distribution has: requests beyond the limits are drawn again."""

    max_prompt_tokens: int | None = Field(default=None, ge=1, description="draw again when the prompt is longer")
    max_total_tokens: int | None = Field(
        default=None,
        ge=2,
        description="draw again when prompt + output is longer, such as the context length that the server allows",
    )


class Length:
    """How long prompts and outputs are. Subclasses are registered with ``@register("length")`` and carry ``name`` and ``Params``.

    A subclass draws pairs (`draw`) and knows the largest values it can draw (`bounds`); the limits of `LengthParams` are
    applied here.
    """

    name: ClassVar[str]
    Params: ClassVar[type[LengthParams]] = LengthParams

    guards: ClassVar[Mapping[str, Guard]] = {"draw": Guard(answers.pairs, limited=True)}
    """How a distribution of one's own is watched (`sim.guard`)."""

    def __init__(self, params: LengthParams) -> None:
        self.params = params

    def draw(self, rng: np.random.Generator, n: int) -> Pairs:
        """``n`` independent pairs, each value in [1, `MAX_TOKENS`]."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[int, int]:
        """Largest prompt and largest output that `draw` can return."""
        return MAX_TOKENS, MAX_TOKENS

    @property
    def largest_prompt(self) -> int | None:
        """No prompt is longer than this; None when unbounded."""
        limits = [self.bounds[0], self.params.max_prompt_tokens, self.params.max_total_tokens]
        best = min(x for x in limits if x is not None)
        return None if best >= MAX_TOKENS else best

    @property
    def largest_total(self) -> int | None:
        """Prompt + output is never longer than this; None when unbounded."""
        prompt = self.largest_prompt
        limits = [self.params.max_total_tokens, None if prompt is None else prompt + self.bounds[1]]
        best = min((x for x in limits if x is not None), default=MAX_TOKENS)
        return None if best >= MAX_TOKENS else best

    def within(self, max_total_tokens: int) -> Length:
        """The same distribution with prompt + output limited (further)."""
        limits = [x for x in (self.params.max_total_tokens, max_total_tokens) if x is not None]
        return type(self)(self.params.model_copy(update={"max_total_tokens": min(limits)}))

    def pairs(self, rng: np.random.Generator) -> Iterator[Pairs]:
        """Endless chunks of `BLOCK_ROWS` pairs within the limits.

        Raises `ConfigError` when fewer than one draw in a thousand is within them.
        """
        prompts: list[NDArray[np.int64]] = []
        outputs: list[NDArray[np.int64]] = []
        have = tried = kept = 0
        while True:
            while have < BLOCK_ROWS:
                prompt, output = self._within(*self.draw(rng, BLOCK_ROWS))
                tried, kept, have = tried + BLOCK_ROWS, kept + len(prompt), have + len(prompt)
                if kept < tried * _SMALLEST_SHARE:
                    limits = self.params.model_dump(include={"max_prompt_tokens", "max_total_tokens"}, exclude_none=True)
                    raise ConfigError(
                        "traffic.synthetic.lengths", limits, f"{self.name} hardly ever draws lengths within the limits"
                    )
                prompts.append(prompt)
                outputs.append(output)
            prompt, output = np.concatenate(prompts), np.concatenate(outputs)
            yield prompt[:BLOCK_ROWS], output[:BLOCK_ROWS]
            prompts, outputs, have = [prompt[BLOCK_ROWS:]], [output[BLOCK_ROWS:]], have - BLOCK_ROWS

    def _within(self, prompt: NDArray[np.int64], output: NDArray[np.int64]) -> Pairs:
        keep = np.ones(len(prompt), bool)
        if self.params.max_prompt_tokens is not None:
            keep &= prompt <= self.params.max_prompt_tokens
        if self.params.max_total_tokens is not None:
            keep &= prompt + output <= self.params.max_total_tokens
        return (prompt, output) if keep.all() else (prompt[keep], output[keep])


class PairReader:
    """Takes any number of pairs at a time from `Length.pairs`; the pairs do not depend on how many are taken at once."""

    def __init__(self, length: Length, rng: np.random.Generator) -> None:
        self._chunks = length.pairs(rng)
        self._held: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64))

    def take(self, n: int) -> Pairs:
        """The next ``n`` pairs."""
        prompts, outputs = [self._held[0]], [self._held[1]]
        have = len(self._held[0])
        while have < n:
            prompt, output = next(self._chunks)
            prompts.append(prompt)
            outputs.append(output)
            have += len(prompt)
        prompt, output = np.concatenate(prompts), np.concatenate(outputs)
        self._held = prompt[n:], output[n:]
        return prompt[:n], output[:n]
