"""How much of an accelerator's memory is left for keys and values: the budget, line by line, ending in KV blocks.

Every engine measures the same parts and splits the memory by its own rule (`sim.cost.memory_rules`). All figures are of one GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

from sim.errors import ConfigError
from sim.hardware import Accelerator
from sim.model import ModelSpec
from sim.units import show_bytes

GIB = 2.0**30
# Bytes per logit of the largest batch a sampler sees: 16-bit and fp32 logits, sorted values, 64-bit indices and the sort's buffers;
# without the sort where FlashInfer samples. Fitted to the activation peaks in vLLM logs: 1.19 GiB (Llama-3.1-8B) and 1.40 GiB (Qwen3-8B)
# with 256 sequences and the sort, 1.44 GiB (Llama-3.1-8B) and 1.51 GiB (Qwen3-VL-8B) with 1,024 sequences and FlashInfer.
SORTING_SAMPLER, FLASHINFER_SAMPLER = 37.0, 11.0
# Graph memory per layer and captured size: 0.32 GiB for 35 sizes and 0.67 GiB for 67 sizes of 32 layers in vLLM logs.
GRAPH_BYTES = 0.3 * 2**20


class Line(NamedTuple):
    """One part of the memory of one GPU, with the grade of its size and where it comes from."""

    name: str
    bytes: float
    evidence: str
    source: str


class Pool(NamedTuple):
    """A part of the memory for keys, values and states that is allocated by itself: ``size`` in tokens or states."""

    name: str
    size: int
    unit: str
    bytes: float


@dataclass(frozen=True)
class Deployment:
    """What is placed on each GPU. ``tp`` width of attention, ``dp`` attention replicas, ``ep`` width of whole experts (1: none)."""

    model: ModelSpec
    accelerator: Accelerator
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    @property
    def world(self) -> int:
        """Accelerators of one replica."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True)
class SharedBlocks:
    """Blocks that several groups of layers share. ``per_request``: blocks that one request of ``max_model_len`` tokens takes in all groups.

    ``token_groups``: groups over which the start-up log of older versions divides the blocks (0: the log says what ``per_request`` gives).
    ``words`` describe the groups; empty: there is one, of full attention.
    """

    bytes_per_block: float
    block_size: int
    per_request: int
    max_model_len: int
    words: str
    token_groups: int = 0

    def concurrency(self, blocks: int) -> float:
        """Requests of ``max_model_len`` tokens that fit at once."""
        return blocks / self.per_request

    def tokens(self, blocks: int) -> int:
        """KV cache size as the engine logs it."""
        if self.token_groups:
            return blocks // self.token_groups * self.block_size
        return int(self.concurrency(blocks) * self.max_model_len)


@dataclass(frozen=True)
class Budget:
    """The memory of one GPU: ``lines`` add up to ``limit_bytes``; the last of them is what keys and values get.

    ``bytes_per_block`` is what one block of ``block_size`` tokens takes in all layers of the fullest pipeline stage. For models whose
    layers forget (sliding windows) or keep a fixed state, it is the mean over a sequence of the longest context, as engines log it.
    """

    lines: tuple[Line, ...]
    limit_bytes: float
    block_size: int
    bytes_per_block: float
    kv_blocks: int
    rule: str
    warnings: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = ()  # where there is more than one
    shared: SharedBlocks | None = None

    @property
    def kv_bytes(self) -> float:
        """Bytes left for keys and values on one GPU."""
        return self.lines[-1].bytes

    @property
    def kv_tokens(self) -> int:
        """Tokens that the blocks have room for; where groups of layers share them, as the engine logs it."""
        return self.kv_blocks * self.block_size if self.shared is None else self.shared.tokens(self.kv_blocks)

    @property
    def estimated(self) -> bool:
        """Whether the block count is a prediction, not a number read from a server's log."""
        return self.lines[-1].evidence != "measured"

    def pinned(self, kv_blocks: int, field: str = "deployment.kv_blocks") -> Budget:
        """The same budget with the block count of a real server's log. Raises `ConfigError` unless it is at least 1."""
        if isinstance(kv_blocks, bool) or not isinstance(kv_blocks, int) or kv_blocks < 1:
            raise ConfigError(field, kv_blocks, "must be a whole number of at least 1")
        size = kv_blocks * self.bytes_per_block
        notes = self.warnings
        if size > self.limit_bytes:
            notes += (
                f"{kv_blocks} pinned KV blocks take {show_bytes(size)}, more than the {show_bytes(self.limit_bytes)} the GPU has",
            )
        line = self.lines[-1]._replace(bytes=size, evidence="measured", source=f"{kv_blocks} blocks pinned by {field}")
        return replace(self, lines=(*self.lines[:-1], line), kv_blocks=kv_blocks, warnings=notes)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Table to print: name, size, evidence, source."""
        rows = [(line.name, show_bytes(line.bytes), line.evidence, line.source) for line in self.lines]
        blocks = f"{self.kv_blocks:,} blocks of {self.block_size} tokens = {self.kv_tokens:,} tokens"
        if self.shared is None or not self.shared.words:
            pools = [(p.name, f"{p.size:,} {p.unit}", self.lines[-1].evidence, show_bytes(p.bytes)) for p in self.pools]
            return [*rows, ("KV blocks", blocks, self.lines[-1].evidence, self.rule), *pools]
        grade, pool = self.lines[-1].evidence, self.shared
        each = f"{self.kv_blocks:,} blocks of {show_bytes(pool.bytes_per_block)}"
        size = f"{self.kv_tokens:,} tokens"
        most = f"{pool.concurrency(self.kv_blocks):.2f}x for {pool.max_model_len:,} tokens per request"
        return [
            *rows,
            ("KV blocks", each, grade, f"shared by groups: {pool.words}"),
            ("GPU KV cache size", size, grade, f"as {self.rule} logs it: what requests of max_model_len take"),
            ("Maximum concurrency", most, grade, f"{pool.per_request:,} blocks per request"),
        ]


class Rule(Protocol):
    """How an engine divides the memory."""

    @property
    def name(self) -> str:
        """Of the engine family."""

    @property
    def block_size(self) -> int:
        """Tokens of one block."""

    def limit(self, d: Deployment) -> Line:
        """The memory the engine allows itself, and why."""

    def parts(self, d: Deployment) -> list[Line]:
        """Everything inside the limit that is not keys and values."""

    def kv(self, d: Deployment, room: float) -> Line:
        """The line of keys and values, given what is left."""


class Division(NamedTuple):
    """What is left, divided into pools: bytes of a block of the first (with what goes along with it), lines beside it, all pools."""

    per_block: float
    beside: tuple[Line, ...] = ()
    pools: tuple[Pool, ...] = ()


@runtime_checkable
class Divides(Protocol):
    """A rule of an engine that keeps pools of different layers apart."""

    def divide(self, d: Deployment, room: float, tokens: int | None = None) -> Division | None:
        """Divide ``room`` bytes; ``tokens``: those of the first pool, where a server's log has told them. None: one pool for all layers."""


@runtime_checkable
class Advises(Protocol):
    """A rule that knows which of the engine's settings leave more for keys and values."""

    def advice(self, d: Deployment) -> str:
        """Such a setting and what it leaves; "" where there is none."""


def memory_budget(
    model: ModelSpec,
    accelerator: Accelerator,
    rule: Rule,
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    dp: int = 1,
    max_model_len: int | None = None,
    field: str = "deployment",
    more: tuple[Line, ...] = (),
) -> Budget:
    """The budget of one GPU of a deployment under an engine's rule (`sim.cost.memory_rules`).

    ``max_model_len``: the longest sequence the engine is told to accept; it must fit, as engines check when they start. ``more``: what lies
    beside the rule's own parts inside the limit (adapters).

    *Raises*: `ConfigError` with the lines when the model does not fit; also where the model cannot be cut that way.
    """
    model.check_parallelism(tp, pp, ep, dp, field)
    d = Deployment(model, accelerator, tp, pp, ep, dp)
    limit, parts = rule.limit(d), [*rule.parts(d), *more]
    kv = rule.kv(d, limit.bytes - sum(line.bytes for line in parts))
    divided = rule.divide(d, kv.bytes) if isinstance(rule, Divides) else None
    pool: SharedBlocks | None = getattr(rule, "pool", None)
    if pool is not None:
        per_block = pool.bytes_per_block
    else:
        per_block = block_bytes(d, rule.block_size, max_model_len) if divided is None else divided.per_block
    if divided is not None:
        kv = kv._replace(bytes=kv.bytes - sum(line.bytes for line in divided.beside))
        parts += divided.beside
    blocks = int(kv.bytes // per_block)
    if (tokens := getattr(rule, "kv_tokens", None)) is not None:  # allocated for so many, whatever else would fit
        blocks, per_block = tokens // rule.block_size, kv.bytes / tokens * rule.block_size
    lines = (*parts, kv)
    used = sum(line.bytes for line in lines)
    if blocks < 1 or used > limit.bytes * (1 + 1e-9):
        raise ConfigError(
            field, f"{model.name} on {accelerator.name}", _problem("does not fit", limit, lines), hint=_hint(d, rule)
        )
    pools = () if divided is None else divided.pools
    budget = Budget(lines, limit.bytes, rule.block_size, per_block, blocks, rule.name, tuple(model.warnings), pools, pool)
    if pool is not None and max_model_len is not None and blocks - 1 < pool.per_request:
        of = f" of the groups {pool.words}" if pool.words else ""
        why = f"one such sequence takes {pool.per_request:,} blocks{of}, and there are {blocks - 1:,}"
        allowed = "" if pool.words else f"1..{(blocks - 1) * pool.block_size}"
        raise ConfigError(
            f"{field}.engine.max_model_len", max_model_len, _problem(why, limit, lines), allowed, hint=_hint(d, rule)
        )
    if pool is None and max_model_len is not None and budget.kv_tokens < max_model_len:
        raise ConfigError(
            f"{field}.engine.max_model_len", max_model_len,
            _problem(f"one such sequence does not fit into the {budget.kv_tokens} tokens of the KV cache", limit, lines), f"1..{budget.kv_tokens}",
            hint=rule.advice(d) if isinstance(rule, Advises) else "",
        )  # fmt: skip
    return budget


def _problem(what: str, limit: Line, lines: tuple[Line, ...]) -> str:
    listed = "; ".join(f"{line.name} {show_bytes(line.bytes)}" for line in lines[:-1])
    left = limit.bytes - sum(line.bytes for line in lines[:-1])
    return f"{what}: {show_bytes(limit.bytes)} ({limit.source}) less {listed} leaves {show_bytes(left)} for keys and values"


def _hint(d: Deployment, rule: Rule) -> str:
    usual = f"use more GPUs (tp is {d.tp}, pp is {d.pp}) or a smaller number format (weights are {d.model.weights})"
    advice = rule.advice(d) if isinstance(rule, Advises) else ""
    return f"{usual}; {advice}" if advice else usual


# ---- the parts every engine has


def weights_line(d: Deployment) -> Line:
    """Weights of the heaviest pipeline stage."""
    grade = "datasheet" if not d.model.vision_params and not d.model.format.quantised else "estimated"
    size = d.model.weight_bytes(d.tp, d.pp, d.ep, d.dp)
    return Line("weights", size, grade, f"{d.model.param_count():,} parameters, {d.model.format.source}")


def activation_bytes(model: ModelSpec, tokens: int, tp: int = 1, ep: int = 1, dp: int = 1) -> float:
    """Peak of the activations of one forward pass of ``tokens`` tokens, without the sampler: the widest place of a layer.

    *Source*: residual, its normalised copy, input and output of the sub-layer (four times the hidden width), and its inner tensors.
    Agrees within 2 % with 2.02 GiB (Qwen2-1.5B, 32,768 tokens), 4.35 GiB (Qwen2-7B, 32,768) and 0.22 GiB (Qwen3-0.6B, 8,192) in
    public vLLM logs.
    """
    inner = [0.0]
    if not all(model.experts_in):
        inner.append((3 if model.gated_mlp else 2) * model.intermediate / tp)
    if model.is_moe:
        width = model.moe_intermediate / (max(tp * dp, ep) // ep)
        inner.append(model.top_k * (max(2 * width, model.hidden) + width) + (3 * model.shared_intermediate / tp))
    if model.is_mla:
        heads = model.heads / tp
        inner.append(heads * (2 * model.head_dim + model.qk_nope_head_dim + 2 * model.v_head_dim))
    else:
        inner.append((2 * model.heads * model.head_dim + 2 * model.kv_heads * model.head_dim) / tp)
    return tokens * 2.0 * (max(inner) + 4 * model.hidden)


def peak_bytes(d: Deployment, tokens: int, sampled: int, per_logit: float = SORTING_SAMPLER, held: float = 0.0) -> float:
    """Peak of a pass that ends in sampling: the layers, or hidden states and the sampler, whichever is larger.

    ``held``: bytes of the layers that are not given back before the sampler runs.
    """
    sampler = 2.0 * tokens * d.model.hidden + sampled * d.model.vocab * per_logit + held
    return max(activation_bytes(d.model, tokens, d.tp, d.ep, d.dp), sampler if sampled else 0.0)


def workspace_bytes(d: Deployment, tokens: int) -> float:
    """Buffers of experts between and after their two products, for every token of every rank that shares them, with all its experts."""
    m = d.model
    width = m.moe_intermediate / (max(d.tp * d.dp, d.ep) // d.ep)
    return 2.0 * tokens * d.dp * m.top_k * (max(width, m.hidden) + max(2 * width, m.hidden))


def communication_bytes(d: Deployment) -> float:
    """What collectives keep: NCCL channels and all-reduce buffers. Fitted: 0.45 GiB on NVSwitch, 0.1 GiB over PCIe (vLLM logs)."""
    if d.world == 1:
        return 0.0
    return (0.45 if d.accelerator.link.switched else 0.1) * GIB


def graph_bytes(model: ModelSpec, sizes: int, pp: int = 1) -> float:
    """Memory of ``sizes`` captured CUDA or NPU graphs."""
    return GRAPH_BYTES * sizes * model.layers / pp


def block_bytes(d: Deployment, block_size: int, context: int | None = None) -> float:
    """Bytes of ``block_size`` tokens on one GPU; with windows or fixed states, the mean over a sequence of ``context`` tokens."""
    if not d.model.is_hybrid:
        return block_size * d.model.kv_bytes_per_token(d.tp, d.pp)
    length = context or d.model.max_position
    return block_size * d.model.kv_bytes(length, d.tp, d.pp) / length
