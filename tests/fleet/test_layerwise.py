"""KV that leaves layer by layer: what a transfer hides behind the prompt's computation, and what is left of it."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from tests.fleet.test_combinations import SIDES, check, text_of
from tests.fleet.test_side_faults import played

BANDWIDTH, LATENCY, LAYERS, TOKEN = 2e9, 0.002, 32, 131072.0


def pools(engine: str) -> str:
    return SIDES[engine].replace("replicas: 2", "replicas: 1")


def transfer(layerwise: bool, bandwidth: str = "2GB") -> str:
    return f"transfer: {{bandwidth: {bandwidth}, efficiency: 1, latency: 2ms, overhead: 0s, layerwise: {'true' if layerwise else 'false'}}}"


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("bandwidth", [2e9, 400e9])
def test_the_time_of_one_transfer(engine: str, bandwidth: float) -> None:
    """It ends when the first layer is computed and all have travelled, or when the last one has after it was computed."""
    lengths = "traffic.synthetic.lengths={kind: fixed, prompt_tokens: 1600, output_tokens: 3}"
    text = text_of(
        pools(engine), transfer(True, f"{bandwidth / 1e9:g}GB"), requests=3, arrival="{process: constant, rate: 0.1/s}"
    )
    result, _ = played(sim.config.to_yaml(sim.loads(text, [lengths])))
    r = result.columns
    whole = 1600 * TOKEN / bandwidth
    begun, done = r["first_scheduled_s"], r["prefill_end_s"]
    expected = np.maximum(begun + (done - begun) / LAYERS + whole, done + whole / LAYERS) + LATENCY
    if engine == "vllm":  # D takes memory when P is done: the KV is there already
        expected = np.maximum(expected, r["kv_allocated_s"])
    assert r["kv_arrived_s"] == pytest.approx(expected, abs=1e-9)
    assert ((r["kv_arrived_s"] - done) < whole + LATENCY).all()


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_all_the_same_travels_and_sooner(engine: str) -> None:
    found = {}
    for layerwise in (False, True):
        result, _ = played(
            text_of(pools(engine), transfer(layerwise, "1GB"), requests=120, arrival="{process: poisson, rate: 8/s}")
        )
        r = result.columns
        found[layerwise] = result.summary["fleet"]["kv_transferred_bytes"], float((r["kv_arrived_s"] - r["prefill_end_s"]).mean())
    assert found[True][0] == found[False][0]
    assert found[True][1] < found[False][1]


def test_it_obeys_the_laws_also_where_something_breaks() -> None:
    check(text_of(SIDES["vllm"], transfer(True, "500MB"), "faults: {name: crash, mtbf: 1s, for: 200ms}", requests=120), 0)
