"""Fitting of a closed form to measured times, and of the residual grid it leaves over."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.cost.residual import Floats, Numbers, pack
from sim.ledger import Values


def fit(
    form: Callable[[Floats], Floats],
    start: list[float],
    low: list[float],
    high: list[float],
    seconds: Floats,
    weight: Numbers = 1.0,
) -> Floats:
    """Parameters that minimise a soft-L1 norm of log(form / measured)."""
    from scipy.optimize import least_squares

    def residual(q: Floats) -> Floats:
        return weight * np.log(np.maximum(form(q), 1e-12) / seconds)

    scale = np.maximum(np.abs(start), 1e-3)
    return least_squares(residual, start, bounds=(low, high), loss="soft_l1", f_scale=0.1, max_nfev=120, x_scale=scale).x  # type: ignore[no-any-return]


def error(predicted: Floats, measured: Floats) -> dict[str, float]:
    """Median, 90th percentile and bias of the relative error, in per cent."""
    relative = predicted / measured - 1.0
    median, p90 = np.percentile(np.abs(relative), [50, 90]) * 100
    return {
        "median": round(float(median), 1),
        "p90": round(float(p90), 1),
        "bias": round(float(np.median(relative)) * 100, 1),
        "n": len(measured),
    }


class Grid(NamedTuple):
    """Combinations of the keys, values of each axis, and a packed residual row for each combination."""

    keys: Floats
    axes: tuple[Floats, ...]
    values: Values


def grid(data: pd.DataFrame, keys: list[str], axes: list[str], log: Floats) -> Grid:
    """Residual rows on the full grid; cells that were not measured take the nearest measured one of their row."""
    from scipy.ndimage import distance_transform_edt

    points = [np.unique(data[a].to_numpy(float)) for a in axes]
    rows, row_of = np.unique(data[keys].to_numpy(float), axis=0, return_inverse=True)
    values = np.full((len(rows), *(p.size for p in points)), np.nan)
    index = tuple(np.searchsorted(p, data[a].to_numpy(float)) for p, a in zip(points, axes, strict=True))
    values[(row_of.ravel(), *index)] = log
    for row in values:
        missing = np.isnan(row)
        if missing.any():
            nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
            row[...] = row[tuple(nearest)]
    return Grid(rows, tuple(points), pack(values))


def held_out(data: pd.DataFrame, columns: list[str], share: float = 0.25, seed: int = 1) -> NDArray[np.bool_]:
    """Mask of the rows whose combination of ``columns`` falls into a random quarter."""
    labels = data.groupby(columns, observed=True).ngroup().to_numpy()
    return np.isin(labels, np.random.default_rng(seed).permutation(labels.max() + 1)[: max(1, int(share * (labels.max() + 1)))])


def median(data: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row per combination of ``by``, latency as the median, in seconds."""
    out = data.groupby(by, observed=True).latency_us.median().reset_index()
    out["seconds"] = out.latency_us * 1e-6
    return out
