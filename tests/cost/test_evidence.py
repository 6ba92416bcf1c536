"""What a cost says it rests on."""

from __future__ import annotations

import pytest

from sim import ledger
from sim.cost.build import build_tables
from sim.cost.evidence import GRADES
from sim.cost.layout import Layout
from sim.cost.profile import load_engine_profile
from sim.cost.step import new_table_cost
from sim.errors import ConfigError
from sim.hardware import load_accelerator
from sim.model import load_model
from tests.cost.common import batch, seconds_and_parts
from tests.cost.test_step import made


def test_measured_accelerator_rests_on_measurements():
    tables, evidence = made("llama-3.1-8b", "bf16", "h100-sxm", Layout(), "vllm")
    _, parts = seconds_and_parts(new_table_cost(*tables.packed()), batch(32, 1000))

    shares = evidence.shares(parts)

    assert set(shares) == set(GRADES)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["measured"] > 0.8


def test_stand_in_is_estimated_and_named():
    tables, evidence = made("llama-3.1-8b", "bf16", "l20", Layout(), "vllm")
    _, parts = seconds_and_parts(new_table_cost(*tables.packed()), batch(32, 1000))

    assert evidence.shares(parts)["measured"] == 0.0
    assert any("l40s" in note for note in evidence.notes)


def test_leaving_the_measured_range_warns():
    _, evidence = made("llama-3.1-8b", "bf16", "h100-sxm", Layout(), "vllm")

    assert evidence.warnings(context=100_000, rows=64) == []
    assert "context reached 500,000" in evidence.warnings(context=500_000)[0]
    assert evidence.as_dict()["operators"]
    assert set(evidence.by_part()) == set(ledger.PARTS)


def test_impossible_deployments_are_refused():
    profile = load_engine_profile("vllm")
    with pytest.raises(ConfigError, match="deployment.tp"):
        build_tables(load_model("llama-3.1-8b"), load_accelerator("h100-sxm"), Layout(tp=3), profile, 2048)
    with pytest.raises(ConfigError, match="max_tokens"):
        build_tables(load_model("llama-3.1-8b"), load_accelerator("h100-sxm"), Layout(), profile, 0)
