"""What is drawn follows the distributions that the scenario names, and nothing but the seed decides it."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sim import registry
from sim.errors import ConfigError
from sim.streams import stream
from tests.workload.conftest import FIXED, as_bytes, whole

N = 20_000
ROOT = Path(__file__).parents[2]
SURPRISE = 1e-4  # a correct draw fails a test this rarely, and with a fixed seed never again


def gaps_of(traffic):
    return np.diff(whole(traffic).arrival_s, prepend=0.0)


def test_streams_are_independent_of_each_other():
    a, b, c = (stream(seed, name).random(N) for seed, name in ((0, "arrivals"), (0, "lengths"), (1, "arrivals")))

    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert abs(np.corrcoef(a, c)[0, 1]) < 0.03
    assert (a == stream(0, "arrivals").random(N)).all()


def test_poisson_gaps_are_exponential(synthetic):
    gaps = gaps_of(synthetic(requests=N))

    assert stats.kstest(gaps, "expon", (0, 1 / 8)).pvalue > SURPRISE


@pytest.mark.parametrize("cv", [0.25, 1.0, 2.0])
def test_gamma_gaps_have_the_cv_asked_for(synthetic, cv):
    gaps = gaps_of(synthetic(requests=N, arrival={"process": "gamma", "rate": 5, "cv": cv}))

    assert stats.kstest(gaps, "gamma", (cv**-2, 0, cv**2 / 5)).pvalue > SURPRISE


def test_stages_have_the_rates_asked_for(synthetic):
    stages = [
        {"rate": "4/s", "duration": "100s"},
        {"rate": 4, "to": 36, "duration": 50},
        {"rate": 0, "duration": 25},
        {"rate": 0, "to": 8, "duration": 50},
    ]
    traffic = synthetic(requests=16_000, arrival={"process": "stages", "stages": stages})
    at = whole(traffic)[:16_000].arrival_s % 225

    assert traffic.mean_rate == pytest.approx(1600 / 225)
    assert np.histogram(at, [0, 100, 150, 175, 225])[0] == pytest.approx([4000, 10_000, 0, 2000], abs=300)
    ramp = at[(at >= 100) & (at < 150)] - 100
    assert stats.kstest(ramp, lambda t: (4 * t + 0.32 * t * t) / 1000).pvalue > SURPRISE
    flat = at[at < 100]
    assert stats.kstest(flat, "uniform", (0, 100)).pvalue > SURPRISE


def test_constant_arrivals_are_evenly_spaced_across_chunks(synthetic):
    arrival = whole(synthetic(requests=40_000, arrival={"process": "constant", "rate": 4})).arrival_s

    np.testing.assert_array_equal(np.arange(40_000) / 4, arrival)


def test_a_burst_comes_at_once_and_has_no_rate(synthetic):
    traffic = synthetic(arrival="burst")

    assert not whole(traffic).arrival_s.any()
    assert traffic.mean_rate == np.inf
    with pytest.raises(ConfigError, match="no rate"):
        traffic.with_rate(3.0)


def test_uniform_lengths(synthetic):
    block = whole(synthetic(requests=N, lengths={"kind": "uniform", "prompt_tokens": [5, 14], "output_tokens": [1, 3]}))

    assert stats.chisquare(np.bincount(block.prompt_tokens)[5:]).pvalue > SURPRISE
    assert np.unique(block.output_tokens).tolist() == [1, 2, 3]


def test_lognormal_lengths_have_the_mean_and_spread_asked_for(synthetic):
    spread = {"mean": 1000, "cv": 0.8}
    block = whole(
        synthetic(requests=N, lengths={"kind": "lognormal", "prompt_tokens": spread, "output_tokens": spread | {"max": 900}})
    )

    assert block.prompt_tokens.mean() == pytest.approx(1000, rel=0.03)
    assert block.prompt_tokens.std() == pytest.approx(800, rel=0.06)
    sigma = np.sqrt(np.log1p(0.64))
    assert stats.kstest(np.log(block.prompt_tokens), "norm", (np.log(1000) - sigma**2 / 2, sigma)).pvalue > SURPRISE
    assert block.output_tokens.max() == 900


def test_quantile_tables_and_their_rank_correlation(synthetic):
    table = {"p": [0, 0.5, 1], "prompt_tokens": [1, 101, 1001], "output_tokens": [10, 20, 1000], "rank_correlation": -0.6}
    block = whole(synthetic(requests=N, lengths={"kind": "empirical", "quantiles": table}))

    assert (block.prompt_tokens <= 101).mean() == pytest.approx(0.5, abs=0.012)
    assert stats.spearmanr(block.prompt_tokens, block.output_tokens).statistic == pytest.approx(-0.6, abs=0.02)
    assert (block.prompt_tokens.max(), block.output_tokens.max()) <= (1001, 1000)


@pytest.mark.parametrize("rank_correlation", [-1, 1])
def test_complete_correlation(synthetic, rank_correlation):
    table = {"p": [0, 1], "prompt_tokens": [1, 9999], "output_tokens": [1, 9999], "rank_correlation": rank_correlation}
    block = whole(synthetic(lengths={"kind": "empirical", "quantiles": table}))

    assert stats.spearmanr(block.prompt_tokens, block.output_tokens).statistic == pytest.approx(rank_correlation)


@pytest.mark.parametrize("parquet", [False, True])
def test_empirical_pairs_stay_together(synthetic, tmp_path, parquet):
    import pandas as pd

    frame = pd.DataFrame({"id": ["a", "b", "c"], "input_tokens": [1, 20, 300], "output_tokens": [7, 5, 3]})
    path = tmp_path / "lengths"
    frame.to_parquet(path) if parquet else frame.to_csv(path)
    traffic = synthetic(requests=N, lengths={"kind": "empirical", "path": str(path)})
    block = whole(traffic)

    pairs, count = np.unique(np.stack([block.prompt_tokens, block.output_tokens]), axis=1, return_counts=True)
    assert pairs.tolist() == [[1, 20, 300], [7, 5, 3]]
    assert stats.chisquare(count).pvalue > SURPRISE
    assert (traffic.max_prompt_tokens, traffic.max_tokens) == (300, 307)


def test_limits_redraw_instead_of_cutting(synthetic):
    traffic = synthetic(requests=N, lengths={"kind": "azure-2023-conv", "max_total_tokens": 2048, "max_prompt_tokens": 1500})
    block = whole(traffic)
    total = block.prompt_tokens + block.output_tokens

    assert len(block) == N
    assert total.max() <= 2048 == traffic.max_tokens
    assert (total == 2048).mean() < 0.002
    assert block.prompt_tokens.max() <= 1500 == traffic.max_prompt_tokens


def test_limits_that_nothing_meets_are_refused(synthetic):
    with pytest.raises(ConfigError, match="hardly ever"):
        whole(synthetic(lengths=FIXED | {"max_total_tokens": 50}))


SPIKE = [{"rate": 2, "duration": 60}, {"rate": 2, "to": 20, "duration": 10}, {"rate": 0, "duration": 5}]
SETTINGS = [
    {},
    {"lengths": {"kind": "azure-2023-code", "max_total_tokens": 4096}, "arrival": {"process": "gamma", "rate": 3, "cv": 2}},
    {"prefixes": {"groups": 5, "shared_tokens": 10, "zipf": 1.0}, "arrival": {"process": "stages", "stages": SPIKE}},
    {"sessions": {"turns": [1, 6], "think_time": 30, "max_context": 500}, "prefixes": {"shared_tokens": 7}},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_block_size_changes_nothing(synthetic, settings):
    traffic = synthetic(requests=20_000, **settings)
    want = as_bytes(whole(traffic))

    for rows in (777, 65_536):
        assert want == as_bytes(whole(traffic, rows))
        assert max(map(len, traffic.blocks(rows))) <= rows


@pytest.mark.parametrize("settings", SETTINGS[:3])
def test_fewer_requests_are_the_beginning_of_more(synthetic, settings):
    some, more = whole(synthetic(requests=20, **settings)), whole(synthetic(requests=30_000, **settings))

    assert len(some) >= 20
    assert as_bytes(some) == as_bytes(more[: len(some)])


def test_another_process_draws_the_same(synthetic):
    code = (
        "from tests.workload.test_draws import *; from sim.workload import build_traffic;"
        "s = {'arrival': {'process': 'poisson', 'rate': 8}, 'lengths': {'kind': 'azure-2023-conv'}, 'requests': 5000};"
        "print(hashlib.sha256(as_bytes(whole(build_traffic({'synthetic': s}, 11)))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    here = whole(synthetic(seed=11, requests=5000, lengths={"kind": "azure-2023-conv"}))

    assert there.stdout.strip() == hashlib.sha256(as_bytes(here)).hexdigest()


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_another_rate_stretches_time_and_changes_nothing_else(synthetic, settings):
    traffic = synthetic(**settings)
    slow, fast = whole(traffic), whole(traffic.with_rate(2 * traffic.mean_rate))

    np.testing.assert_allclose(slow.arrival_s, 2 * fast.arrival_s, rtol=1e-12)
    fast.arrival_s = slow.arrival_s
    assert as_bytes(slow) == as_bytes(fast)


def test_seeds_differ(synthetic):
    assert as_bytes(whole(synthetic(seed=0))) != as_bytes(whole(synthetic(seed=1)))


def test_endless_traffic(synthetic):
    traffic = synthetic(requests=None)
    blocks = traffic.blocks(1000)

    assert traffic.total is None
    assert [len(next(blocks)) for _ in range(40)] == [1000] * 40


def test_shared_prefixes_follow_zipf(synthetic):
    block = whole(synthetic(requests=N, prefixes={"groups": 4, "shared_tokens": 30, "zipf": 1.0}))
    groups, count = np.unique(block.span_id[::2], return_counts=True)

    assert (block.prompt_tokens == 130).all()
    assert len(groups) == 4
    weights = 1 / np.arange(1, 5)
    assert stats.chisquare(count, N * weights / weights.sum()).pvalue > SURPRISE
    assert len(np.unique(block.span_id[1::2])) == N


@pytest.mark.parametrize("kind", ["arrival", "length", "trace"])
def test_every_class_describes_its_settings(kind):
    for name in registry.names(kind):
        model = registry.lookup(kind, name).Params
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
        assert all(f.description for f in model.model_fields.values()), name
        assert model.__doc__


def test_a_class_in_a_users_file(synthetic, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "from sim.workload.arrivals._base import ArrivalParams, Renewal\n"
        "class Pairs(Renewal):\n"
        "    name = 'pairs'\n"
        "    def gaps(self, rng, n):\n"
        "        return np.tile([0.0, 2.0], n // 2)\n"
    )
    arrival = whole(synthetic(arrival={"process": f"{path}:Pairs", "rate": 1}, requests=4)).arrival_s

    assert arrival.tolist() == [0, 2, 2, 4]


@pytest.mark.parametrize(
    "settings", [{}, {"prefixes": {"shared_tokens": 50}}, {"sessions": {"turns": 4}, "prefixes": {"shared_tokens": 50}}]
)
@pytest.mark.parametrize("closed_loop", [None, {"concurrency": 2}])
def test_traffic_for_a_short_context(synthetic, settings, closed_loop):
    lengths = {"kind": "uniform", "prompt_tokens": [1, 100], "output_tokens": [1, 100]}
    traffic = synthetic(lengths=lengths, closed_loop=closed_loop, **settings).up_to(130)
    block = whole(traffic)

    assert len(block) == 1000 == traffic.total
    assert (block.prompt_tokens + block.output_tokens).max() <= 130 == traffic.max_tokens
    if closed_loop:
        assert as_bytes(traffic.closed_loop.next(0)[0]) == as_bytes(next(traffic.conversations()))
    with pytest.raises(ConfigError):
        whole(traffic.up_to(1))


STAGES = [{"rate": 15, "duration": 10}, {"rate": 45, "duration": 5}, {"rate": 15, "duration": 10}]


def test_stages_are_played_to_their_end(synthetic):
    traffic = synthetic(requests=None, arrival={"process": "stages", "stages": STAGES})
    at = whole(traffic).arrival_s

    assert 440 < traffic.total == len(at) < 610  # 525 on average
    assert 24 < at[-1] < 25
    assert traffic.notes == ()


def test_a_stage_is_played_to_its_end_whatever_the_number_of_requests(synthetic):
    traffic = synthetic(requests=200, arrival={"process": "stages", "stages": STAGES})

    assert 14 < whole(traffic).arrival_s[-1] < 15
    (note,) = traffic.notes
    assert "traffic was to end after 200 requests: stage 2 of 3 is played to its end" in note
    assert "1 later stage does not come" in note
    again = synthetic(requests=2000, arrival={"process": "stages", "stages": STAGES})
    assert again.total >= 2000
    assert again.notes[0].endswith(f"is played to its end, with {again.total:,}")


def test_the_result_says_which_stage_was_played_to_its_end():
    import sim

    arrival = "traffic.synthetic.arrival={process: stages, stages: [{rate: 20, duration: 5}, {rate: 40, duration: 5}]}"
    short = sim.run(sim.load("quickstart", [arrival, "traffic.synthetic.requests=50"]))
    assert any("stage 1 of 2 is played to its end" in w for w in short.warnings)
