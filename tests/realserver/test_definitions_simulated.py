"""What the server calls queue and KV use, in a simulation of it."""

import pytest

import sim
from tests.realserver.files import server


def loop(clients, prompt, output, requests=24, *more):
    return sim.run(
        server(
            f"traffic.closed_loop.concurrency={clients}",
            f"traffic.synthetic.lengths.prompt_tokens={prompt}",
            f"traffic.synthetic.lengths.output_tokens={output}",
            f"traffic.synthetic.requests={requests}",
            *more,
        )
    )


def test_kv_peak_is_a_peak():
    """One request of 160 tokens takes two of 39 usable blocks: the server logged 5.1 % at its highest, and the mean of a bin is less."""
    use = loop(1, 100, 60).summary["utilisation"]

    assert use["kv_peak"] == pytest.approx(2 / 39)
    assert 1 / 39 < use["kv_mean"] < 2 / 39


def test_kv_peak_without_a_time_series():
    result = loop(1, 100, 60, 24, "record.timeseries=false")

    assert result.summary["utilisation"]["kv_peak"] == pytest.approx(2 / 39)


def test_a_request_that_goes_into_the_next_step_never_queued():
    """The real server said 0.0 ms; HTTP and waiting for the running step are the way in."""
    latency = loop(1, 64, 32).summary["latency"]

    assert latency["queue_s"]["max"] == 0.0
    assert latency["ingress_s"]["min"] > 0.0

    several = loop(4, 64, 32).summary["latency"]
    assert several["queue_s"]["max"] == 0.0
    assert several["ingress_s"]["max"] > latency["ingress_s"]["max"]  # behind a running step


def test_a_request_without_a_slot_queues():
    latency = loop(24, 64, 32, 96).summary["latency"]  # 16 slots

    assert latency["queue_s"]["p90"] > 2 * latency["ingress_s"]["p90"]


def test_ingress_queue_and_the_rest_add_up():
    columns = loop(24, 64, 32, 96).columns

    wait = columns["first_scheduled_s"] - columns["arrival_s"]
    assert columns["ingress_s"] + columns["queue_s"] == pytest.approx(wait)
    assert (columns["arrival_s"] <= columns["taken_s"]).all()
    assert (columns["taken_s"] <= columns["first_scheduled_s"]).all()
