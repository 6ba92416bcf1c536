"""One function per operator: measured rows in, fitted parameters, residual grid and held-out error out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Required, TypedDict

import numpy as np
import pandas as pd

from sim.cost import forms
from sim.cost.fit.core import error, fit, grid, held_out, median
from sim.cost.forms import Machine
from sim.cost.residual import Floats, Residual, ShapeGrid
from sim.ledger import Values


class Result(TypedDict, total=False):
    """A fitted operator: ``parameters``, the residual over ``axes`` by ``keys``, errors; and what `stacks` adds: formats, ``routing``, ``skewed_beyond``."""

    operator: Required[str]
    parameters: Required[Floats]
    axes: Required[Sequence[Floats]]
    values: Required[Values]
    error: Required[dict[str, dict[str, float]]]
    rows: Required[int]
    keys: Floats
    unit: str
    version: str
    routing: str
    skewed_beyond: int
    weight_bytes: float
    act_bytes: float


SAMPLE = 3000  # rows the parameters are fitted to; the residual grid uses all


def _sample(data: pd.DataFrame) -> pd.DataFrame:
    return data.sample(SAMPLE, random_state=0) if len(data) > SAMPLE else data


def gemm(data: pd.DataFrame, hw: Machine, weight: float, act: float, check: bool) -> Result:
    """Matrix multiplication by (m, n, k)."""
    d = median(
        data[(data.n >= 256) & (data.k >= 256) & (data.n != 51200) & (data.k != 51200) & (data.m <= 32768)], ["m", "n", "k"]
    )

    def predict(q: Floats, x: pd.DataFrame) -> Floats:
        return forms.gemm(q, hw, x.m.to_numpy(float), x.n.to_numpy(float), x.k.to_numpy(float), weight, act).total

    def solve(x: pd.DataFrame) -> Floats:
        x = _sample(x)
        low, high = [0.05, 0.05, 0, 0.8, 0, 0], [1.3, 1.5, 100, 12, 1.5, 3000]
        return fit(lambda q: predict(q, x), [0.8, 0.8, 4.0, 3.0, 0.3, 100.0], low, high, x.seconds.to_numpy())

    def rest(x: pd.DataFrame, q: Floats) -> ShapeGrid:
        log = np.log(x.seconds.to_numpy() / predict(q, x))
        out = grid(x.assign(one=1.0), ["one"], ["n", "k", "m"], log)
        return ShapeGrid(out.axes, out.values[0])

    q = solve(d)
    table = rest(d, q)
    errors = {"form": error(predict(q, d), d.seconds.to_numpy())}
    if check:
        for what, mask in (("shapes", held_out(d, ["n", "k"])), ("batch", held_out(d, ["m"], 1 / 3))):
            qq = solve(d[~mask])
            log = rest(d[~mask], qq)
            test = d[mask]
            p = predict(qq, test) * np.exp(log.at(*(test[c].to_numpy(float) for c in ("n", "k", "m"))))
            errors[f"held_out_{what}"] = error(p, test.seconds.to_numpy())
    return {"parameters": q, "axes": table.axes, "values": table.values, "error": errors, "rows": len(d), "operator": "gemm"}


def _surface(
    d: pd.DataFrame,
    predict: Callable[[Floats, pd.DataFrame], Floats],
    start: list[float],
    low: list[float],
    high: list[float],
    keys: list[str],
    axes: list[str],
    check: bool,
    operator: str,
) -> Result:
    def solve(x: pd.DataFrame) -> Floats:
        x = _sample(x)
        return fit(lambda q: predict(q, x), start, low, high, x.seconds.to_numpy())

    def rest(x: pd.DataFrame, q: Floats) -> Residual:
        out = grid(x, keys, axes, np.log(x.seconds.to_numpy() / predict(q, x)))
        return Residual(out.keys, out.axes, out.values)

    q = solve(d)
    table = rest(d, q)
    errors = {"form": error(predict(q, d), d.seconds.to_numpy())}
    if check and len(table.keys) > 4:
        for what, mask in (("shapes", held_out(d, keys)), ("sizes", held_out(d, axes))):
            qq = solve(d[~mask])
            log = rest(d[~mask], qq)
            test = d[mask].reset_index(drop=True)
            p = predict(qq, test)
            for _, part in test.groupby(keys):
                i = part.index.to_numpy()
                p[i] *= np.exp(log.at(tuple(part[keys].to_numpy(float)[0]), *(part[a].to_numpy(float) for a in axes)))
            errors[f"held_out_{what}"] = error(p, test.seconds.to_numpy())
    return {
        "parameters": q, "keys": table.keys, "axes": table.axes, "values": table.values, "error": errors, "rows": len(d), "operator": operator,
    }  # fmt: skip


def prefill(data: pd.DataFrame, hw: Machine, dim: int, check: bool) -> Result:
    """Prompt attention by (batch, isl) for pairs of head counts, nothing cached."""
    d = data[(data.head_dim == dim) & (data.window == 0) & (data.prefix == 0) & (data.isl >= 16)]
    d = median(d, ["batch", "isl", "heads", "kv_heads"])

    def predict(q: Floats, x: pd.DataFrame) -> Floats:
        b, s, h, g = (x[c].to_numpy(float) for c in ("batch", "isl", "heads", "kv_heads"))
        return forms.prefill(q, hw, b, s, h, g, dim).total  # type: ignore[arg-type]

    low, high = [0.02, 0.02, 0, 0, 0.8], [1.2, 1.5, 100, 5000, 10]
    return _surface(d, predict, [0.6, 0.6, 8.0, 20.0, 1.3], low, high, ["heads", "kv_heads"], ["batch", "isl"], check, "prefill")


def decode(data: pd.DataFrame, hw: Machine, dim: int, element: float, check: bool) -> Result:
    """Decode attention by (batch, context) for pairs of head counts."""
    d = data[(data.head_dim == dim) & (data.window == 0) & (data.context >= 2)]
    d = median(d, ["batch", "context", "heads", "kv_heads"])

    def predict(q: Floats, x: pd.DataFrame) -> Floats:
        b, c, h, g = (x[k].to_numpy(float) for k in ("batch", "context", "heads", "kv_heads"))
        group = np.maximum(h / g, q[5])  # forms.decode takes one head pair; here every row has its own
        memory = (2.0 * element * b * c * g * dim + 4.0 * b * h * dim) / (hw.bandwidth * q[1])
        compute = 4.0 * b * g * dim * c * group / (hw.peak * q[0])
        serial = q[3] * 1e-9 * c / np.maximum(1.0, np.minimum(hw.sm / (b * g), c / 256.0)) ** q[6]
        seconds: Floats = q[2] * 1e-6 + forms._norm(q[4], compute, memory, serial) + q[7] * 1e-9 * b * g
        return seconds

    low, high = [0.02, 0.02, 0, 0, 0.8, 1, 0, 0], [1.5, 1.5, 100, 100, 10, 64, 1.2, 100]
    start = [0.5, 0.7, 8.0, 5.0, 2.0, 4.0, 0.7, 10.0]
    return _surface(d, predict, start, low, high, ["heads", "kv_heads"], ["batch", "context"], check, "decode")


def latent_prefill(data: pd.DataFrame, hw: Machine, check: bool) -> Result:
    """Prompt attention of multi-head latent attention: 192 elements per key, 128 per value, every head its own keys."""
    d = median(data[(data.step == 0) & (data.isl >= 16)], ["batch", "isl", "heads"])

    def predict(q: Floats, x: pd.DataFrame) -> Floats:
        b, s, h = (x[c].to_numpy(float) for c in ("batch", "isl", "heads"))
        return forms.prefill(q, hw, b, s, h, h, 192, 128).total  # type: ignore[arg-type]

    low, high = [0.02, 0.02, 0, 0, 0.8], [1.2, 1.5, 400, 5000, 10]
    return _surface(d, predict, [0.5, 0.6, 20.0, 20.0, 1.3], low, high, ["heads"], ["batch", "isl"], check, "latent_prefill")


def latent_decode(data: pd.DataFrame, hw: Machine, element: float, check: bool) -> Result:
    """Decode attention over the latent cache."""
    d = data.assign(context=data.isl + data.step - (data.isl == 1))
    d = median(d[d.context >= 2], ["batch", "context", "heads"])

    def predict(q: Floats, x: pd.DataFrame) -> Floats:
        b, c, h = (x[k].to_numpy(float) for k in ("batch", "context", "heads"))
        return forms.latent_decode(q, hw, b, c, h, 512, 64, element).total  # type: ignore[arg-type]

    low, high = ([0.02, 0.02, 0, 0, 0.8, 1, 0, 0], [1.5, 1.5, 400, 100, 10, 128, 1.2, 2000])
    start = [0.5, 0.7, 20.0, 5.0, 2.0, 16.0, 0.7, 10.0]
    return _surface(d, predict, start, low, high, ["heads"], ["batch", "context"], check, "latent_decode")


def _chance(tokens: Floats, experts: Floats, top_k: Floats) -> Floats:
    """From perfectly even to independent routing: even routing of few tokens wakes as many experts as it can, chance wakes fewer.

    Nine tenths of the time go with the experts that are read (the rest is launching).
    """
    woken = forms.active_experts(tokens, experts, top_k) / np.minimum(tokens * top_k, experts)
    return 0.1 + 0.9 * woken


def moe(data: pd.DataFrame, hw: Machine, element: float, check: bool) -> Result:
    """Routed experts by token count, for shapes (hidden, width on a rank, experts, top_k, ep); rows marked ``even`` were routed evenly."""
    d = data[data.tokens <= 32768].assign(width=data.inter / data.tp)
    keys = ["hidden", "width", "experts", "topk", "ep"]
    d = median(d, [*keys, "tokens", "even"])
    d["seconds"] *= np.where(d.even, _chance(*(d[c].to_numpy(float) for c in ("tokens", "experts", "topk"))), 1.0)

    def predict(q: Floats, x: pd.DataFrame) -> Floats:
        c = {k: x[k].to_numpy(float) for k in (*keys, "tokens")}
        return forms.moe(q, hw, c["tokens"], c["hidden"], c["width"], c["experts"], c["topk"], c["ep"], element).total

    low, high = [0.02, 0.05, 0, 0.8, 0, 1, 0.3], [1.2, 1.5, 300, 10, 300, 128, 1.5]
    return _surface(d, predict, [0.5, 0.7, 20.0, 2.0, 5.0, 16.0, 1.0], low, high, keys, ["tokens"], check, "moe")


def all_reduce(data: pd.DataFrame) -> Result:
    """Sum over 2, 4, 8 ranks by message size: residual rows by rank count over the form with common parameters."""
    d = median(data[data.gpus <= 8], ["gpus", "bytes"])

    def predict(q: Floats, x: pd.DataFrame) -> Floats:
        return forms.all_reduce(q, x.bytes.to_numpy(float), x.gpus.to_numpy(float))

    low, high = [0.0, 0.0, 0.5, 0.0, 0.0, 0.5], [60.0, 10.0, 2000.0, 100.0, 20.0, 2000.0]
    start = [4.0, 0.5, 150.0, 10.0, 1.0, 250.0]
    q = fit(lambda p: predict(p, d), start, low, high, d.seconds.to_numpy())
    out = grid(d, ["gpus"], ["bytes"], np.log(d.seconds.to_numpy() / predict(q, d)))
    return {
        "keys": out.keys,
        "axes": out.axes,
        "values": out.values,
        "parameters": q,
        "error": {"form": error(predict(q, d), d.seconds.to_numpy())},
        "rows": len(d),
        "operator": "all_reduce",
    }
