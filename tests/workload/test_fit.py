"""The built-in traffic against the traces it was fitted to, and the fit itself."""

import numpy as np
import pytest
import yaml
from scipy import stats

from sim.resources import path
from sim.workload import build_traffic
from sim.workload.fit import fit_lengths, main
from tests.workload.conftest import whole

KINDS = ["conv", "code"]


def drawn(kind, requests=100_000):
    section = {"arrival": {"process": "poisson", "rate": 8}, "lengths": {"kind": f"azure-2023-{kind}"}, "requests": requests}
    return whole(build_traffic({"synthetic": section}))


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_traffic_is_like_the_trace(traces, kind):
    """Distributions within one per cent of probability, means within two per cent, rank correlation within 0.02."""
    real = whole(build_traffic({"trace": {"format": "azure-2023", "path": str(traces / f"azure2023_{kind}.csv.gz")}}))
    ours = drawn(kind)

    for column in ("prompt_tokens", "output_tokens"):
        x, y = getattr(real, column), getattr(ours, column)
        assert stats.ks_2samp(x, y).statistic < 0.01
        assert y.mean() == pytest.approx(x.mean(), rel=0.02)
        p = [0.01, 0.1, 0.5, 0.9, 0.99]
        np.testing.assert_allclose(np.quantile(y, p), np.quantile(x, p), rtol=0.03, atol=1)
    rank = [stats.spearmanr(b.prompt_tokens, b.output_tokens).statistic for b in (real, ours)]
    assert rank[0] == pytest.approx(rank[1], abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_the_profile_is_what_the_fit_makes_of_the_trace(traces, tmp_path, kind):
    profile = path("profiles", "traffic", f"azure-2023-{kind}.yaml")
    had = yaml.safe_load(profile.read_text())
    made = tmp_path / "made.yaml"
    main(
        [
            str(traces / f"azure2023_{kind}.csv.gz"),
            str(made),
            "--name",
            had["name"],
            "--source",
            had["source"],
            "--licence",
            had["licence"],
        ]
    )

    assert made.read_text() == profile.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_profile_means_and_source(kind):
    profile = yaml.safe_load(path("profiles", "traffic", f"azure-2023-{kind}.yaml").read_text())
    block = drawn(kind)

    assert "Azure" in profile["source"]
    assert block.prompt_tokens.mean() == pytest.approx(profile["prompt_mean"], rel=0.02)
    assert block.output_tokens.mean() == pytest.approx(profile["output_mean"], rel=0.02)


def test_a_fit_recovers_what_it_was_made_from():
    rng = np.random.default_rng(5)
    z = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 50_000)
    prompt, output = np.rint(np.exp(z[:, 0] + 6)) + 1, np.rint(np.exp(z[:, 1] / 2 + 4)) + 1
    table = fit_lengths(prompt.astype(int), output.astype(int))
    section = {"arrival": "burst", "lengths": {"kind": "empirical", "quantiles": table}, "requests": 50_000}
    block = whole(build_traffic({"synthetic": section}))

    assert stats.ks_2samp(prompt, block.prompt_tokens).pvalue > 1e-4
    assert stats.ks_2samp(output, block.output_tokens).pvalue > 1e-4
    assert np.corrcoef(np.log(block.prompt_tokens), np.log(block.output_tokens))[0, 1] == pytest.approx(0.5, abs=0.02)
