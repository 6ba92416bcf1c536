"""A host and step times that nobody measured: what is recorded with them stays when a real profile is fitted anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from sim.cost import step
from sim.cost.evidence import Evidence
from sim.cost.profile import EngineProfile, load_engine_profile
from sim.cost.shared import SHARED_PARTS, new_shared_cost

TOKENS, SAMPLED = 512, 64
"""Rows of the tables; beyond them the slope goes on."""
FIGURES = {
    step.HOST_STEP: 1e-3, step.HOST_ROW: 1.1e-5, step.HOST_PREFILL_ROW: 2.3e-5, step.HOST_TOKEN: 1.7e-7, step.HOST_GAP: 2e-4,
    step.DECODE_FLOOR: 5e-5, step.MIXED_FACTOR: 1.3, step.MIXED_ROW: 3e-6, step.FULL_SHARE: 0.75, step.WINDOW_SHARE: 0.25,
    step.WINDOW: 128.0, step.DRAFT_TOKEN: 1.9e-5, step.DRAFT_STEP: 4e-4, step.ENCODER_TOKEN: 7e-6, step.ENCODER_PAIR: 3e-9,
    step.LORA_STEP: 2.1e-4, step.LORA_TOKEN: 1.3e-6, step.LORA_ADAPTER: 5e-5, step.LORA_LOAD: 4.3e-3, step.LORA_READ: 2.9e-2,
    step.BLOCK_COPY: 3.7e-5, step.DECODE_ROW_STATE: 2e-6, step.PREFILL_TOKEN_STATE: 1e-7, step.CONTEXT_TOKEN: 0.2,
}  # fmt: skip


@cache
def tables() -> tuple[Any, int, int, int]:
    """Data of `sim.cost.step.StepCost`, and where rows for decode, for prompts and for the head begin."""
    rows = np.array([step.grid_point(i) for i in range(step.ROWS_GRID)])[:, None]
    length = np.array([step.grid_point(i) for i in range(step.CONTEXT_GRID)])[None, :]
    decode, prefill = 1e-4 + 2e-8 * rows * length, 2e-4 + 1.5e-9 * rows * length**2
    tokens, sampled = np.arange(TOKENS + 1.0), np.arange(SAMPLED + 1.0)

    def columns(n: Any, compute: float, memory: float, floor: float) -> Any:
        return np.stack([compute * n, np.full(n.size, memory), 2e-7 * n, np.full(n.size, 1e-4), np.full(n.size, floor)], axis=1)

    constants = np.zeros(step.N_CONSTANTS)
    constants[list(FIGURES)] = list(FIGURES.values())
    blocks = [decode, prefill, 0.4 * decode, 0.3 * prefill]
    blocks += [columns(tokens, 1.2e-5, 4e-3, 1e-3), columns(tokens, 1.3e-5, 4.2e-3, 3e-3), columns(sampled, 3e-6, 3e-4, 0.0)]
    wide = step._COLUMNS * (TOKENS + 1)
    return np.concatenate([constants, *(b.ravel() for b in blocks)]), step.LAYERS, step.LAYERS + wide, step.LAYERS + 2 * wide


def cost(stages: int, overlap: bool) -> Any:
    """A step cost."""
    data, layers, prompts, head = tables()
    data = data.copy()
    data[step.HOST_OVERLAP] = float(overlap)
    share = np.arange(1.0, stages + 1)
    return step.new_table_cost(data, layers, prompts, TOKENS, head, SAMPLED, share / share.sum())


def shared() -> Any:
    """What ranks that step together share."""
    n = np.arange(257.0)[:, None] * np.linspace(1e-6, 4e-6, SHARED_PARTS)
    return new_shared_cost(np.concatenate([(1e-3 + n).ravel(), (2e-3 + n).ravel()]), 256, 64, 32)


def profile(*asked: Any) -> EngineProfile:
    """The host side: of the real profile only what is no time."""
    real = load_engine_profile(*asked)
    left: dict[str, Any] = {f.name: 0.0 for f in fields(real) if f.type in ("float", "float | None")}
    left |= {name: 1.0 for name in left if name.endswith(("scale", "factor", "prefill"))}
    left |= {"client_request": 4e-3, "client_serial": 1e-3, "client_first_token": 2e-3, "client_prompt_token": 1e-6}
    left |= {"host_step": 1e-3, "eager_layer": 1e-4, "structured_row": 1e-5, "client_chat": 3e-3, "client_chat_serial": 5e-4}
    sizes = tuple(g for g in (1, 2, 4, *range(8, 513, 8)) if real.graph_sizes)
    return replace(real, **left, graph_sizes=sizes, band={}, figures={})


@contextmanager
def fixed(costs: list[str]) -> Iterator[None]:
    """Deployments are planned with these; what each would have asked of the real ones is noted in ``costs``."""

    def instead(model: Any, accelerator: Any, layout: Any, host: Any, tokens: int, extras: Any, ranks: Any = None) -> Any:
        bare = profile(host.engine, host.line)
        told = {f.name: getattr(host, f.name) for f in fields(host) if getattr(host, f.name) != getattr(bare, f.name)}
        told |= {f.name: getattr(extras, f.name) for f in fields(extras) if f.name not in ("notes", "draft")}
        told |= {
            "draft": getattr(extras.draft, "name", None),
            "tokens": tokens,
            "pp": layout.pp,
            "tp": layout.tp,
            "dp": layout.dp,
        }
        costs.append(", ".join(f"{k} {v!r}" for k, v in sorted(told.items())))
        return cost(layout.pp, host.overlap), shared() if ranks is not None and ranks.together else None, Evidence(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.fleet.build.load_engine_profile", profile)
        patch.setattr("sim.fleet.build.step_costs", instead)
        yield
