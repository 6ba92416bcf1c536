"""Building a step cost: the operators of every layer, tabulated once per (model, accelerator, layout, engine profile)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sim.cost import step
from sim.cost.attention import surfaces
from sim.cost.drafts import EAGLE3_VOCABULARY
from sim.cost.evidence import Evidence, merge_notes
from sim.cost.extras import DraftShare, Extras, extra_constants, pass_seconds
from sim.cost.formats import Gemm, expert_format, gemm_format, plain_format
from sim.cost.fused import fused, linear_shapes, moe_shape
from sim.cost.kernels import Kernels
from sim.cost.launches import around_experts, chunked, eager, piecewise, quantised_inputs, small_kernels
from sim.cost.layout import Layout, Wires
from sim.cost.profile import EngineProfile
from sim.cost.recurrent import state_time
from sim.cost.residual import Floats
from sim.cost.sampling import PLAIN, add_sampling
from sim.cost.step import COMMS, COMPUTE, FLOOR, MEMORY, SMALL
from sim.cost.tables import Tables
from sim.errors import ConfigError
from sim.hardware.accelerator import Accelerator
from sim.hardware.accelerator import Evidence as Grade
from sim.model.mixers import Attention
from sim.model.mlps import Dense
from sim.model.spec import LinearShape, ModelSpec

if TYPE_CHECKING:
    from sim.cost.forms import Times
    from sim.cost.residual import Numbers
    from sim.cost.step import StepCost
    from sim.model.spec import MoeShape

MAX_TABLE = 16384  # tokens: beyond, every GEMM is compute bound and time is linear
MAX_SAMPLED = 1024
# bytes: 58.7 MB (Bloom, 2,048 tokens) goes as smaller messages do, 67.1 MB (Llama 2 70B, 4,096) does not
_LARGE_MESSAGE = 64 * 2**20
# share of memory bandwidth that norms, activations and rotary embeddings reach (assumed in the operator study)
_SMALL_EFFICIENCY = 0.75

NO_EXTRAS = Extras()


def build_step_cost(
    model: ModelSpec,
    accelerator: Accelerator,
    layout: Layout,
    engine_profile: EngineProfile,
    max_tokens: int,
    extras: Extras = NO_EXTRAS,
) -> tuple[StepCost, Evidence]:
    """The compiled cost of one engine step and what it rests on. ``max_tokens``: most tokens of one step. Raises `ConfigError`."""
    tables, evidence = build_tables(model, accelerator, layout, engine_profile, max_tokens, extras)
    return step.new_table_cost(*tables.packed()), evidence


def build_tables(
    model: ModelSpec,
    accelerator: Accelerator,
    layout: Layout,
    profile: EngineProfile,
    max_tokens: int,
    extras: Extras = NO_EXTRAS,
) -> tuple[Tables, Evidence]:
    """The arrays of a step cost, without compiling anything."""
    if max_tokens < 1:
        raise ConfigError("max_tokens", max_tokens, "must be at least 1")
    if extras.placement is not None:
        from sim.cost.ggml import placed_tables

        tables, evidence = placed_tables(model, accelerator, layout, profile, max_tokens, extras.placement)
        notes = add_sampling(extras.sampling, profile, model.vocab, tables.head[:, SMALL])
        return tables, replace(evidence, notes=merge_notes(evidence.notes, notes))
    model.check_parallelism(layout.tp, layout.pp, layout.ep, layout.dp)
    return _Builder(model, accelerator, layout, profile, max_tokens).build(extras)


def build_rank_tables(
    model: ModelSpec,
    accelerator: Accelerator,
    layout: Layout,
    profile: EngineProfile,
    max_tokens: int,
    extras: Extras = NO_EXTRAS,
) -> tuple[Tables, Floats, Floats, Evidence]:
    """As `build_tables`, for ranks that step together: tables of one rank without the experts, and the experts' rows by tokens per rank.

    The latter twice: padded to captured graphs, and as they are. See `sim.cost.together`.
    """
    builder = _Builder(model, accelerator, layout, profile, max_tokens, together=True)
    tables, evidence = builder.build(extras)
    return tables, *builder.experts(), evidence


def _busy(columns: Floats) -> Floats:
    share: Floats = columns[:, COMPUTE] / columns.sum(axis=1)
    return share


class _Builder:
    def __init__(
        self,
        model: ModelSpec,
        accelerator: Accelerator,
        layout: Layout,
        profile: EngineProfile,
        max_tokens: int,
        together: bool = False,
    ) -> None:
        self.together = together
        self.m, self.a, self.layout, self.profile = model, accelerator, layout, profile
        self.kernels = Kernels(accelerator, profile.kernels, profile.compute_scale, profile.mxfp4_marlin)
        self.wires = Wires.of(layout, accelerator)
        self.fused = fused(model, accelerator, layout) if profile.fused_shared_experts else 0
        for width, n in (("tp", layout.tp), ("pp", layout.pp), ("dp", layout.dp), ("ep", layout.ep)):
            if n > 1 and self.wires.link.bandwidth <= 0.0 and self.wires.inside(n) > 1:
                raise ConfigError(
                    f"deployment.{width}", n, f"{accelerator.title} has no link to other accelerators", "1",
                    "or say deployment.node: 1, and what joins the nodes in deployment.network",
                )  # fmt: skip
        self.tokens = max_tokens
        self.fmt, self.plain = gemm_format(model, accelerator), plain_format(model)
        self.act = self.plain.act_bytes  # bytes of an activation between the kernels
        self.notes: list[str] = []
        self._across()

    def _across(self) -> None:
        """A note where a replica takes several nodes."""
        world = self.layout.tp * self.layout.pp * self.layout.dp
        wires = self.wires
        if (nodes := wires.nodes(world)) > 1:
            what = f"{wires.network.name or wires.network.kind}, {wires.network.bandwidth / 1e9:g} GB/s per accelerator"
            assumed = "; assumed: say deployment.network" if wires.assumed else ""
            self.notes.append(f"a replica spans {nodes} nodes of {wires.node} accelerators joined by {what} (estimated{assumed})")

    def build(self, extras: Extras) -> tuple[Tables, Evidence]:
        layers, layers_prompt = self._layers()
        decode, decode_window, prefill, prefill_window, window, full, windowed, notes = surfaces(
            self.m, self.a, self.layout.tp, self.kernels, self.profile
        )
        self.notes += notes
        head = self._head()
        constants = self._constants(decode, decode_window, full, windowed, window)
        if extras.structured:
            self._masks(extras.structured, head)
        if extras.sampling != PLAIN:
            self.notes += add_sampling(extras.sampling, self.profile, self.m.vocab, head[:, SMALL])
        for index, value in self._extras(extras, layers, decode + decode_window, head).items():
            constants[index] = value
        if self.together:
            layers, layers_prompt = self._layers(experts=False)
        tables = Tables(
            layers, layers_prompt, head, decode, prefill, decode_window, prefill_window, constants, self._stage_share()
        )
        return tables, self._evidence()

    # ---- everything but attention

    def _sizes(self) -> Floats:
        """Token counts at which operators are evaluated; between them the table is filled linearly."""
        n = min(self.tokens, MAX_TABLE)
        dense = np.arange(1, min(n, 1024) + 1)
        if n <= 1024:
            return dense.astype(float)
        # kernels change at multiples of the tile: keep both sides of each
        edges = np.arange(1088, n + 1, 64)
        return np.unique(np.concatenate([dense, edges, edges[:-1] + 1, [n]])).astype(float)

    def experts(self) -> tuple[Floats, Floats]:
        """Rows of the experts alone, by tokens per rank: padded to captured graphs, and as they are."""
        sizes = self._sizes()
        columns = np.zeros((sizes.size, 5))
        if moe := moe_shape(self.m, self.layout, self.fused):
            self._experts(columns, sizes, moe)
        padded, _ = self._filled(columns, _busy(self._columns()))
        return padded, self._fill(columns, sizes, ())

    def _layers(self, experts: bool = True) -> tuple[Floats, Floats]:
        columns = self._columns()
        busy = _busy(columns)
        return self._filled(columns if experts else self._columns(experts=False), busy)

    def _columns(self, experts: bool = True) -> Floats:
        m, tp = self.m, self.layout.tp
        sizes = self._sizes()
        columns = np.zeros((sizes.size, 5))
        reduced = 0
        for shape in linear_shapes(m, tp, self.fused):
            fmt = self._format(shape)
            t = self.kernels.gemm("linear layers", fmt, sizes, shape.n, shape.k)
            self._add(columns, t, shape.repeat * shape.layers)
            reduced += shape.repeat * shape.layers if shape.all_reduce else 0
        moe = moe_shape(m, self.layout, self.fused)
        if moe is not None and experts:
            self._experts(columns, sizes, moe)
            reduced += moe.layers if self.layout.ep <= 1 and self.layout.dp == 1 else 0
        if tp > 1:
            size = sizes * m.hidden * self.act
            columns[:, COMMS] += reduced * self._all_reduce(size, tp)
        if self.layout.pp > 1:
            hops = zip(
                self.wires.hops(tp, self.layout.pp), (self.wires.near(tp * self.layout.pp), self.wires.network), strict=True
            )
            for n, wire in hops:
                if n:
                    columns[:, COMMS] += n * self.kernels.send(sizes * m.hidden * self.act / tp, wire)
        self._small_kernels(columns, sizes)
        return columns

    def _format(self, shape: LinearShape) -> Gemm:
        """The number format a product runs in: the model's, its own, or the 16-bit one."""
        if not shape.quantised:
            return self.plain
        return gemm_format(replace(self.m, weights=shape.form), self.a) if shape.form else self.fmt

    def _filled(self, columns: Floats, busy: Floats) -> tuple[Floats, Floats]:
        """Rows for decode steps and for steps with prompts. ``busy``: share of matrix products in the time of the whole step, by size."""
        sizes = self._sizes()
        throttle = 1.0 / self.a.sustained_compute - 1.0  # the power limit lowers the clock in steps that do nothing but products
        columns[:, COMPUTE] *= 1.0 + throttle * busy
        columns[:, (COMPUTE, MEMORY)] *= self.profile.gemm_scale
        columns[:, COMMS] *= self.profile.comms_scale
        prompts = self.profile.graph_sizes if self.profile.graph_prefill else ()
        decode = self._fill(columns, sizes, self.profile.graph_sizes)
        prompt = self._fill(columns, sizes, prompts, prompts=True)
        return decode, decode if np.array_equal(decode, prompt) else prompt

    def _masks(self, share: float, head: Floats) -> None:
        """Masks of allowed tokens are made row by row after the last token is known: no step hides them."""
        head[:, SMALL] += share * self.profile.structured_row * np.arange(head.shape[0])
        self.notes.append(
            "structured output: an estimated time per row for the mask of allowed tokens; compiling grammars is left out"
        )

    def _add(self, columns: Floats, t: Times, times: float) -> None:
        """Split a kernel's time into compute and memory in proportion to its two terms."""
        share = t.compute / np.maximum(t.compute + t.memory, 1e-30)
        share = np.where(t.compute > t.memory, np.maximum(share, 0.5), share)
        columns[:, COMPUTE] += times * t.total * share
        columns[:, MEMORY] += times * t.total * (1.0 - share)

    def _experts(self, columns: Floats, sizes: Floats, moe: MoeShape) -> None:
        m, layout = self.m, self.layout
        everyone = sizes * layout.dp  # data-parallel ranks step together, each with as many tokens
        everyone = everyone * layout.expert_imbalance
        own = m.expert_form
        fmt = expert_format(replace(m, weights=own) if own else m, self.a)
        grouped = layout.ep > 1 and self.profile.all_to_all == "deepep"
        if layout.ep <= 1 and self.profile.block_expert_floor and "block" in fmt.tables[0]:
            t = self.kernels.moe_cutlass(everyone, moe, self.profile.block_expert_floor, self.profile.block_expert_copy)
            self.kernels.used["experts"] = self._of_profile("block_expert_floor")
        else:
            t = self.kernels.moe(fmt, everyone, moe, max(layout.ep, 1), grouped)
        self._add(columns, t, moe.layers * self.profile.expert_scale)
        columns[:, SMALL] += moe.layers * around_experts(self.profile, moe, fmt, everyone, max(layout.ep, 1))
        group = max(layout.tp * layout.dp, layout.ep)
        if layout.ep <= 1 and layout.dp == 1:
            return
        if layout.dp == 1:  # experts spread over the ranks of one attention group: every rank has every token, results are summed
            size = sizes * m.hidden * 2.0
            columns[:, COMMS] += moe.layers * self._all_reduce(size, group)
            return
        here = sizes * layout.expert_imbalance / layout.tp  # each rank of an attention group sends its share of the tokens
        where = (group, self.wires)
        if grouped:
            there = self.kernels.all_to_all(here, m.hidden * (1.0 if fmt.act_bytes < 2.0 else 2.0), moe.top_k, *where)
            back = self.kernels.all_to_all(here, m.hidden * 2.0, moe.top_k, *where)
        else:
            there = back = self.kernels.gather(here * m.hidden * 2.0, *where)
        columns[:, COMMS] += moe.layers * (there + back + 2.0 * self.profile.collective_start)
        if not self.together:
            self.notes.append("data-parallel ranks that share experts are taken to have equally many tokens in every step")

    def _small_kernels(self, columns: Floats, sizes: Floats) -> None:
        """Norms, rotary embedding, activation: a launch each, and the bytes they move."""
        m, tp = self.m, self.layout.tp
        inner = sum(b.mlp.width * (3.0 if b.mlp.gated else 2.0) for b in m.blocks if isinstance(b.mlp, Dense)) / tp
        heads = (m.heads // tp + 2 * -(-m.kv_heads // tp)) * m.head_dim
        per_token = m.layers * (8.0 * m.hidden + 2.0 * heads) + inner
        kernels, quantised = quantised_inputs(self.profile, m, tp)
        moved = sizes * (per_token * self.act + quantised) / (_SMALL_EFFICIENCY * self.a.memory_bandwidth)
        columns[:, SMALL] += (small_kernels(self.profile, m) + kernels) * self.profile.small_kernel + moved

    def _fill(self, columns: Floats, sizes: Floats, graphs: tuple[int, ...], prompts: bool = False) -> Floats:
        """The table by token count, padded to captured graph sizes; FLOOR where kernels are launched one by one."""
        n = int(sizes[-1])
        wanted = np.arange(0, n + 1)
        captured = np.array([g for g in graphs if g <= n], dtype=int)
        largest = captured[-1] if captured.size else 0
        computed = wanted.copy()
        if captured.size:
            computed[: largest + 1] = captured[np.searchsorted(captured, wanted[: largest + 1])]
        table = np.column_stack([np.interp(computed, sizes, columns[:, j]) for j in range(5)])
        table[:, FLOOR] = np.where(
            wanted > largest, eager(self.profile, self.m, wanted, prompts), piecewise(self.profile, self.m, self.a, prompts)
        )
        table[:, FLOOR] += chunked(self.profile, self.m) if prompts else 0.0
        table[0] = 0.0
        return np.ascontiguousarray(table)

    def _all_reduce(self, size: Numbers, ranks: int) -> Floats:
        p, others = self.profile, max(ranks - 2, 0) / ranks
        t = self.kernels.all_reduce(size, ranks, self.wires) + p.collective_start + p.collective_ranks * others
        forwarded = 2.0 * others * np.asarray(size, float)  # what a rank of a ring passes on for others
        return t + np.where(size >= _LARGE_MESSAGE, p.large_reduce * forwarded, 0.0)

    def _head(self) -> Floats:
        m, tp = self.m, self.layout.tp
        rows = np.arange(1, MAX_SAMPLED + 1, dtype=float)
        columns = np.zeros((rows.size, 5))
        shape = m.head_shape(tp)
        fmt = self.fmt if m.format.bits.get("head") else self._format(shape)
        self._add(columns, self.kernels.gemm("output head", fmt, rows, shape.n, shape.k), self.profile.gemm_scale)
        columns[:, SMALL] += self.profile.sampler_step + self.profile.sampler_row * rows
        if tp > 1:  # logits are gathered: half an all-reduce
            size = rows * shape.n * tp * 2.0
            columns[:, COMMS] += 0.5 * self.profile.comms_scale * self._all_reduce(size, tp)
        return np.vstack([np.zeros((1, 5)), columns])

    # ---- constants

    def _constants(self, decode: Floats, decode_window: Floats, full: int, windowed: int, window: float) -> Floats:
        m, p, tp = self.m, self.profile, self.layout.tp
        k = np.zeros(step.N_CONSTANTS)
        joined = p.overlap_gap_ranks if tp > 1 else 0.0
        k[step.HOST_STEP] = p.host_step + p.host_scale_tp * (tp - 1) + (0.0 if p.overlap else joined)
        rows = p.host_row + (p.host_row_ranks if tp > 1 else 0.0)
        k[step.HOST_ROW], k[step.HOST_PREFILL_ROW], k[step.HOST_TOKEN] = (rows, p.host_prefill_row, p.host_token)
        k[step.HOST_OVERLAP], k[step.HOST_GAP] = float(p.overlap) or p.host_ahead * step.HOST_AHEAD, p.overlap_gap + joined
        k[step.DECODE_FLOOR] = decode[0, 0] + decode_window[0, 0]
        packed = any(isinstance(b.mixer, Attention) and b.mixer.sinks > 0 for b in m.blocks)  # Triton's kernel
        group = 0.0 if packed else p.mixed_group * m.heads / max(m.kv_heads, 1)
        k[step.MIXED_FACTOR], k[step.MIXED_ROW] = max(p.mixed_factor, group), p.mixed_row * m.layers
        k[step.SPLIT_PREFILL] = float(p.separate_attention)
        k[step.FULL_SHARE], k[step.WINDOW_SHARE], k[step.WINDOW] = (float(full), float(windowed), window)
        k[step.CONTEXT_TOKEN] = 0.05  # a verified draft token reads the same keys: only the compute grows
        states = state_time(m, self.a, tp, self.layout.pp)
        if states is not None:
            k[step.DECODE_ROW_STATE], k[step.PREFILL_TOKEN_STATE] = states.row, states.token
            self.notes.append(states.note)
        k[step.BLOCK_COPY] = 16 * m.kv_bytes_per_token(tp, self.layout.pp) / max(0.7 * self.a.host_bandwidth, 1.0)
        return k

    def _extras(self, extras: Extras, layers: Floats, decode: Floats, head: Floats) -> dict[int, float]:
        # EAGLE and MTP: one layer like the model's own, and its head; Medusa: nothing but a head for each token
        share, tables = DraftShare(1.0 / self.m.layers, 1.0), (layers, decode, head)
        if extras.draft_method == "eagle3":
            share = share._replace(head=min(EAGLE3_VOCABULARY / self.m.vocab, 1.0))
        elif extras.draft_method == "medusa":
            share = share._replace(layers=0.0)
        elif extras.draft_method == "draft_model":
            if extras.draft is None:
                raise ConfigError("speculative.draft", None, "method draft_model needs a draft model")
            d, _ = build_tables(extras.draft, self.a, Layout(tp=self.layout.tp), self.profile, 256)
            share, tables = DraftShare(1.0, 1.0), (d.layers, d.decode + d.decode_window, d.head)
        added = {"drafts": extras.draft_method != "none", "adapters": extras.lora_rank > 0, "encoders": self.m.vision_params > 0}
        if any(added.values()):
            self.notes.append(f"{' and '.join(k for k, v in added.items() if v)}: estimated from bytes and launches")
        self.notes += extras.notes
        passes = pass_seconds(*tables, 1, share), pass_seconds(*tables, 64, share)
        return extra_constants(self.m, self.a, self.layout, self.profile, extras, passes)

    def _stage_share(self) -> Floats:
        ranges = self.m.stages(self.layout.pp)
        return np.array([(last - first) / self.m.layers for first, last in ranges])

    # ---- evidence

    def _of_profile(self, name: str) -> tuple[Grade, str]:
        """Grade and source of a figure of the engine's profile."""
        figure = self.profile.figures.get(name)
        if figure is None:
            return "estimated", ""
        return figure.evidence, f"profiles/engines/{self.profile.engine}.yaml line {self.profile.line}: {figure.source}"

    def _evidence(self) -> Evidence:
        used = self.kernels.used
        used["host"] = self._of_profile("host_step")
        used["small kernels"] = ("estimated", "launch time and bytes over 75 % of memory bandwidth")
        where: dict[str, tuple[str, float]] = {
            "prefill attention": ("attention_prefill", 1.0),
            "decode attention": ("attention_decode", 1.0),
            "all-reduce": ("communication", 1.0),
            "all-to-all": ("communication", 1.0),
            "stage hand-over": ("communication", 0.05),
            "host": ("host", 1.0),
            "small kernels": ("other", 1.0),
        }
        experts = 0.8 if self.m.is_moe else 0.0
        operators = [*self.kernels.operators(where)]
        for part in ("linear_compute", "linear_memory"):
            operators += self.kernels.operators({"linear layers": (part, 1.0 - experts), "experts": (part, experts)})
        covered = self.kernels.choice.machine.ranges
        ranges = {"rows": covered.rows, "context": covered.context, "tokens": float(MAX_TABLE)}
        return Evidence(tuple(operators), ranges, merge_notes(self.kernels.notes, self.notes, self.m.warnings))
