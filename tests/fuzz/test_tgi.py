"""Random settings and loads against the executable reference model, decision by decision."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.study.conformance.tgi import Replay, _comparable
from tests.engines.tgi_bench import random_scenario
from tests.fuzz import enough

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "tgi.py"


@pytest.fixture(scope="module")
def reference() -> Any:
    if not REFERENCE.is_file():
        pytest.skip("the reference model is not here")
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("tgi_reference", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def recorded(
    reference: Any, cfg: dict[str, Any], requests: list[dict[str, Any]], version: int
) -> tuple[list[Any], list[list[int]]]:
    """The reference's rows in the form of a recording, and its token times."""
    sim = reference.Sim(cfg, requests, version).run()
    rows = json.loads(json.dumps(sim.trace))
    for row in rows:
        new = row.get("new")
        for request in new["requests"] if isinstance(new, dict) else ():
            if isinstance(request, dict):
                request["blocks"] = [[b, 1] for b in request.pop("bl")]
    return rows, sim.tok


def first_difference(reference: Any, cfg: dict[str, Any], requests: list[dict[str, Any]], version: int) -> tuple[int, str | None]:
    """Rows compared, and the first difference."""
    theirs, times = recorded(reference, cfg, requests, version)
    replay = Replay(cfg, requests, version)
    ours = list(replay.rows())
    for i, (a, b) in enumerate(zip(theirs, ours, strict=False)):
        left, right = _comparable(a, b)
        if left != right:
            return i, f"row {i}\n reference {left}\n ours      {right}"
    if len(theirs) != len(ours):
        return len(ours), f"{len(theirs)} rows in the reference, {len(ours)} here"
    for r, (request, a, b) in enumerate(zip(requests, times, replay.times, strict=True)):
        if "drop" not in request and a != b:
            return len(ours), f"token times of request {r}: {a} and {b}"
    return len(ours), None


def shrink(reference: Any, cfg: dict[str, Any], requests: list[dict[str, Any]], version: int) -> str:
    """The smallest load, by leaving requests out, that still differs."""
    i = 0
    while i < len(requests):
        fewer = requests[:i] + requests[i + 1 :]
        if fewer and first_difference(reference, cfg, fewer, version)[1]:
            requests = fewer
        else:
            i += 1
    return f"v{version} {cfg}\n{requests}\n{first_difference(reference, cfg, requests, version)[1]}"


def fuzz(reference: Any, seed: int, steps: int) -> int:
    rng = np.random.default_rng(seed)
    done = scenarios = 0
    while done < steps:
        cfg, requests, version = random_scenario(rng, int(rng.integers(3, 40)))
        count, difference = first_difference(reference, cfg, requests, version)
        if difference:
            pytest.fail(f"seed {seed}, scenario {scenarios}\n{shrink(reference, cfg, requests, version)}")
        done += count
        scenarios += 1
    return done


def test_random_loads_match_the_reference(reference: Any) -> None:
    assert fuzz(reference, 1, enough(20_000)) >= enough(20_000)


@pytest.mark.slow
def test_many_random_loads_match_the_reference(reference: Any) -> None:
    assert fuzz(reference, 2, 2_000_000) >= 2_000_000
