"""The table of metrics covers what is printed."""

from sim.metrics.definitions import DEFINITIONS, LATENCIES, SLO_METRICS, as_markdown, definition


def test_every_latency_and_target_is_defined() -> None:
    assert all(definition(key).formula for key in (*LATENCIES, *SLO_METRICS))


def test_keys_are_unique_and_in_the_markdown() -> None:
    keys = [m.key for m in DEFINITIONS]
    table = as_markdown()

    assert len(set(keys)) == len(keys)
    assert all(f"`{key}`" in table for key in keys)
