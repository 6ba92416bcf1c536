"""Fits a length distribution to a trace and writes it as a profile.

``python -m sim.workload.fit TRACE.csv.gz OUT.yaml --name azure-2023-conv --source … --licence …`` made the files in
``profiles/traffic``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sim.workload.recorded import natural_rate
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.document import Json

_TAIL = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004)
PROBABILITIES = (0.0, *_TAIL, *(round(0.005 * i, 3) for i in range(1, 200)), *(1 - p for p in reversed(_TAIL)), 1.0)
"""Every half per cent, finer in the tails: the tables reproduce a trace's distribution within half a per cent of probability."""


def fit_lengths(prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> dict[str, Json]:
    """The settings of a `QuantileTable`: both quantile functions and the Spearman rank correlation."""
    from scipy.stats import spearmanr

    prompt, output = np.asarray(prompt_tokens), np.asarray(output_tokens)
    return {
        "p": [round(p, 4) for p in PROBABILITIES],
        "prompt_tokens": np.quantile(prompt, PROBABILITIES, method="inverted_cdf").tolist(),
        "output_tokens": np.quantile(output, PROBABILITIES, method="inverted_cdf").tolist(),
        "rank_correlation": round(float(spearmanr(prompt, output).statistic), 4),
    }


def fit_profile(block: RequestBlock, name: str, source: str, licence: str) -> dict[str, Json]:
    """A profile of a trace: where it is from, what its arrivals are like, its lengths."""
    gaps = np.diff(block.arrival_s)
    return {
        "name": name,
        "source": source,
        "licence": licence,
        "evidence": "fitted",
        "requests": len(block),
        "prompt_mean": round(float(block.prompt_tokens.mean()), 1),
        "output_mean": round(float(block.output_tokens.mean()), 1),
        "arrivals": {"rate_per_s": round(natural_rate(block), 3), "cv": round(float(gaps.std() / gaps.mean()), 2)},
        "quantiles": fit_lengths(block.prompt_tokens, block.output_tokens),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read a trace, write a profile."""
    import yaml

    from sim.workload.traces.plain_csv import CsvParams, PlainCsv

    parser = argparse.ArgumentParser(description="Fit a length distribution to a CSV trace.")
    parser.add_argument("trace", type=Path)
    parser.add_argument("out", type=Path)
    for option in ("--name", "--source", "--licence"):
        parser.add_argument(option, required=True)
    given = parser.parse_args(arguments)
    profile = fit_profile(PlainCsv(CsvParams()).read(given.trace), given.name, given.source, given.licence)
    text = yaml.safe_dump(profile, sort_keys=False, default_flow_style=None, width=130)
    given.out.write_text(f"# Made by python -m sim.workload.fit; do not edit.\n{text}", "utf-8")


if __name__ == "__main__":
    main()
