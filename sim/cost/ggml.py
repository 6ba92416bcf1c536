"""Step cost of a model that llama.cpp keeps partly on the CPU: the tables of its parts, added up.

Layers follow one another, so times add. What is on the CPU is computed there while a micro-batch is small; from `MIN_BATCH` tokens on, the
products go to the card, to which the weights are copied first, once in every micro-batch, and of experts those that are used. Attention of
such layers stays with its KV cache for single tokens and follows the products for prompts, with a copy of the keys and values.

*Source*: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp ``ggml_backend_sched_backend_id_from_cur``, ``ggml_backend_sched_compute_splits`` (used
experts), ggml-cuda.cu ``ggml_backend_cuda_device_offload_op``, src/llama-context.cpp (micro-batches). Copies and computing do not overlap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.cost import step
from sim.cost.build import _Builder
from sim.cost.evidence import Evidence, Operator, merge_notes
from sim.cost.extras import Extras
from sim.cost.formats import expert_format
from sim.cost.forms import active_experts
from sim.cost.layout import Layout
from sim.cost.placement import Placement, Sizes
from sim.cost.profile import EngineProfile
from sim.cost.step import COMMS, COMPUTE, CONTEXT_GRID, FLOOR, MEMORY, ROWS_GRID, SMALL, grid_point
from sim.cost.tables import Tables
from sim.hardware.accelerator import Accelerator
from sim.model.spec import ModelSpec

if TYPE_CHECKING:
    from sim.model.spec import MoeShape

MIN_BATCH = 32
"""Tokens from which on products with weights in system memory are computed on the card (``GGML_OP_OFFLOAD_MIN_BATCH``)."""
_PAGEABLE = 0.4  # share of the host link that copies of weights mapped from a file reach: the driver stages them; estimated
_SWITCH = 20e-6  # seconds: the graph changes between card and CPU, with a synchronisation; estimated

Floats = NDArray[np.float64]
_NOTHING = Extras()


class _Part(_Builder):
    """The operators of some layers on one device; ``expert_layers`` of them have their experts here."""

    expert_layers: int | None = None

    def _experts(self, columns: Floats, sizes: Floats, moe: MoeShape) -> None:
        if self.expert_layers is not None:
            moe = moe._replace(layers=self.expert_layers)
        super()._experts(columns, sizes, moe)

    def only_experts(self, layers: int) -> Floats:
        """Columns of the routed experts of ``layers`` layers alone."""
        sizes = self._sizes()
        columns = np.zeros((sizes.size, 5))
        moe = self.m.moe_shape()
        assert moe is not None
        t = self.kernels.moe(expert_format(self.m, self.a), sizes, moe, 1)
        self._add(columns, t, layers)
        return self._fill(columns, sizes, ())


def placed_tables(
    model: ModelSpec, accelerator: Accelerator, layout: Layout, profile: EngineProfile, max_tokens: int, p: Placement
) -> tuple[Tables, Evidence]:
    """As `build.build_tables`, for a model placed as ``p`` says. ``layout.tp`` cards hold the layers one after the other."""
    cards = replace(layout, tp=1, pp=layout.tp * layout.pp, dp=1, ep=1, expert_imbalance=1.0)
    if p.whole or p.host is None:
        return _Part(model, accelerator, cards, profile, max_tokens).build(_NOTHING)
    return _Placed(model, accelerator, cards, profile, max_tokens, p).build()


class _Placed:
    def __init__(
        self, model: ModelSpec, card: Accelerator, layout: Layout, profile: EngineProfile, max_tokens: int, p: Placement
    ) -> None:
        assert p.host is not None
        self.model, self.card, self.host, self.p = model, card, p.host, p
        self.layout, self.profile, self.tokens = layout, profile, max_tokens
        self.bandwidth = card.host_bandwidth * _PAGEABLE
        self.sizes = Sizes.of(model, 0)
        on = model.layers - p.cpu_layers
        self.near = self._part(p.cpu_layers, model.layers, card, replace(layout, pp=min(layout.pp, on))) if on else None
        if self.near is not None and model.is_moe:
            self.near.expert_layers = sum(self.near.m.experts_in) - p.cpu_experts
        self.far = self._part(0, p.cpu_layers, p.host, Layout()) if p.cpu_layers else None
        self.lent = self._part(0, p.cpu_layers, card, Layout()) if p.cpu_layers else None  # the same layers, computed on the card
        self.parts = [part for part in (self.near, self.far, self.lent) if part is not None]

    def _part(self, first: int, last: int, where: Accelerator, layout: Layout) -> _Part:
        return _Part(self.model.part(first, last), where, layout, self.profile, self.tokens)

    def build(self) -> tuple[Tables, Evidence]:
        built = {id(part): part.build(_NOTHING) for part in self.parts}
        near, far, lent = (built[id(x)][0] if x is not None else None for x in (self.near, self.far, self.lent))
        rows = (near or far).layers.shape[0]  # type: ignore[union-attr]
        layers = np.zeros((rows, 5))
        if near is not None:
            layers += _launched(near.layers)
        layers += self._micro_batches(*self._elsewhere(rows, far, lent))
        shape = (ROWS_GRID, CONTEXT_GRID)
        decode, window, prefill, prefill_window = (np.zeros(shape) for _ in range(4))
        if near is not None:
            decode, window = decode + near.decode, window + near.decode_window
            prefill, prefill_window = prefill + near.prefill, prefill_window + near.prefill_window
        if far is not None and lent is not None:
            decode, window = decode + far.decode, window + far.decode_window
            there = lent if self.p.op_offload else far
            copies = self._kv_copies() if self.p.op_offload else (0.0, 0.0)
            prefill, prefill_window = prefill + there.prefill + copies[0], prefill_window + there.prefill_window + copies[1]
        base = near if near is not None else far
        assert base is not None
        head = _Part(self.model, self.host if self.p.head_on_cpu else self.card, Layout(), self.profile, 1)._head()
        constants = self._constants(base.constants, near, far)
        stage_share = np.ones(1) if near is None else near.stage_share
        tables = Tables(layers, layers, head, decode, prefill, window, prefill_window, constants, stage_share)
        return tables, self._evidence([e for _, e in built.values()])

    def _elsewhere(self, rows: int, far: Tables | None, lent: Tables | None) -> tuple[Floats, Floats]:
        """Columns by tokens of everything that is in system memory: computed on the CPU, and on the card with copied weights."""
        p, sizes = self.p, self.sizes
        tokens = np.arange(rows, dtype=float)
        small, large = np.zeros((rows, 5)), np.zeros((rows, 5))
        crossing = _SWITCH + tokens * self.model.hidden * 4.0 / self.bandwidth
        dense, routed, switches = 0.0, 0.0, 0
        if far is not None and lent is not None:
            small += far.layers
            small[:, FLOOR] = 0.0
            large += _launched(lent.layers)
            dense, routed, switches = sum(sizes.layers[: p.cpu_layers]), sum(sizes.experts[: p.cpu_layers]), 2
        if p.cpu_experts:
            small += _Part(self.model, self.host, Layout(), self.profile, self.tokens).only_experts(p.cpu_experts)
            large += _Part(self.model, self.card, Layout(), self.profile, self.tokens).only_experts(p.cpu_experts)
            routed += p.cpu_experts * max(sizes.experts)
            switches += 2 * p.cpu_experts
        small[:, COMMS] += switches * crossing
        share = (
            active_experts(tokens, self.model.n_experts, self.model.top_k) / self.model.n_experts if self.model.n_experts else 0.0
        )
        large[:, COMMS] += (dense + routed * share) / self.bandwidth
        return small, large

    def _micro_batches(self, small: Floats, large: Floats) -> Floats:
        """Columns of steps, which are computed in micro-batches, from columns of one micro-batch."""
        rows = len(small)
        tokens = np.arange(rows)
        one = np.where(((tokens >= MIN_BATCH) & self.p.op_offload)[:, None], large, small)
        one[0] = 0.0
        u = min(self.p.n_ubatch, rows - 1)
        out: Floats = (tokens // u)[:, None] * one[u] + one[tokens % u]
        return out

    def _kv_copies(self) -> tuple[Floats, Floats]:
        """Seconds to copy the keys and values of the CPU's layers for prompts of ``rows`` × ``length``, full and windowed."""
        rows = np.array([grid_point(i) for i in range(ROWS_GRID)])[:, None]
        length = np.array([grid_point(i) for i in range(CONTEXT_GRID)])[None, :]
        assert self.lent is not None
        per_token = {g.kind: g.layers * g.bytes_per_token for g in self.lent.m.kv_groups()}
        full = rows * length * (per_token.get("full", 0.0) / self.bandwidth)
        window = rows * np.minimum(length, max(self.model.window, 1)) * (per_token.get("sliding", 0.0) / self.bandwidth)
        return full, window

    def _constants(self, base: Floats, near: Tables | None, far: Tables | None) -> Floats:
        k = base.copy()
        kinds = self.model.kinds
        both = [t.constants for t in (near, far) if t is not None]
        for index in (step.DECODE_FLOOR, step.DECODE_ROW_STATE, step.PREFILL_TOKEN_STATE):
            k[index] = sum(c[index] for c in both)
        k[step.FULL_SHARE] = float(kinds.count("full"))
        k[step.WINDOW_SHARE] = float(len(kinds) - kinds.count("full") - kinds.count("linear"))
        k[step.WINDOW] = max(c[step.WINDOW] for c in both)
        return k

    def _evidence(self, found: list[Evidence]) -> Evidence:
        operators = [replace_grade(o) for e in found for o in e.operators]
        p, n = self.p, self.model.layers
        where = f"{p.cpu_layers} of {n} layers" if p.cpu_layers else f"the experts of {p.cpu_experts} of {n} layers"
        note = (
            f"{where} on the CPU ({self.host.title}): its memory bandwidth for single tokens; for {MIN_BATCH} tokens and more "
            f"the weights are copied to the card at {self.bandwidth / 1e9:.1f} GB/s (estimated)"
        )
        transfer = Operator("copies of weights", "communication", "estimated", "share of the host link, sim/cost/ggml.py")
        if not p.op_offload:
            note = f"{where} on the CPU ({self.host.title})"
        return Evidence((*operators, transfer), found[0].ranges, merge_notes(*(e.notes for e in found), [note]))


def replace_grade(o: Operator) -> Operator:
    """The operator as estimated: published speeds of partly placed models are few."""
    return o._replace(grade="estimated")


def _launched(table: Floats) -> Floats:
    """The table with the time of launching kernels one by one (`FLOOR`) added to what it delays, where other devices wait for it."""
    out = table.copy()
    device = table[:, [COMPUTE, MEMORY, COMMS, SMALL]].sum(axis=1)
    out[:, SMALL] += (device**8 + table[:, FLOOR] ** 8) ** (1.0 / 8.0) - device
    out[:, FLOOR] = 0.0
    return out
