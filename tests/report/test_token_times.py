"""`record.token_times`: the gaps in exports are those simulated, request by request and in order, and nothing else changes."""

import numpy as np
import pytest

import sim
from sim.errors import NotModelledError
from sim.metrics.result import load_result
from sim.report.exports import vllm_bench
from sim.report.exports._facts import gap_lists

ONE = {"accelerator": "h100-sxm", "replicas": 1}
DRAFTS = {"name": "vllm", "speculative_config": {"num_speculative_tokens": 3, "acceptance_rate": 0.7}}
ROLES = [ONE | {"name": "p", "role": "prefill", "engine": "vllm"}, ONE | {"name": "d", "role": "decode", "engine": "vllm"}]
RANKS = {"accelerator": "h100-sxm", "dp": 2, "ep": 2, "engine": "vllm"}
KINDS = {
    "vllm": ONE | {"engine": "vllm"},
    "sglang": ONE | {"engine": "sglang"},
    "short of memory": ONE | {"engine": {"name": "vllm", "max_model_len": 8192}, "kv_blocks": 600},
    "drafts": ONE | {"engine": DRAFTS},
    "roles": ROLES,
    "ranks": RANKS,
}


def run(on, deployment, **more):
    where = {"pools": deployment} if isinstance(deployment, list) else {"deployment": deployment}
    lengths = {"kind": "azure-2023-conv"}
    traffic = {"synthetic": {"arrival": {"process": "poisson", "rate": "20/s"}, "lengths": lengths, "requests": 60}}
    model = "deepseek-v2-lite" if deployment is RANKS else "llama-3.1-8b"
    given = {"name": "t", "model": model, "traffic": traffic, "record": {"token_times": on}, **where, **more}
    return sim.run(sim.Scenario.model_validate(given))


@pytest.mark.parametrize("kind", KINDS)
def test_gaps_are_those_of_each_request(kind):
    plain, exact = (run(on, KINDS[kind]) for on in (False, True))
    for name, column in plain.columns.items():
        np.testing.assert_array_equal(column, exact.columns[name])
    assert plain.summary.latency == exact.summary.latency
    gaps, c = gap_lists(exact), exact.columns
    np.testing.assert_allclose([one.sum() for one in gaps], c["e2e_s"] - c["ttft_s"], atol=1e-9)
    count = np.array([len(one) for one in gaps])
    if kind == "drafts":  # a step with accepted drafts is one chunk
        assert (count <= c["output_tokens"] - 1).all()
        assert count.sum() < 0.6 * (c["output_tokens"] - 1).sum()
    else:
        np.testing.assert_array_equal(count, c["output_tokens"] - 1)
    every, said = np.concatenate(gaps), exact.summary.latency.itl
    assert every.min() > 0
    assert (every.mean(), every.max()) == (pytest.approx(said.mean), pytest.approx(said.max))
    if kind == "short of memory":
        assert c["preemptions"].sum() > 0


def test_they_are_exported_in_order_and_kept(tmp_path):
    result = run(True, KINDS["vllm"])
    out = vllm_bench(result, detailed=True)
    gaps = gap_lists(result)
    assert out["itls"] == [one.tolist() for one in gaps]
    assert out["std_itl_ms"] == pytest.approx(1e3 * np.concatenate(gaps).std())
    assert [sum(one) > 0 for one in out["itls"]] == (result.columns["output_tokens"] > 1).tolist()
    again = load_result(result.save(tmp_path / "r"))
    for one, other in zip(gap_lists(again), gaps, strict=True):
        np.testing.assert_array_equal(one, other)
    without = run(False, KINDS["vllm"])
    without.save(tmp_path / "r")
    assert load_result(tmp_path / "r").token_times is None
    assert not (tmp_path / "r" / "token_times.parquet").exists()


def test_a_request_whose_prompt_comes_in_between_waits_longer_just_then():
    """The order means something: of one long answer the gaps in which another prompt is computed are the long ones."""
    lengths = {"kind": "fixed", "prompt_tokens": 3000, "output_tokens": 200}
    traffic = {"synthetic": {"arrival": {"process": "constant", "rate": "1/s"}, "lengths": lengths, "requests": 2}}
    result = run(True, KINDS["vllm"], traffic=traffic)
    c = result.columns
    first = gap_lists(result)[0]
    at = c["first_token_s"][0] + np.cumsum(first)
    (long,) = np.flatnonzero(first > 3 * np.median(first))
    assert abs(at[long] - c["first_token_s"][1]) < 0.02


def test_several_attempts_are_refused():
    with pytest.raises(NotModelledError, match=r"record.token_times"):
        run(True, KINDS["vllm"], clients={"name": "openai", "timeout": "30s"})
