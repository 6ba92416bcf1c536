"""What a closed form leaves over: log(measured / form) on the measured grid, interpolated in the logarithms of the sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

STEP = 80.0  # stored as int8 in steps of 1/80: at most 0.6 % of rounding, up to a factor of 4.9 either way
_NEIGHBOURS = 4

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = float | Floats
"""A figure, or an array of them; several are broadcast together."""
Key: TypeAlias = tuple[float, ...]
"""The properties of a shape."""


def pack(values: Floats) -> NDArray[np.int8]:
    """Quantise logarithms to int8."""
    return np.clip(np.rint(values * STEP), -127, 127).astype(np.int8)


@dataclass(frozen=True)
class Residual:
    """Rows of shapes, each with a residual surface over a common grid.

    ``keys`` [row, property] of a shape (head counts, n and k of a GEMM …), ``axes`` the sizes of the grid, ``values`` [row, *grid] int8.
    """

    keys: Floats
    axes: tuple[Floats, ...]
    values: NDArray[np.int8]

    def surface(self, key: Key) -> Floats:
        """Residual over the grid for a shape: its own row if it was measured, else the nearest rows weighted by distance in octaves."""
        distance = np.sqrt(((np.log2(self.keys) - np.log2(np.asarray(key, float))) ** 2).sum(axis=1))
        nearest = np.argsort(distance, kind="stable")[:_NEIGHBOURS]
        if distance[nearest[0]] < 1e-9:
            own: Floats = self.values[nearest[0]].astype(float) / STEP
            return own
        weight = distance[nearest] ** -2.0
        mean: Floats = np.tensordot(weight / weight.sum(), self.values[nearest].astype(float) / STEP, axes=1)
        return mean

    def known(self, key: Key) -> bool:
        """Whether exactly this shape was measured."""
        return bool((self.keys == np.asarray(key, float)).all(axis=1).any())

    def at(self, key: Key, *sizes: Numbers) -> Floats:
        """Residual of a shape at sizes (broadcast together); outside the grid the nearest edge counts."""
        return multilinear(self.axes, self.surface(key), *sizes)


@dataclass(frozen=True)
class ShapeGrid:
    """As `Residual`, for operators whose shapes themselves form a grid (n × k of a GEMM): multilinear in everything."""

    axes: tuple[Floats, ...]
    values: NDArray[np.int8]

    def at(self, *sizes: Numbers) -> Floats:
        """Residual at sizes (broadcast together)."""
        return multilinear(self.axes, self.values, *sizes) / STEP


def multilinear(axes: tuple[Floats, ...], values: NDArray[np.int8] | Floats, *sizes: Numbers) -> Floats:
    """Interpolation linear in the logarithm of every size, clamped to the grid."""
    points = np.broadcast_arrays(*(np.asarray(s, float) for s in sizes))
    places, shares = [], []
    for axis, x in zip(axes, points, strict=True):
        low = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, max(axis.size - 2, 0))
        high = np.minimum(low + 1, axis.size - 1)
        span = np.log(axis[high] / axis[low])
        share = np.where(span > 0, np.log(np.maximum(x, 1e-9) / axis[low]) / np.where(span > 0, span, 1.0), 0.0)
        places.append((low, high))
        shares.append(np.clip(share, 0.0, 1.0))
    out = np.zeros(points[0].shape)
    for corner in range(2 ** len(axes)):
        weight: Numbers = 1.0
        index = []
        for d, share in enumerate(shares):
            upper = corner >> d & 1
            weight = weight * (share if upper else 1.0 - share)
            index.append(places[d][upper])
        out += weight * values[tuple(index)]
    return out
