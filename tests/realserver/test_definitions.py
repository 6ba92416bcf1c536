"""Are our metrics the client's? Its own summary against ours, computed from the lists that it saved."""

import numpy as np
import pytest

from sim.metrics.latency import derive
from tests.realserver.files import RUNS, bench

NAMES = {"ttft_s": "ttft", "tpot_s": "tpot", "e2e_s": "e2el"}


@pytest.mark.parametrize("name", [f"{run}{half}" for run in RUNS for half in "AB"] + ["preempt"])
def test_definitions_are_the_clients(name):
    told = bench(name)
    start, ttft, e2e = (np.array(told[k]) for k in ("start_times", "ttfts", "latencies"))
    ours = derive(
        {
            "arrival_s": start,
            "first_scheduled_s": start,
            "first_token_s": start + ttft,
            "finish_s": start + e2e,
            "output_tokens": np.array(told["output_lens"]),
            "status": np.zeros(len(start), int),
        }
    )
    gaps = np.concatenate([np.array(x) for x in told["itls"]])
    samples = {NAMES[k]: v for k, v in ours.items() if k in NAMES} | {"itl": gaps}

    for short, values in samples.items():
        assert np.nanmean(values) == pytest.approx(told[f"mean_{short}_ms"] / 1e3, rel=1e-9)
        assert np.nanpercentile(values, 99) == pytest.approx(told[f"p99_{short}_ms"] / 1e3, rel=1e-9)
    assert ttft + np.array([sum(x) for x in told["itls"]]) == pytest.approx(e2e, rel=1e-9)
