"""Random servers and loads: our batches, written down as a recording, must satisfy the executable reference model."""

from __future__ import annotations

import importlib.util
import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.study.conformance.llamacpp import _prompt, batches, check
from tests.fuzz import enough

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "llamacpp.py"


@pytest.fixture(scope="module")
def reference() -> Any:
    if not REFERENCE.is_file():
        pytest.skip("the reference model is not here")
    spec = importlib.util.spec_from_file_location("llamacpp_reference", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.open = lambda path: io.StringIO(Path(path).read_text())  # the reference leaves files open
    module.toks = lambda spec: _tokens(json.dumps(spec))
    return module


@lru_cache(maxsize=1 << 14)
def _tokens(spec: str) -> list[int]:
    return _prompt(json.loads(spec))


def scenario(rng: np.random.Generator, requests: int) -> tuple[dict[str, Any], list[tuple[float, int]]]:
    """A run without its outcome, and (arrival, request) in order; every step takes 1."""
    slots = int(rng.choice([1, 2, 3, 4, 8]))
    unified = bool(rng.random() < 0.3)
    ctx = int(rng.choice([256, 512, 1024]))
    words = ["llama-server", "-np", str(slots), "-b", str(rng.choice([16, 64, 128, 512]))]
    words += ["-c", str(ctx if unified else ctx * slots)] + ["-kvu"] * unified
    words += ["--context-shift"] * int(rng.random() < 0.5) + (["--cache-ram", "0"] if rng.random() < 0.4 else [])
    if unified:
        ctx *= slots  # room for every slot: what a full unified cache does is not the reference's
        words[words.index("-c") + 1] = str(ctx)
    asked: list[dict[str, Any]] = []
    arrivals: list[tuple[float, int]] = []
    t, gap = 0.0, float(rng.choice([1.0, 8.0, 40.0]))
    longest = min(ctx if not unified else ctx // slots, 512)
    for i in range(requests):
        t += int(rng.exponential(gap)) if rng.random() < 0.7 else 0
        old = asked[int(rng.integers(len(asked)))]["prompt_spec"] if asked and rng.random() < 0.5 else []
        spec = [*old[: int(rng.integers(0, len(old) + 1))], [int(rng.integers(1, 40)), int(rng.integers(2, longest // 3))]]
        while sum(n for _, n in spec) >= longest:
            spec = spec[1:]
        n = int(rng.integers(1, 60 if rng.random() < 0.8 else 400))
        if unified:
            n = min(n, longest - sum(k for _, k in spec))
        request: dict[str, Any] = {"n": n, "prompt_spec": spec}
        if rng.random() < 0.2:
            request["n_keep"] = int(rng.integers(-1, 20))
        asked.append(request)
        arrivals.append((t, i))
    run = {
        "cmd": " ".join(words),
        "total_slots": slots,
        "n_ctx_slot": ctx if unified else -(-ctx // 256) * 256,
        "requests": asked,
    }
    return run, arrivals


def write(folder: Path, run: dict[str, Any], arrivals: list[tuple[float, int]]) -> int:
    """Our own outcome as a recording; returns its steps.

    Tasks are numbered in the order of their launches, which is the first that the reference tries: it takes any order that explains the slots,
    and another one may leave something else in the prompt cache.
    """
    prompts = [_tokens(json.dumps(r["prompt_spec"])) for r in run["requests"]]
    rows, refused = batches(run, prompts, arrivals)
    assert refused == []
    task = [-1] * run["total_slots"]
    steps, records, launches = [], [], 0
    for k, row in enumerate(rows):
        for i, slot in row["launched"]:
            task[slot] = launches
            launches += 1
            outcome = {"i": i, "status": 200, "timings": {"x": 1}, "id_slot": slot, "tok_us": [k], "t_stop": k}
            records.append(outcome)
        active = sorted({slot for slot, *_ in row["runs"]} | {slot for _, slot in row["launched"]})
        steps.append({"runs": row["runs"], "slots": [[slot, task[slot]] for slot in active]})
    (folder / "run.json").write_text(json.dumps(run | {"records": records}))
    (folder / "run.steps.jsonl").write_text("\n".join(json.dumps(s) for s in steps) + "\n")
    return len(steps)


def compare(reference: Any, folder: Path, seed: int, requests: int) -> tuple[int, str | None]:
    """Steps compared, and the difference."""
    run, arrivals = scenario(np.random.default_rng([seed, 41]), requests)
    steps = write(folder, run, arrivals)
    reference.D = f"{folder}/"
    found = reference.check("run")
    if found["first"] or found["slot_bad"]:
        return steps, f"seed {seed}, {requests} requests, {run['cmd']}: {found['first']}, {found['slot_bad']} wrong slots"
    return steps, None


def _fuzz(reference: Any, folder: Path, target: int) -> None:
    done, seed = 0, 0
    while done < target:
        steps, difference = compare(reference, folder, seed, 40)
        if difference is not None:
            for n in range(1, 40):  # the fewest requests that still differ
                _, smaller = compare(reference, folder, seed, n)
                if smaller is not None:
                    pytest.fail(smaller)
            pytest.fail(difference)
        done += steps
        seed += 1


def test_random_servers_agree_with_the_reference(reference: Any, tmp_path: Path) -> None:
    _fuzz(reference, tmp_path, enough(20_000))


@pytest.mark.slow
def test_many_random_servers_agree_with_the_reference(reference: Any, tmp_path: Path) -> None:
    _fuzz(reference, tmp_path, 2_000_000)


def test_our_own_recording_is_replayed_by_conformance(tmp_path: Path) -> None:
    for seed in range(5):
        run, arrivals = scenario(np.random.default_rng([seed, 42]), 25)
        steps = write(tmp_path, run, arrivals)
        (case,) = check(tmp_path / "run.steps.jsonl")
        assert (case.matched, case.difference) == (steps, None), seed
