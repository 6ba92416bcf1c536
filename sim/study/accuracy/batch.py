"""Static batches: prefill and decode steps composed from the step cost alone, without a scheduler.

One batch of equal requests leaves a scheduler nothing to decide, so such points are simulated for every engine that has a profile of host
overheads and kernels, also for versions whose scheduler is not modelled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.cost import features as f
from sim.cost.build import build_tables
from sim.cost.layout import Layout
from sim.cost.plain import plain_step_time
from sim.cost.profile import EngineProfile
from sim.cost.tables import Tables
from sim.errors import NotModelledError
from sim.hardware import load_accelerator
from sim.model import load_model
from sim.study.accuracy.point import Point

_CHUNK = {"llama.cpp": 512, "ollama": 512, "sglang": 8192}  # most prompt tokens in a step; elsewhere the whole batch at once
_FROM_EMPTY = ("llama.cpp", "ollama")  # prompt and generation are timed apart; generation starts from an empty context
_CONTEXTS = 9  # decode steps are evaluated at so many contexts


def static_batch(point: Point, profile: EngineProfile) -> dict[str, float]:
    """Predicted figures of a ``static_batch`` point. Raises `ConfigError` and its kin for what does not run or is not modelled."""
    t = point.traffic
    batch, prompt, output = int(t["batch"]), t["prompt_tokens"], t["output_tokens"]
    if not isinstance(prompt, int | float) or not isinstance(output, int | float):
        raise NotModelledError("traffic", t, "static batches need fixed lengths")
    prompt, output = int(prompt), int(output)
    model = load_model(point.model, point.weights, point.kv_cache)
    accelerator = load_accelerator(point.accelerator)
    layout = Layout(tp=point.tp, pp=point.pp, dp=point.dp, ep=point.ep)
    chunk = _CHUNK.get(point.engine, max(batch * prompt, 1))
    tables, _ = build_tables(model, accelerator, layout, profile, max(min(batch * prompt, chunk), batch, 1))
    prefill = _prefill(tables, batch, prompt, chunk)
    start = 0 if point.engine in _FROM_EMPTY else prompt
    contexts = start + 1 + np.linspace(0, max(output - 2, 0), _CONTEXTS)
    decode = float(np.mean([_decode(tables, batch, c) for c in contexts]))
    outside = 0.0 if "step_s.decode" in point.measured or point.inside else profile.client_request + profile.client_first_token
    e2e = prefill + decode * (output - 1) + outside
    return {
        "step_s.prefill": prefill,
        "step_s.decode": decode,
        "ttft_s.mean": prefill + outside,
        "tpot_s.mean": decode,
        "e2e_s.mean": e2e,
        "output_tokens_per_s": batch * output / e2e,
        "input_tokens_per_s": batch * prompt / prefill if prefill else float("nan"),
    }


def _prefill(tables: Tables, batch: int, prompt: int, chunk: int) -> float:
    """All prompts, in chunks; a chunk of several short prompts or a piece of a long one."""
    total = 0.0
    rows = max(1, min(batch, chunk // max(prompt, 1)))
    for _ in range(-(-batch // rows)):
        for start in range(0, prompt, chunk):
            new = min(chunk, prompt - start)
            last = start + new == prompt
            total += plain_step_time(
                tables,
                _features(
                    {
                        f.TOKENS: rows * new,
                        f.PREFILL_ROWS: rows,
                        f.PREFILL_TOKENS: rows * new,
                        f.PREFILL_WORK: rows * new * (start + new / 2),
                        f.PREFILL_CTX: rows * (start + new),
                        f.SAMPLED: rows if last else 0,
                        f.ROWS: rows,
                    }
                ),
            )[0]
    return total


def _decode(tables: Tables, batch: int, context: float) -> float:
    rows = {f.TOKENS: batch, f.DECODE_ROWS: batch, f.DECODE_TOKENS: batch, f.SAMPLED: batch, f.ROWS: batch}
    return plain_step_time(tables, _features(rows | {f.DECODE_CTX: batch * context}))[0]


def _features(values: dict[int, float]) -> NDArray[np.float64]:
    feat = np.zeros(f.N_FEATURES)
    for index, value in values.items():
        feat[index] = value
    return feat
