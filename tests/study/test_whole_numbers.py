"""Statistics, points of measurement and small pieces of studies: what each gives for a grid of inputs is the recorded answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import ServesimError
from sim.streams import stream
from sim.study import domains, in_step
from sim.study.accuracy import read_points
from sim.study.accuracy.deploy import planned
from sim.study.accuracy.lengths import draw, longest
from sim.study.accuracy.predict import predict
from sim.study.accuracy.traffic import traffic_of
from sim.study.options import share
from sim.study.statistics.attainment import attainment_interval, wilson
from sim.study.statistics.batches import batch_means, mean_interval, skewness_adjusted, spread, worth_of
from sim.study.statistics.holm import holm
from sim.study.statistics.interval import Interval
from sim.study.statistics.paired import paired_difference, percent
from sim.study.statistics.percentile import percentile_interval
from sim.study.statistics.quantiles import beta, normal, student
from sim.study.statistics.replications import bounds, needed, replicated
from sim.study.statistics.stationary import judge
from sim.study.statistics.throughput import throughput_interval
from sim.study.statistics.truncation import mser, mser5
from sim.study.store import differences
from tests.answers import plain, same
from tests.study.test_accuracy import BATCH, LOOP, RAW, folder
from tests.whole import formula

SERIES = {
    name: make(np.arange(n, dtype=float), n)
    for n in (1, 2, 9, 99, 100, 101, 119, 120, 333)
    for name, make in {
        f"flat {n}": lambda t, n: np.full(n, 2.0),
        f"wave {n}": lambda t, n: 3.0 + np.sin(t / 7.0) + 0.3 * np.cos(3.1 * t),
        f"skew {n}": lambda t, n: np.exp(1.5 * np.sin(1.7 * t) + np.sin(t / 11.0)),
        f"start {n}": lambda t, n: 1.0 + 5.0 * np.exp(-t / 6.0) + 0.1 * np.sin(2.9 * t),
        f"rising {n}": lambda t, n: t / n + 0.2 * np.sin(t),
        f"signed {n}": lambda t, n: np.sin(2.3 * t) - 0.1,
    }.items()
}
LEVELS = (0.8, 0.95, 0.99)


def answer(of: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """What comes of it, also where it is an error."""
    try:
        found = of(*given, **more)
    except (ServesimError, ValueError, ArithmeticError) as error:
        told = f"{type(error).__name__}: {error}"
        return told if len(told) < 300 else told.partition("; allowed: ")[0]  # a list of all models or cards grows
    return plain(found.as_dict() if hasattr(found, "as_dict") else found)


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_of_series_are_as_recorded(level: float) -> None:
    found: dict[str, Any] = {}
    for name, x in SERIES.items():
        t = np.cumsum(np.abs(x) + 0.01)
        late = t + np.abs(x)
        late[:: max(len(x) // 7, 1)] = np.nan
        found[name] = {
            "mean": answer(mean_interval, x, level),
            "met": [answer(attainment_interval, x > c, level) for c in (-9.0, float(np.median(x)), 99.0)],
            "percentiles": [answer(percentile_interval, x, p, level) for p in (0.5, 0.9, 0.99)],
            "throughput": [answer(throughput_interval, t, t + np.abs(x), w, level) for w in (None, np.abs(x) + 1.0)],
            "cut off": answer(throughput_interval, t, late, None, level),
            "replicated": answer(replicated, x[:9], level),
            "bounds": answer(bounds, x[:5], level),
            "needed": [answer(needed, x[:7], precision, level) for precision in (0.5, 0.05, 0.005)],
        }
        if level == LEVELS[0]:
            found[name] |= {"mser": answer(mser, x), "mser5": answer(mser5, x), "judge": answer(judge, t, t + np.abs(x))}
            found[name]["judge more"] = [
                answer(judge, t, late),
                answer(judge, t, t + t, closed_loop=True),
                answer(judge, t, t + t),
            ]
            if len(x) >= 20:
                found[name] |= {
                    "means": answer(batch_means, x),
                    "spread": answer(spread, batch_means(x)),
                    "worth": answer(worth_of, x),
                }
                found[name]["adjusted"] = answer(skewness_adjusted, batch_means(x), level)
    same("study-statistics", f"series at {level}", found)


def test_small_formulas_are_as_recorded() -> None:
    grid = [0.0, 1e-9, 0.003, 0.04, 0.0949, 0.095, 0.5, 0.9949, 0.995, 1.0, 12.0, -0.02]
    found = {
        "percent": [[percent(v), percent(v, sign=True)] for v in grid],
        "wilson": [[answer(wilson, p, n, level) for p in (0.0, 0.3, 0.99, 1.0)] for n in (1, 7, 400) for level in LEVELS],
        "wilson z": answer(wilson, 0.9, 50.0, z=1.0),
        "quantiles": [[normal(level), student(level, f)] for level in LEVELS for f in (1, 4, 30)],
        "beta": [beta(a, b, p) for a in (1, 5) for b in (2, 9) for p in (0.05, 0.5)],
        "holm": [holm(p) for p in ([], [0.5], [0.01, 0.04, 0.03, 0.005], [0.9, 0.8, 0.02], [0.3, 0.3, 0.3])],
        "share": [answer(share, v) for v in ("2%", "0.02", " 5 % ", 0.3, "x", "2%%", "-1", None, 7)],
        "half": [
            [i.half, i.relative, i.as_dict()]
            for i in (
                Interval(2.0, 1.0, 4.0, 0.9, "m", 3),
                Interval(0.0, -1.0, 1.0, 0.9, "m", 3),
                Interval(0.0, 0.0, 0.0, 0.9, "m", 3),
            )
        ],
    }
    same("study-statistics", "formulas", found)


def test_differences_of_pairs_are_as_recorded() -> None:
    found = {}
    base = 1.0 + 0.2 * np.sin(np.arange(12.0))
    for n, (name, other) in itertools.product(
        (1, 2, 3, 12),
        {
            "same": base,
            "faster": 0.8 * base,
            "noisy": base + np.cos(3.0 * np.arange(12.0)),
            "shift": base + 0.01,
            "zero": 0 * base,
        }.items(),
    ):
        for level in LEVELS:
            made = paired_difference(list(base[:n]), list(other[:n]), level)
            told = (
                []
                if made is None
                else [made.verdict("p99 TTFT"), made.verdict("attainment", points=True), made.significant, made.as_dict()]
            )
            found[f"{name} {n} {level}"] = [answer(paired_difference, list(base[:n]), list(other[:n]), level), told]
    same("study-statistics", "pairs", found)


DOMAINS = (
    "a=1,2,4", "a=4..16", "a=4..16:5", "r=4/s..16/s:7", "x=1..100:3log", "x=1..100:4 log", "x=0.5..1.5:3", "x=1..3:5", "x=1ms..2ms:2", "a=true,null,x",
    "a=", "=1", "a=1..", "a=..2", "a=4..1", "a=1..1", "a=0..10:3log", "a=1..2:1", "a=1..2:0", "a=1/s..2", "a=x..y", "a", "a=[1,2],3", 'a={"b": 1}', "a=1.5..9",
)  # fmt: skip


def test_values_of_settings_are_as_recorded() -> None:
    found: dict[str, Any] = {}
    for text in DOMAINS:
        found[text] = answer(domains.domains, text)
        if not isinstance(found[text], str):
            made = domains.domains(text)
            found[text] = [found[text], answer(lambda made=made: [d.grid() for d in made]), answer(domains.grid, made)]
    mixed = domains.domains(["a=1..9", "b=x,y", "r=1/s..3/s"])
    for kind in ("latin-hypercube", "sobol", "random", "halton"):
        found[kind] = answer(lambda kind=kind: domains.sample(mixed, kind, 5, 3))
    same("study-statistics", "domains", found)


TRAFFICS: dict[str, Any] = {
    "loop": LOOP,
    "loop with a rate": LOOP | {"max_rate": 5.0},
    "paced": LOOP | {"paced": True},
    "batch": BATCH,
    "stages": {
        "kind": "stages",
        "stages": [{"rate": 5.0, "duration": 2.0}, {"rate": 10.0, "duration": 1.5}],
        "prompt_tokens": 100,
        "output_tokens": 10,
    },
    "drawn stages": {
        "kind": "stages",
        "arrival": "poisson",
        "num_requests": 12,
        "stages": [{"rate": 5.0, "duration": 2.0}, {"rate": 10.0, "duration": 1.5}],
        "prompt_tokens": {"uniform": [50, 150]},
        "output_tokens": {"uniform": [1, 20]},
    },
    "burst": {
        "kind": "burst",
        "num_requests": 9,
        "prompt_tokens": 64,
        "output_tokens": 8,
        "unique_prompts": 3,
        "prefix_tokens": 32,
    },
    "shared": LOOP | {"prefix_tokens": 64},
    "wrong": {"kind": "circus", "num_requests": 3},
}
POINTS: dict[str, dict[str, Any]] = {
    **{f"traffic: {name}": {"traffic": traffic} for name, traffic in TRAFFICS.items()},
    "sglang": {"engine": {"name": "sglang", "version": "0.5.1"}},
    "tgi": {"engine": {"name": "tgi", "version": "3.0"}},
    "tp": {"parallelism": {"tp": 2}},
    "pp": {"parallelism": {"pp": 2}},
    "stage": {"traffic": TRAFFICS["stages"], "window": {"stage": 1}},
    "window": {"window": {"after_s": 0.1, "before_s": 0.9, "skip_first": 2}},
    "blocks": {
        "kv_blocks": 500,
        "engine": {"name": "vllm", "version": "0.9", "settings": {"max_num_seqs": 3, "enable_prefix_caching": False}},
    },
    "weak": {"quality": "weak"},
    "assumed": {"assumed": ["version"]},
    "inside": {"inside": True},
    "chat": {"chat": True},
    "fp8": {"weights": "fp8", "kv_cache": "fp8"},
    "unknown setting": {"engine": {"name": "vllm", "version": "0.9", "settings": {"no_such": 3}}},
    "unknown engine": {"engine": {"name": "vllmx"}},
    "unknown model": {"model": "nobody/knows"},
    "unknown accelerator": {"accelerator": "abacus"},
    "more": {
        "measured": {
            "ttft_s": {"mean": 0.05, "p50": 0.04, "p99": 0.2},
            "itl_s": {"mean": 0.01},
            "e2e_s": {"mean": 0.6},
            "tpot_s": {"p99": 0.02},
            "requests_per_s": 4.0,
            "total_tokens_per_s": 900.0,
            "input_tokens_per_s": 800.0,
        }
    },
}


@pytest.mark.parametrize("name", POINTS)
def test_a_measured_point_is_as_recorded(name: str, tmp_path: Path) -> None:
    def told() -> Any:
        (point,) = read_points([folder(tmp_path, RAW | POINTS[name])])
        found: dict[str, Any] = {
            "point": {k: v for k, v in vars(point).items() if k not in ("folder", "columns", "logs", "scenario")}
        }
        if point.traffic["kind"] != "static_batch":
            traffic = traffic_of(point, 3)
            blocks = [[b.arrival_s, b.prompt_tokens, b.output_tokens] for b in traffic.blocks()]
            found["traffic"] = [blocks, traffic.total, [longest(point.traffic[k]) for k in ("prompt_tokens", "output_tokens")]]
        made = planned(point)
        found["plan"] = [
            made.name,
            made.replicas,
            made.model.name,
            made.accelerator.name,
            plain(made.layout),
            made.scheduler.name,
            made.profile.line,
            made.kv_blocks if point.kv_blocks else 0,
        ]
        if point.traffic["kind"] != "static_batch":
            found["predicted"] = predict(point, {})
        return found

    with formula():
        same("study-points", name, answer(told))


def test_what_changed_between_any_two_structures_is_told_as_recorded() -> None:
    some: list[Any] = [
        {"a": 1, "b": {"c": [1, 2]}},
        {"a": 2},
        {},
        [1, 2],
        [1, 3],
        [1],
        [],
        None,
        1,
        "x",
        {"b": {"c": [1, 3]}},
        {"b": 7},
    ]
    found = {f"{a} {b}": differences(a, b, where) for a in some for b in some for where in ("", "at")}
    same("study-statistics", "differences", found)


def test_lengths_that_are_drawn_are_as_recorded() -> None:
    told = (
        7,
        {"uniform": [3, 9]},
        {"uniform": [5, 5]},
        {"trace": "sharegpt", "mean": 200.0},
        {"trace": "nobody"},
        {"trace": "sharegpt"},
        {},
    )
    found = {
        json.dumps(what): [answer(draw, what, n, stream(1, "x"), side) for n in (1, 40) for side in ("prompt", "output")]
        for what in told
    }
    same("study-statistics", "lengths", found)


def test_notes_on_clients_in_step_are_as_recorded() -> None:
    found = {}
    for clients, requests, lengths in itertools.product((1, 2, 8, 64), (64, 2000), ("fixed", "uniform")):
        given = {
            "fixed": "{kind: fixed, prompt_tokens: 100, output_tokens: 20}",
            "uniform": "{kind: uniform, prompt_tokens: [1, 9], output_tokens: [1, 9]}",
        }[lengths]
        s = sim.load(
            "quickstart",
            [
                f"traffic.closed_loop.concurrency={clients}",
                f"traffic.synthetic.requests={requests}",
                f"traffic.synthetic.lengths={given}",
            ],
        )
        at = np.repeat(np.arange(requests // clients), clients) * 1.0
        found[f"{clients} {requests} {lengths}"] = [
            answer(in_step.note, s.traffic, at),
            answer(in_step.note, s.traffic, np.linspace(0.0, 9.0, requests)),
        ]
    same("study-statistics", "in step", found)
