"""Lengths as someone measured them: a file of pairs, or quantile tables written into the scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from sim.registry import register
from sim.workload.lengths._base import Length, LengthParams, Pairs
from sim.workload.lengths._quantiles import QuantileTable


class EmpiricalParams(LengthParams):
    """Settings of empirical lengths: exactly one of ``path`` and ``quantiles``."""

    path: str | None = Field(
        default=None, description="CSV (gzip allowed) or Parquet file with a column each for prompt and output tokens"
    )
    prompt_column: str | None = Field(
        default=None, description="its column of prompt tokens; found by the usual names when absent"
    )
    output_column: str | None = Field(
        default=None, description="its column of output tokens; found by the usual names when absent"
    )
    quantiles: QuantileTable | None = Field(default=None, description="quantile tables instead of a file")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.quantiles is None):
            raise ValueError("needs exactly one of path and quantiles")
        return self


@register("length")
class Empirical(Length):
    """Pairs drawn with replacement from a file (prompt and output stay together), or drawn from quantile tables."""

    name = "empirical"
    Params = EmpiricalParams
    params: EmpiricalParams

    def __init__(self, params: EmpiricalParams) -> None:
        super().__init__(params)
        self._pairs = None if params.path is None else _read(params)

    @property
    def _quantiles(self) -> QuantileTable:
        table = self.params.quantiles
        assert table is not None, "the settings have one of the two"
        return table

    @property
    def bounds(self) -> tuple[int, int]:
        """The largest values of the data."""
        if self._pairs is None:
            return self._quantiles.bounds
        return int(self._pairs[0].max()), int(self._pairs[1].max())

    def draw(self, rng: np.random.Generator, n: int) -> Pairs:
        """``n`` pairs."""
        if self._pairs is None:
            return self._quantiles.draw(rng, n)
        row = rng.integers(0, len(self._pairs[0]), n)
        return self._pairs[0][row], self._pairs[1][row]


def _read(params: EmpiricalParams) -> Pairs:
    from sim.workload.traces._columns import OUTPUT, PROMPT, csv_pieces, tokens

    wanted = {
        "prompt": PROMPT if params.prompt_column is None else (params.prompt_column,),
        "output": OUTPUT if params.output_column is None else (params.output_column,),
    }
    pieces = list(csv_pieces(Path(str(params.path)), wanted))
    prompt, output = (np.concatenate([tokens(p.source, p[name]) for p in pieces]).astype(np.int64) for name in wanted)
    return prompt, output
