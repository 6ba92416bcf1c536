"""Random hosts and models: our placement decisions against the executable reference model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.engine.schedulers.ollama.layout import LoadRequiredFullError, create_layout
from sim.engine.schedulers.ollama.placement import Gpu, automatic_batch, available_memory, select_placement
from tests.fuzz import enough

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "ollama.py"


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    if not REFERENCE.is_file():
        pytest.skip("the reference model is not here")
    names: dict[str, Any] = {"__file__": str(REFERENCE), "__name__": "reference"}
    names["open"] = lambda path: io.StringIO(Path(path).read_text())  # the reference leaves files open
    try:
        exec(compile(REFERENCE.read_text(), str(REFERENCE), "exec"), names)  # evaluates its rows, then exits
    except SystemExit as end:
        assert not end.code
    return names


def _gpus(rng: np.random.Generator) -> list[dict[str, Any]]:
    libraries = ["CUDA", "ROCm"] if rng.random() < 0.3 else ["CUDA"]
    sizes = 10_000_000 * rng.integers(5, 200, int(rng.integers(1, 5)))
    return [
        {"id": str(n), "library": str(rng.choice(libraries)), "integrated": bool(rng.random() < 0.3), "free": int(size)}
        for n, size in enumerate(sizes)
    ]


def _layout_differs(reference: dict[str, Any], rng: np.random.Generator) -> str | None:
    gpus, system = _gpus(rng), 10_000_000 * int(rng.integers(1, 200))
    layers = (5_000_000 * rng.integers(1, 60, int(rng.integers(1, 40)))).tolist()
    case = {"gpus": gpus, "layers": layers, "num_gpu": int(rng.integers(-1, 45)) if rng.random() < 0.4 else -1}
    case["require_full"] = bool(rng.random() < 0.3)
    least = int(rng.choice([0, 20_000_000]))
    if sum(layers) > 8 * (min(g["free"] for g in gpus) - least):
        case["num_gpu"] = -1  # the reference's search may never end when a GPU is overloaded further
    theirs = reference["layout"](case, {"free": system}, least)
    ours: Any
    try:
        left = [Gpu(g["id"], max(g["free"] - least, 0), g["library"], g["integrated"]) for g in gpus]
        ours = [[s.gpu, list(s.layers)] for s in create_layout(layers, left, case["num_gpu"], case["require_full"], system)]
    except LoadRequiredFullError:
        ours = "ErrLoadRequiredFull"
    return None if ours == theirs else f"{case}: reference {theirs}, ours {ours}"


def _placement_differs(reference: dict[str, Any], rng: np.random.Generator) -> str | None:
    gpus, system = _gpus(rng), 10_000_000 * int(rng.integers(0, 200))
    own = [Gpu(g["id"], g["free"], g["library"], g["integrated"]) for g in gpus]
    case = {"gpus": gpus, "system_free": system, "predicted": 10_000_000 * int(rng.integers(0, 300)), "main_gpu": None}
    case["spread"] = bool(rng.random() < 0.2)
    chosen, main = reference["place"](case)
    ours = select_placement(own, case["predicted"], system, None, case["spread"])
    if ([g["id"] for g in chosen], main) != ([g.id for g in ours.gpus], ours.main_gpu):
        return f"{case}: reference {chosen}, ours {ours}"
    free = available_memory(own, system).available
    flash, cuda = str(rng.choice(["auto", "disabled"])), int(rng.integers(0, 20)) << 30
    batch = {
        "effective_ctx": int(rng.choice([2048, 4096, 8192, 40000])),
        "predicted": case["predicted"],
        "available": free,
        "flash": flash,
        "cuda_free": cuda if rng.random() < 0.7 else None,
    }
    theirs = reference["agb"](batch)
    mine = automatic_batch(batch["effective_ctx"], batch["predicted"], free, batch["flash"], batch["cuda_free"])
    return None if theirs == mine else f"{batch}: reference {theirs}, ours {mine}"


def _fuzz(reference: dict[str, Any], cases: int) -> None:
    for seed in range(cases):
        rng = np.random.default_rng([seed, 43])
        differs = _layout_differs(reference, rng) if seed % 2 else _placement_differs(reference, rng)
        assert differs is None, f"seed {seed}: {differs}"


def test_random_hosts_agree_with_the_reference(reference: dict[str, Any]) -> None:
    _fuzz(reference, enough(3_000))


@pytest.mark.slow
def test_many_random_hosts_agree_with_the_reference(reference: dict[str, Any]) -> None:
    _fuzz(reference, 1_000_000)
