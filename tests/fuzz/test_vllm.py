"""Random settings and loads against the executable reference model, every field of every step."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from sim.study.conformance.vllm import compare
from tests.fuzz import enough
from tests.fuzz.vllm_scenarios import random_scenario, shrink
from tests.within import Endless, within

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "vllm.py"


@pytest.fixture(scope="module")
def reference() -> Any:
    if not REFERENCE.is_file():
        pytest.skip("the reference model is not here")
    spec = importlib.util.spec_from_file_location("vllm_reference", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(reference: Any, scenario: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The reference's rows; None where the engine would ask for ever (a remote load that never fits)."""
    try:
        with within(10):
            return list(json.loads(json.dumps(reference.Sim(scenario).run())))
    except Endless:
        return None


def fuzz(reference: Any, steps: int, seed: int) -> None:
    while steps > 0:
        scenario = random_scenario(seed)
        seed += 1
        if scenario.get("connector") and scenario["engine"].get("num_speculative_tokens"):
            continue  # may live-lock
        rows = rows_of(reference, scenario)
        if rows is None:
            continue
        case = compare(scenario, rows, str(seed - 1))
        steps -= case.steps
        if case.difference is not None:

            def differs(smaller: dict[str, Any]) -> bool:
                rows = rows_of(reference, smaller)
                return rows is not None and compare(smaller, rows, "").difference is not None

            small = shrink(scenario, differs)
            case = compare(small, rows_of(reference, small) or [], "")
            pytest.fail(f"seed {seed - 1}, {len(small['requests'])} requests: {case.difference}\n{json.dumps(small)}")


def test_random_settings(reference):
    fuzz(reference, enough(20_000), 0)


@pytest.mark.slow
def test_many_random_settings(reference):
    fuzz(reference, 2_000_000, 1_000_000)
