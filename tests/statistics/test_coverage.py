"""Intervals contain the true value as often as they say: M/M/1 and M/D/1, whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from sim.study.statistics.batches import mean_interval
from sim.study.statistics.paired import paired_difference
from sim.study.statistics.percentile import percentile_interval
from sim.study.statistics.replications import replicated
from sim.study.statistics.truncation import mser5
from tests.statistics.queues import times_in_system, truth

CASES = [(0.5, 20_000, False), (0.7, 50_000, False), (0.6, 20_000, True), (0.7, 20_000, True)]


def covered(runs: int, load: float, n: int, deterministic: bool) -> dict[str, float]:
    """Share of runs whose interval contains the truth, by figure; all from single runs, the warm-up found and cut."""
    true = truth(load, deterministic)
    hits = dict.fromkeys(true, 0)
    for seed in range(runs):
        _, x = times_in_system(seed, n, load, deterministic)
        x = x[mser5(x) or 0 :]
        found = {"mean": mean_interval(x), "p50": percentile_interval(x, 0.5), "p99": percentile_interval(x, 0.99)}
        for key, interval in found.items():
            assert interval is not None
            hits[key] += interval.low <= true[key] <= interval.high
    return {key: hit / runs for key, hit in hits.items()}


def covered_difference(runs: int, load: float, n: int, deterministic: bool) -> dict[str, float]:
    """The same for 10 replications: their mean, and the paired difference to a machine 10 % faster."""
    slow, fast = truth(load, deterministic)["mean"], truth(0.9 * load, deterministic)["mean"]
    hits = {"replicated": 0, "difference": 0, "relative": 0}
    for run in range(runs):
        pairs = []
        for r in range(10):
            seed = 10 * run + r
            pairs.append([times_in_system(seed, n, load * f, deterministic)[1][n // 10 :].mean() for f in (1.0, 0.9)])
        a, b = np.array(pairs).T
        found, alone = paired_difference(a, b), replicated(a)
        assert found is not None
        assert alone is not None
        hits["replicated"] += alone.low <= slow <= alone.high
        hits["difference"] += found.change.low <= fast - slow <= found.change.high
        hits["relative"] += found.relative.low <= fast / slow - 1 <= found.relative.high
    return {key: hit / runs for key, hit in hits.items()}


@pytest.mark.parametrize(("load", "n", "deterministic"), CASES)
def test_coverage_of_a_hundred_runs(load: float, n: int, deterministic: bool) -> None:
    least = binom.ppf(0.0005, 100, 0.95) / 100  # what chance alone does to 100 runs
    for key, share in covered(100, load, n, deterministic).items():
        assert least <= share, (key, share)


@pytest.mark.parametrize("deterministic", [False, True])
def test_coverage_of_a_hundred_paired_differences(deterministic: bool) -> None:
    least = binom.ppf(0.0005, 100, 0.95) / 100
    for key, share in covered_difference(100, 0.6, 4000, deterministic).items():
        assert least <= share, (key, share)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "n", "deterministic"), CASES)
def test_coverage_of_a_thousand_runs(load: float, n: int, deterministic: bool) -> None:
    found = covered(1000, load, n, deterministic)
    print(load, n, "M/D/1" if deterministic else "M/M/1", found)
    for key, share in found.items():
        assert 0.93 <= share <= 0.97, (key, share)


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [False, True])
def test_coverage_of_a_thousand_paired_differences(deterministic: bool) -> None:
    found = covered_difference(1000, 0.6, 4000, deterministic)
    print("M/D/1" if deterministic else "M/M/1", found)
    for key, share in found.items():
        assert 0.93 <= share <= 0.97, (key, share)


@pytest.mark.parametrize("n", [2000, 5000])
def test_a_percentile_of_too_few_requests_is_open_above(n: int) -> None:
    """At a load of 0.8 a few thousand requests hold so few independent bursts that nothing bounds p99: it says so instead of guessing."""
    true, open_above, missed = truth(0.8, False)["p99"], 0, 0
    for seed in range(100):
        interval = percentile_interval(times_in_system(seed, n, 0.8, False)[1], 0.99)
        assert interval is not None
        open_above += interval.as_dict()["high"] is None
        missed += not interval.low <= true <= interval.high
    assert open_above > 60
    assert missed <= 12
