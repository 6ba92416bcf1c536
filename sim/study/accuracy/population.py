"""Figures over the requests that the measuring tool counted, in measured and predicted alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.ledger import Values
from sim.study.accuracy.point import Point


def counted(point: Point, requests: Mapping[str, Values], samples: Mapping[str, Values]) -> dict[str, Values]:
    """``samples`` (``ttft_s``, ``tpot_s`` … by row of ``requests``) with NaN where the tool counts nothing, and its own figure where it enters one.

    Rows are told apart by ``id``, the place of the request in order of arrival, or by ``tenant`` where conversations change that order.
    """
    out = dict(samples)
    rows = _rows(point, requests)
    if rows is None or point.columns is None:
        return out
    for key, mask in (("ttft_s", "counts_ttft"), ("tpot_s", "counts_tpot"), ("e2e_s", "counts_e2e")):
        if mask in point.columns and key in out:
            out[key] = np.where(np.asarray(point.columns[mask])[rows], out[key], np.nan)
    if "ttft_told" in point.columns and "ttft_s" in out:
        told = np.asarray(point.columns["ttft_told"])[rows]
        out["ttft_s"] = np.where(np.isfinite(told), told, out["ttft_s"])
    return out


def counted_requests(point: Point, requests: Mapping[str, Values]) -> dict[str, Values]:
    """The rows that count in throughput, with output tokens as the tool counts them."""
    rows = _rows(point, requests)
    if rows is None or point.columns is None:
        return dict(requests)
    keep = np.asarray(point.columns["counts"])[rows] if "counts" in point.columns else np.ones(len(rows), bool)
    changed = {**requests, "output_tokens": counted_output(point, requests)}
    return {k: np.asarray(v)[keep] for k, v in changed.items()}


def counted_output(point: Point, requests: Mapping[str, Values]) -> Values:
    """Output tokens as the tool counts them: none of a request that ended without a token (which is simulated with one)."""
    rows = _rows(point, requests)
    if rows is None or point.columns is None:
        return requests["output_tokens"]
    return np.where(np.asarray(point.columns["output_tokens"])[rows] < 1, 0, requests["output_tokens"])


def _rows(point: Point, requests: Mapping[str, Values]) -> Values | None:
    """Row of the point's columns for every simulated request; None where they are not known one by one."""
    if point.columns is None or "counts_ttft" not in point.columns:
        return None
    if "talk" in point.columns:
        return np.asarray(requests["tenant"], np.int64) - 1 if "tenant" in requests else None
    order = np.argsort(point.columns["arrival_s"], kind="stable")
    ids = np.asarray(requests["id"])
    if ids.size and int(ids.max()) >= order.size:
        return None
    found: Values = order[ids]
    return found
