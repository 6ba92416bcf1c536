"""A context that is longer than the model's, where the engine cuts it in silence, is said."""

from __future__ import annotations

import pytest

import sim
from sim.study.idle import check_traffic
from sim.study.single import Prepared

SHORT = ["traffic.synthetic.requests=5", "traffic.synthetic.lengths={kind: fixed, prompt_tokens: 100, output_tokens: 5}"]


@pytest.mark.parametrize(("num_ctx", "said"), [(200_000, True), (4096, False)])
def test_it_is_named_with_both_lengths(num_ctx: int, said: bool) -> None:
    scenario = sim.load("quickstart", [*SHORT, "model=llama-2-7b", f"deployment.engine={{name: ollama, num_ctx: {num_ctx}}}"])
    prepared = Prepared(scenario)
    notes = [n for n in check_traffic(prepared.plans, prepared.traffic) if "is cut to that" in n]
    assert bool(notes) == said
    if said:
        assert "200,000" in notes[0]
        assert "4,096" in notes[0]
