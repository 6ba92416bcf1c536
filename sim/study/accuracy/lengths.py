"""Lengths of an operating point: a number, a range, a data set of which only the mean is known, or answers that end by themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.errors import NotModelledError
from sim.study.accuracy.point import Lengths

# ShareGPT V3 as `vllm bench serve` samples it (prompts of 4 to 1,024 tokens, together at most 2,048): log-normal within those limits,
# scaled to the mean that the run reports. Spread (sigma of the logarithm) of prompts estimated from published histograms, of outputs as the answers
# that DistServe's runs replay (300 requests: a tenth below 9 tokens, half below 67, a tenth above 478; sigma 1.59 to 1.66).
_SHAREGPT = {"prompt": (1.4, 1024), "output": (1.6, 1024)}

# Test sets of questions under AISBench (vllm-ascend, suffix decoding): answers are so alike that clients march in rounds. Of 32 clients with 100
# requests 78 % are busy on average (output × TPOT by duration), of 16 86 %, of 15 to 34 with 96 to 100 % in full rounds 96 to 102 %. Prompts estimated.
_QUESTIONS = {"prompt": (0.5, 1024), "output": (0.05, 4096)}
_SHAPES = {
    "sharegpt": _SHAREGPT,
    "gsm8k": {**_QUESTIONS, "prompt": (0.4, 512)},
    **dict.fromkeys(("superglue-boolq", "humaneval", "arc", "agieval"), _QUESTIONS),
}


def draw(spec: float | Lengths, n: int, rng: np.random.Generator, role: str) -> NDArray[np.int32]:
    """i4[n]. ``role``: prompt or output. Raises `NotModelledError` for a data set whose shape is not known."""
    if isinstance(spec, int | float):
        return np.full(n, int(spec), np.int32)
    if "uniform" in spec:
        low, high = spec["uniform"]
        return rng.integers(int(low), int(high) + 1, n).astype(np.int32)
    if spec.get("trace") in _SHAPES and spec.get("mean"):
        return _lognormal(float(spec["mean"]), n, rng, *_SHAPES[spec["trace"]][role])
    if "most" in spec and spec.get("mean"):
        if spec.get("spread"):
            return _lognormal(float(spec["mean"]), n, rng, spec["spread"], int(spec["most"]))
        return _ended(float(spec["mean"]), int(spec["most"]), n, rng)
    raise NotModelledError(
        "traffic lengths",
        spec,
        "only the name of a data set is known, not its lengths",
        ", ".join(["a number, uniform", *_SHAPES]),
    )


def _lognormal(mean: float, n: int, rng: np.random.Generator, sigma: float, most: int) -> NDArray[np.int32]:
    """Log-normal between 4 and ``most``, with the wanted mean: the scale is found by bisection on the same draws."""
    shape = np.exp(sigma * rng.standard_normal(n))
    low, high = 1e-2, 1e5
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if np.clip(middle * shape, 4, most).mean() < mean else (low, middle)
    return np.clip(np.rint(low * shape), 4, most).astype(np.int32)


def _ended(mean: float, most: int, n: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Answers of 1 to ``most`` tokens with the wanted mean, of which nothing else is known: the distribution of largest entropy.

    That is an exponential within the limits. Its quantiles are taken evenly and shuffled, as a burst of a few answers must be as unlike as so many are.
    """
    share = rng.permutation((np.arange(n) + 0.5) / n)
    low, high = -50.0, 50.0  # of the rate, in widths of the range
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _between(share, middle, most).mean() > mean else (low, middle)
    return np.clip(np.rint(_between(share, low, most)), 1, most).astype(np.int32)


def _between(share: NDArray[np.float64], rate: float, most: int) -> NDArray[np.float64]:
    """Quantiles of an exponential (``rate`` may be negative) cut to 1 … ``most``."""
    part = share if abs(rate) < 1e-6 else -np.log1p(share * np.expm1(-rate)) / rate
    return 1.0 + part * (most - 1)


def longest(spec: float | Lengths) -> int:
    """Upper bound of a length."""
    if isinstance(spec, int | float):
        return int(spec)
    if "uniform" in spec:
        return int(spec["uniform"][1])
    if "most" in spec:
        return int(spec["most"])
    return max(most for _, most in _SHAPES.get(spec.get("trace", ""), _SHAREGPT).values())
