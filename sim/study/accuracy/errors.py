"""Errors of predictions: per metric the median and the 90th percentile of the absolute error, and the bias, for any grouping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.errors import ConfigError, did_you_mean
from sim.study.accuracy.point import Point

if TYPE_CHECKING:
    from sim.document import Json

TITLES: Final[Mapping[str, str]] = {
    "tpot_s": "TPOT",
    "e2e_s": "E2E",
    "ttft_s": "TTFT",
    "itl_s": "ITL",
    "output_tokens_per_s": "output tokens/s",
    "requests_per_s": "requests/s",
    "input_tokens_per_s": "input tokens/s",
    "makespan_s": "makespan",
    "kv_blocks": "KV blocks",
    "step_s.prefill": "prefill step",
    "step_s.decode": "decode step",
}
STEPS: Final = ("step_s.decode", "step_s.prefill")
"""Figures of single steps."""
TARGETS: Final[Mapping[str, float]] = {
    "tpot_s.mean": 0.05,
    "e2e_s.mean": 0.05,
    "ttft_s.mean": 0.12,
    "ttft_s.p99": 0.20,
    "output_tokens_per_s": 0.05,
    "kv_blocks": 0.03,
}
"""Median absolute error aimed at on points of known configuration that were not overloaded; its p90 should stay below three times that."""


def title(metric: str) -> str:
    """``ttft_s.p99`` → ``TTFT p99``."""
    if metric in TITLES:
        return TITLES[metric]
    name, _, statistic = metric.rpartition(".")
    return f"{TITLES.get(name, name)} {statistic}".strip()


@dataclass(frozen=True)
class Outcome:
    """A point and what the simulation said: ``predicted`` by metric, or the ``reason`` why it was not simulated."""

    point: Point
    predicted: Mapping[str, float]
    reason: str = ""

    def errors(self) -> dict[str, float]:
        """Relative error of every metric, predicted / measured − 1."""
        return {k: v / self.point.measured[k] - 1.0 for k, v in self.predicted.items() if self.point.measured.get(k)}


@dataclass(frozen=True)
class Row:
    """Errors of one metric in one group."""

    group: str
    metric: str
    points: int
    median: float
    p90: float
    bias: float

    def as_dict(self) -> dict[str, Json]:
        """Plain data for a file."""
        return {
            "group": self.group,
            "metric": self.metric,
            "points": self.points,
            "median_abs_error": self.median,
            "p90_abs_error": self.p90,
            "median_error": self.bias,
        }


def family(model: str) -> str:
    """``meta-llama/Llama-3.1-8B-Instruct`` → ``llama-3``."""
    short = model.rsplit("/", 1)[-1].lower().removeprefix("meta-")
    for name in (
        "llama-2",
        "llama-3",
        "llama-4",
        "codellama",
        "mixtral",
        "qwen2.5",
        "qwen3",
        "gpt-oss",
        "minimax",
        "deepseek",
        "bloom",
        "opt",
        "kimi",
    ):
        if short.startswith(name):
            return name
    return short


def source(point: Point) -> str:
    """Who measured it: the project that ran the server, else the first part of the deployment's name."""
    return point.launcher or point.deployment.partition("-")[0]


GROUPS: Final[Mapping[str, Callable[[Point], str]]] = {
    "engine": lambda p: p.engine,
    "version": lambda p: f"{p.engine} {p.version or '?'}",
    "accelerator": lambda p: p.accelerator,
    "family": lambda p: family(p.model),
    "source": source,
    "quality": lambda p: p.quality,
    "traffic": lambda p: str(p.traffic["kind"]),
    "deployment": lambda p: p.deployment,
}


def check_group(by: str) -> None:
    """Raise `ConfigError` for what is no grouping."""
    if by not in GROUPS:
        raise ConfigError("by", by, "is no grouping", ", ".join(GROUPS), did_you_mean(by, GROUPS))


def rows(outcomes: Iterable[Outcome], by: str | None = None, metrics: Sequence[str] | None = None) -> list[Row]:
    """The error table, grouped ``by`` a key of `GROUPS` (None: one group, ``all``)."""
    found: dict[tuple[str, str], list[float]] = {}
    for outcome in outcomes:
        group = GROUPS[by](outcome.point) if by else "all"
        for metric, error in outcome.errors().items():
            if metrics is None or metric in metrics:
                found.setdefault((group, metric), []).append(error)
    order = list(metrics) if metrics else list(dict.fromkeys([*TARGETS, *sorted({m for _, m in found})]))
    table = []
    for group in sorted({g for g, _ in found}):
        for metric in order:
            e = np.array(found.get((group, metric), ()))
            if e.size:
                size = np.abs(e)
                table.append(
                    Row(group, metric, e.size, float(np.median(size)), float(np.percentile(size, 90)), float(np.median(e)))
                )
    return table
