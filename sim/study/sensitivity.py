"""How much each setting matters to each figure: moment-independent and first-order indices, by SALib from the runs of any sweep."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.document import number
from sim.errors import ConfigError
from sim.study.domains import Domain

if TYPE_CHECKING:
    from sim.document import Json

FIGURES: Final = (
    "slo.attainment.joint",
    "latency.ttft_s.p99",
    "latency.tpot_s.p99",
    "latency.e2e_s.p99",
    "throughput.output_tokens_per_s_per_accelerator",
)
_LEAST = 32


def indices(rows: Sequence[Mapping[str, Json]], over: Sequence[Domain]) -> dict[str, dict[str, dict[str, float]]]:
    """By figure and setting: ``delta`` (Borgonovo 2007: 0 no influence, 1 all of it) and ``S1`` (share of the variance), each with the
    half-width of its 95 % interval (``delta_conf``, ``S1_conf``).

    *Raises*: `ConfigError` without SALib, or from fewer than 32 runs.
    """
    try:
        from SALib.analyze import delta
    except ImportError:
        raise ConfigError("sensitivity", True, "needs SALib", hint="pip install 'servesim[search]'") from None
    done = [r for r in rows if not r["error"]]
    if len(done) < _LEAST:
        raise ConfigError("sensitivity", len(done), "runs are too few for indices", f"at least {_LEAST}, spread by --sample")
    x = np.array([[_place(d, r[d.path]) for d in over] for r in done], float)
    problem = {"num_vars": len(over), "names": [d.path for d in over], "bounds": [[0.0, 1.0]] * len(over)}
    out: dict[str, dict[str, dict[str, float]]] = {}
    for figure in FIGURES:
        y = np.array([np.nan if r.get(figure) is None else float(number(r[figure])) for r in done])
        if np.isnan(y).any() or y.std() <= 1e-12 * abs(y.mean()):
            continue
        with (
            warnings.catch_warnings(record=True),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):  # it comments on its bins
            found = delta.analyze(problem, x, y, num_resamples=50, seed=1)
        names = {
            "delta": "delta_balanced" if "delta_balanced" in found else "delta",
            "S1": "S1",
        }  # as SALib 1.6 and before call it
        out[figure] = {
            d.path: {f"{k}{end}": round(float(found[f"{n}{end}"][i]), 4) for k, n in names.items() for end in ("", "_conf")}
            for i, d in enumerate(over)
        }
    return out


def _place(domain: Domain, value: Json) -> float:
    """Where in its domain a value lies, 0 to 1."""
    if domain.values:
        return (domain.values.index(value) + 0.5) / len(domain.values)
    at = float(str(value).removesuffix(domain.unit)) if domain.unit else float(number(value))
    if domain.log:
        return float(np.log(at / domain.low) / np.log(domain.high / domain.low))
    return (at - domain.low) / (domain.high - domain.low)
