"""Each statistical idea by itself: against definitions, published values and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.study.statistics import paired as paired_module
from sim.study.statistics.attainment import attainment_interval, wilson
from sim.study.statistics.batches import mean_interval, worth_of
from sim.study.statistics.holm import holm
from sim.study.statistics.paired import paired_difference
from sim.study.statistics.percentile import percentile_interval
from sim.study.statistics.replications import MOST, needed, replicated
from sim.study.statistics.stationary import judge
from sim.study.statistics.throughput import throughput_interval
from sim.study.statistics.truncation import mser, mser5
from tests.statistics.queues import times_in_system, truth


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60))
def test_mser_is_its_definition(values: list[float]) -> None:
    x = np.array(values)
    n = len(x)
    spread = np.array([((x[d:] - x[d:].mean()) ** 2).sum() / (n - d) ** 2 for d in range(n // 2 + 1)])
    assert spread[mser(x)] <= spread.min() + 1e-9 * max(1.0, float((x * x).sum()))


def test_mser_cuts_what_is_plainly_not_the_rest() -> None:
    """White's picture: a start far from the level of the rest is cut exactly, a series without one is not."""
    rest = np.tile([1.0, -1.0], 100)
    assert mser(np.concatenate([np.full(17, 30.0), rest])) == 17
    assert mser(rest) <= 1


@pytest.mark.parametrize("bias", [5.0, 20.0])
def test_mser5_on_an_autoregressive_series_with_a_dying_start(bias: float) -> None:
    """White, Cobb and Spratt (2000): AR(1) output with a bias that dies geometrically; what is cut leaves next to nothing of it."""
    left = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x = np.empty(2000)
        level = 0.0
        for i, noise in enumerate(rng.normal(size=2000)):
            level = 0.5 * level + noise
            x[i] = level + bias * 0.98**i
        cut = mser5(x)
        assert cut is not None
        left.append(bias * 0.98**cut)
        assert cut < 600
    assert np.median(left) < 1.15  # the standard deviation of the series itself
    assert 4 * np.mean(left) / 1900 < bias / 2000  # a quarter at most of the bias of the mean is left


def autoregressive(seed: int) -> np.ndarray:
    """600 values of an AR(1) series from a start of its own, by a generator that is written down here."""
    x, state, level = np.empty(600), seed, 8.0 * (seed % 4)
    for i in range(600):
        state = (1_103_515_245 * state + 12_345) % 2**31
        level = 0.9 * level + (state / 2**31 - 0.5)
        x[i] = level + 1
    return x


def test_mser5_cuts_where_a_published_program_does() -> None:
    """pyMSER 1.0.8 (Oliveira et al. 2024, J. Chem. Theory Comput. 20, 8559), given these series with ``batch_size=5``, prints these cuts."""
    printed = [40, 20, 25, 0, 25, 35, 35, 55, 120, 25, 30, 0]
    assert [mser5(autoregressive(seed)) for seed in range(1, 13)] == printed


def test_mser5_on_the_cases_of_another_published_program() -> None:
    """The cases that kim-convergence (openkim) tests its MSER-5 with, and what it asks of them."""
    noise = np.random.RandomState(12345).random_sample(1000) - 0.5  # the generator of those tests
    for start in (np.arange(10.0), np.arange(20.0, 10.0, -1.0)):
        assert (mser5(np.concatenate([start, 10.0 + noise])) or 0) >= 10
    assert mser5(np.arange(100.0)) is None
    assert mser5(np.ones(100)) == 0
    both = np.random.RandomState(12345)
    climb, level = np.arange(1000) / 100 + both.random_sample(1000) - 0.5, 10.0 + both.random_sample(1000) - 0.5
    cut = mser5(np.concatenate([climb, level]))  # theirs: 1005, in the second half, so not settled; ours looks at the first half
    assert cut is None or cut >= 990


@pytest.mark.parametrize("waiting", [100, 300])
def test_mser5_on_a_queue_that_starts_full(waiting: int) -> None:
    """M/M/1 with a backlog of w at the start drains at the rate μ − λ: known to be gone after about w·λ/(μ − λ) arrivals."""
    load, cuts, kept, whole = 0.6, [], [], []
    drained = waiting * load / (1 - load)
    n = int(60 * drained)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        service, gaps = rng.exponential(load, n + waiting), np.concatenate([np.zeros(waiting), rng.exponential(1.0, n)])
        walk = np.cumsum(np.concatenate([[0.0], service[:-1] - gaps[1:]]))
        times = (walk - np.minimum.accumulate(np.minimum(walk, 0.0)) + service)[waiting:]
        cut = mser5(times)
        assert cut is not None
        cuts.append(cut)
        kept.append(times[cut:].mean())
        whole.append(times.mean())
    assert 0.7 * drained < np.median(cuts) < 1.5 * drained
    true = truth(load, False)["mean"]
    assert abs(np.mean(kept) / true - 1) < 0.03
    assert np.mean(whole) / true > 1.2


def test_mser5_says_when_a_series_never_settles() -> None:
    assert mser5(np.linspace(0, 100, 1000) + np.random.default_rng(1).normal(size=1000)) is None
    assert mser5(np.ones(20)) is None


def test_wilson_is_the_published_interval() -> None:
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for share, n, low, high in (
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ):
        assert wilson(share, n) == pytest.approx((low, high), abs=5e-5)


def test_independent_requests_are_worth_themselves_and_bursts_are_not() -> None:
    rng = np.random.default_rng(4)
    met = rng.random(20_000) < 0.9
    clustered = np.repeat(rng.random(200) < 0.9, 100)
    assert worth_of(met.astype(float)) > 8000
    assert worth_of(clustered.astype(float)) < 800
    assert attainment_interval(clustered).half > 3 * attainment_interval(met).half  # type: ignore[union-attr]
    assert attainment_interval(np.ones(1000)).high == 1.0  # type: ignore[union-attr]
    assert 0.99 < attainment_interval(np.ones(1000)).low < 1.0  # type: ignore[union-attr]


def test_percentile_of_independent_values_is_the_order_statistic() -> None:
    x = np.random.default_rng(3).exponential(size=10_000)
    found = percentile_interval(x, 0.9)
    assert found is not None
    exact = stats.mstats.mquantiles(x, stats.beta.ppf([0.025, 0.975], 9000, 1001))
    assert found.low == pytest.approx(exact[0], rel=0.05)
    assert found.high == pytest.approx(exact[1], rel=0.05)


def test_too_few_values_have_no_interval() -> None:
    assert mean_interval(np.ones(99)) is None
    assert percentile_interval(np.ones(99), 0.5) is None
    assert attainment_interval(np.ones(99)) is None
    assert replicated([1.0]) is None
    assert paired_difference([1.0], [2.0]) is None


def test_replications_are_students_t() -> None:
    values = [3.1, 2.9, 3.4, 3.0, 3.2]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    found = replicated(values)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high))
    assert needed(values, 0.5) == 5
    assert 5 < needed(values, 0.02) <= MOST
    assert needed([1.0, 100.0], 1e-6) == MOST


def test_holm_is_the_published_example() -> None:
    """Holm (1979): p of 0.01, 0.04, 0.03, 0.005 adjust to 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_only_raises_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b and a <= 1 for a, b in zip(adjusted, p, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_a_paired_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(10, 3, 12)
    b = a + rng.normal(0.5, 0.3, 12)
    found = paired_difference(a, b)
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.effect == pytest.approx((b - a).mean() / (b - a).std(ddof=1))
    assert found.significant
    assert stats.ttest_ind(a, b).pvalue > 0.5  # which is what the common random numbers are for


@pytest.mark.parametrize(
    ("ratio", "noise", "says"),
    [
        (0.82, 0.02, "lowers p99 TTFT by"),
        (1.3, 0.02, "raises p99 TTFT by"),
        (1.0, 0.001, "p99 TTFT unchanged (±"),
        (1.02, 0.5, "not shown to differ"),
        (50.0, 0.02, "raises p99 TTFT to 49"),
    ],
)
def test_verdicts(ratio: float, noise: float, says: str) -> None:
    rng = np.random.default_rng(5)
    a = rng.uniform(0.5, 2.0, 10)
    found = paired_difference(a, a * ratio * np.exp(rng.normal(0, noise, 10)))
    assert found is not None
    assert says in found.verdict("p99 TTFT")


def test_equal_runs_do_not_differ_and_constant_shifts_do() -> None:
    same = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert same is not None
    assert not same.significant
    assert "unchanged" in same.verdict("TPOT")
    shifted = paired_difference([1.0, 1.0, 1.0], [1.5, 1.5, 1.5])
    assert shifted is not None
    assert shifted.significant
    assert shifted.as_dict()["effect"] is None
    assert paired_module.percent(0.18) == "18 %"


def test_throughput_leaves_out_filling_and_draining() -> None:
    arrival, time = times_in_system(3, 20_000, 0.7, False)
    found = throughput_interval(arrival, arrival + time)
    assert found is not None
    assert found.low <= 1.0 <= found.high
    assert throughput_interval(np.zeros(500), np.ones(500)) is None
    assert throughput_interval(arrival, arrival + arrival.max()) is None  # nothing ends before the last arrival


def test_throughput_without_chance_is_exact_and_leaves_out_the_start() -> None:
    """Two requests a second, each finished when the next one comes, three tokens each; nothing is finished in the first twentieth."""
    arrival = np.arange(2001) / 2.0
    finish = np.where(arrival < 40.0, 1e6, arrival + 0.5)
    found, tokens = throughput_interval(arrival, finish), throughput_interval(arrival, finish, np.full(2001, 3.0))
    assert found is not None and tokens is not None
    assert (found.low, found.value, found.high) == pytest.approx((2.0, 2.0, 2.0), rel=0.02)
    assert tokens.value == pytest.approx(3.0 * found.value)


@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
def test_a_stable_queue_is_stationary(load: float) -> None:
    flagged = 0
    for seed in range(60):
        arrival, time = times_in_system(seed, 10_000, load, False)
        flagged += judge(arrival, arrival + time).startswith("Not")
    assert flagged == 0


def test_a_run_that_ends_while_a_system_without_queue_fills_is_no_overload() -> None:
    """M/G/∞: whoever comes is served at once. Runs of two mean service times end before as many are inside as there will be."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        arrival = np.cumsum(rng.exponential(1 / 100, 2_000))
        assert judge(arrival, arrival + rng.lognormal(np.log(8.0), 0.8, 2_000)) == ""


@pytest.mark.parametrize("load", [1.1, 1.5, 4.0])
@pytest.mark.parametrize("n", [5_000, 20_000])
def test_overload_is_found(load: float, n: int) -> None:
    for seed in range(20):
        arrival, time = times_in_system(seed, n, load, False)
        assert "more arrives than is served" in judge(arrival, arrival + time), seed
        assert judge(arrival, arrival + time, closed_loop=True) == ""


def test_a_changing_load_is_found() -> None:
    rng = np.random.default_rng(1)
    gaps = np.concatenate([rng.exponential(1, 3000), rng.exponential(1 / 3, 3000), rng.exponential(1, 3000)])
    arrival = np.cumsum(gaps)
    assert "offered load changes" in judge(arrival, arrival + 0.1)


@pytest.mark.parametrize(("rate", "changes"), [(1.0, False), (1.3, False), (1.45, False), (1.6, True), (3.0, True)])
def test_a_load_that_differs_by_half_between_parts_of_a_run_has_changed(rate: float, changes: bool) -> None:
    arrival = np.cumsum(np.concatenate([np.full(20_000, 1.0), np.full(20_000, 1.0 / rate)]))
    assert ("offered load changes" in judge(arrival, arrival + 0.1)) is changes


def test_a_few_requests_more_in_a_part_of_a_short_run_are_chance() -> None:
    """Ten a part and seventeen in one of them: less than what chance does to counts as small as these."""
    gaps = np.full(300, 1.0)
    gaps[100:117] = 0.5
    arrival = np.cumsum(gaps)
    assert judge(arrival, arrival + 0.1) == ""


def test_erlangs_formula_agrees_with_a_long_run() -> None:
    _, x = times_in_system(1, 2_000_000, 0.7, True)
    found = truth(0.7, True)
    assert np.quantile(x, 0.99) == pytest.approx(found["p99"], rel=0.03)
    assert np.quantile(x, 0.5) == pytest.approx(found["p50"], rel=0.02)
