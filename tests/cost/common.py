"""Batches as sums, and a compiled door to `step_time`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import ledger
from sim.cost import features as f
from sim.cost.step import step_time
from sim.jit import kernel

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
needs_kernels = pytest.mark.skipif(
    not (SHARED / "data/kernels/gemm.parquet").is_file(), reason="operator measurements are not here"
)
needs_points = pytest.mark.skipif(not (SHARED / "data/measured/points").is_dir(), reason="measured deployments are not here")


@kernel
def _call(cost: Any, feat: Any, parts: Any) -> Any:
    return step_time(cost, feat, parts)


def seconds(cost: Any, feat: Any) -> float:
    """One call of the compiled cost."""
    return float(_call(cost, feat, np.zeros(ledger.N_PARTS)))


def seconds_and_parts(cost: Any, feat: Any) -> tuple[float, Any]:
    """One call, and what the time was spent on."""
    parts = np.zeros(ledger.N_PARTS)
    return float(_call(cost, feat, parts)), parts


def batch(rows: float = 0, context: float = 0, prompts: float = 0, chunk: float = 0, prefix: float = 0) -> Any:
    """``rows`` decoding at a mean context, ``prompts`` with ``chunk`` new tokens over ``prefix`` cached ones."""
    feat = np.zeros(f.N_FEATURES)
    feat[[f.DECODE_ROWS, f.DECODE_TOKENS]] = rows
    feat[f.DECODE_CTX] = rows * context
    feat[f.PREFILL_ROWS] = prompts
    feat[f.PREFILL_TOKENS] = prompts * chunk
    feat[f.PREFILL_WORK] = prompts * chunk * (prefix + chunk / 2)
    feat[f.PREFILL_CTX] = prompts * (prefix + chunk)
    feat[f.TOKENS] = rows + prompts * chunk
    feat[[f.ROWS, f.SAMPLED]] = rows + prompts
    return feat
