"""Random settings and loads against the executable reference model, round by round."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.study.conformance.mindie import DEFAULTS, replay
from tests.engines.mindie_bench import random_recording

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "mindie.py"
KINDS = ("base", "sel", "swap", "mtp", "ftw", "chunk")
KEYS = ("t", "mode", "batch", "recomputed", "waiting", "running", "swapped", "free", "empties")


@pytest.fixture(scope="module")
def reference() -> Any:
    if not REFERENCE.is_file():
        pytest.skip("the reference model is not here")
    spec = importlib.util.spec_from_file_location("mindie_reference", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def first_difference(reference: Any, settings: dict[str, Any], requests: list[dict[str, Any]]) -> tuple[int, str | None]:
    """Rounds compared, and the first difference."""
    c = DEFAULTS | settings
    theirs = (reference.chunked if c["enableChunkedPrefill"] else reference.plain)(c, requests)
    ours = []
    whole = True
    for row in replay(c, requests):
        if not row["batch"] and row["swaps"][0] > 0:
            whole = False  # the reference does not execute a batch that only swaps
            break
        row["batch"] = [b[:2] for b in row["batch"]]
        ours.append([row[k] for k in KEYS])
    for i, (a, b) in enumerate(zip(theirs, ours, strict=False)):
        if a != b:
            return i, f"round {i}\n reference {a}\n ours      {b}"
    if whole and len(theirs) != len(ours):
        return len(ours), f"{len(theirs)} rounds in the reference, {len(ours)} here"
    return len(ours), None


def shrink(reference: Any, settings: dict[str, Any], requests: list[dict[str, Any]]) -> str:
    """The smallest load, by leaving requests out, that still differs."""
    i = 0
    while i < len(requests):
        fewer = [r | {"id": k} for k, r in enumerate(requests[:i] + requests[i + 1 :])]
        if fewer and first_difference(reference, settings, fewer)[1]:
            requests = fewer
        else:
            i += 1
    return f"{settings}\n{requests}\n{first_difference(reference, settings, requests)[1]}"


def fuzz(reference: Any, seed: int, rounds: int) -> int:
    rng = np.random.default_rng(seed)
    done = scenarios = 0
    while done < rounds:
        settings, requests = random_recording(rng, int(rng.integers(3, 50)), KINDS[scenarios % len(KINDS)])
        count, difference = first_difference(reference, settings, requests)
        if difference:
            pytest.fail(f"seed {seed}, scenario {scenarios}\n{shrink(reference, settings, requests)}")
        done += count
        scenarios += 1
    return done


def test_random_loads_match_the_reference(reference: Any) -> None:
    assert fuzz(reference, 1, 20_000) >= 20_000


@pytest.mark.slow
def test_many_random_loads_match_the_reference(reference: Any) -> None:
    assert fuzz(reference, 2, 2_000_000) >= 2_000_000
