"""How each engine family divides an accelerator's memory. One frozen class per family, settings spelled as the engine spells them."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from sim.cost.memory import (
    FLASHINFER_SAMPLER,
    GIB,
    SORTING_SAMPLER,
    Deployment,
    Division,
    Line,
    SharedBlocks,
    activation_bytes,
    block_bytes,
    communication_bytes,
    graph_bytes,
    peak_bytes,
    weights_line,
    workspace_bytes,
)
from sim.cost.padding import expert_padding
from sim.cost.placement import Placement, Sizes
from sim.cost.sglang_pools import Keeps, divide
from sim.errors import ConfigError
from sim.model import ModelSpec

_ACTIVATIONS = "largest tensors of one forward pass, sim/cost/memory.py"


def _fraction(field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ConfigError(field, value, "must be a fraction", "above 0, at most 1")


def capture_sizes(max_num_seqs: int, max_num_batched_tokens: int, largest: int = 512) -> int:
    """Number of batch sizes vLLM captures: 1, 2, 4, then steps of 8 below 256 and of 16 above. *Source*: vLLM 0.33 config/vllm.py."""
    top = min(2 * max_num_seqs, largest, max_num_batched_tokens)
    return len([s for s in (1, 2, 4) if s <= top]) + len(range(8, min(top, 255) + 1, 8)) + len(range(256, top + 1, 16))


@dataclass(frozen=True)
class VllmRule:
    """vLLM and vllm-ascend: a fraction of the total, less weights, the peak of a dummy pass and what is not torch's.

    ``estimate_cuda_graphs`` subtracts the graphs too (None: as the version does; otherwise they use the fraction left over).
    *Source*: vLLM 0.33 v1/worker/gpu_worker.py:641-757, v1/worker/utils.py:716. From public server logs: the estimate is subtracted
    from 0.19 on, and no longer by the second model runner (0.28 on); the sampler sorts no more from 0.19 on (gpt-oss-20b: it does in a log
    of 0.15 and does not in one of 0.19). The borders are inferred from the dates of the logs.
    """

    gpu_memory_utilization: float = 0.92
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 256
    block_size: int = 16
    enforce_eager: bool = False
    version: tuple[int, int] = (0, 33)
    kv_cache_memory_bytes: float | None = None
    estimate_cuda_graphs: bool | None = None
    pool: SharedBlocks | None = None
    """The blocks of models whose layers are cached in groups."""
    name: str = "vllm"

    def limit(self, d: Deployment) -> Line:
        _fraction("deployment.engine.gpu_memory_utilization", self.gpu_memory_utilization)
        share, why = self.gpu_memory_utilization, f"gpu_memory_utilization {self.gpu_memory_utilization:g}"
        if self.kv_cache_memory_bytes is not None:
            share, why = 1.0, "kv_cache_memory_bytes, whatever gpu_memory_utilization says: all"
        evidence = d.accelerator.figures["memory_bytes"].evidence if "memory_bytes" in d.accelerator.figures else "datasheet"
        return Line("limit", d.accelerator.memory_bytes * share, evidence, f"{why} of {d.accelerator.memory_gib:.2f} GiB")

    def _sampled(self, d: Deployment) -> int:
        """Rows that the dummy pass samples, whether prompts are cut into chunks or not; vllm-ascend profiles without the sampler."""
        return 0 if d.accelerator.vendor == "huawei" else min(self.max_num_seqs, self.max_num_batched_tokens)

    def _peak(self, d: Deployment, sampled: int) -> float:
        per_logit = SORTING_SAMPLER if self.version < (0, 19) else FLASHINFER_SAMPLER
        return peak_bytes(d, self.max_num_batched_tokens, sampled, per_logit, self._held(d))

    def _held(self, d: Deployment) -> float:
        """Workspaces of experts in 8 bits that a shared pool keeps once they were used.

        *Source*: vLLM pull request 27532; that 0.13 is the first with it is inferred from its date. MiniMax M2.5 on four H100 (0.18) waits for KV blocks
        as if 0.9 GiB more were taken than without: these are 0.75.
        """
        pooled = self.version >= (0, 13) and d.model.is_moe and d.model.format.name == "fp8"
        return workspace_bytes(d, self.max_num_batched_tokens) if pooled and d.accelerator.vendor == "nvidia" else 0.0

    def advice(self, d: Deployment) -> str:
        """What the sampler takes beyond the layers."""
        sampled = self._sampled(d)
        more = self._peak(d, sampled) - self._peak(d, 0)
        if more < 0.1 * GIB:
            return ""
        return f"{more / GIB:.2f} GiB are the sampler's for max_num_seqs {sampled}, a lower one leaves them to keys and values"

    def parts(self, d: Deployment) -> list[Line]:
        ascend = d.accelerator.vendor == "huawei"
        sampled = self._sampled(d)
        peak = self._peak(d, sampled)
        lines = [
            weights_line(d),
            *expert_padding(d, self.version),
            Line("activations", peak, "estimated", f"{self.max_num_batched_tokens} tokens, {sampled} sampled; {_ACTIVATIONS}"),
            Line("runtime", self._outside_torch(d), "fitted", "non-torch memory in vLLM logs; collectives"),
        ]
        estimate = self.estimate_cuda_graphs
        if estimate is None:
            estimate = (0, 19) <= self.version < (0, 28) and not ascend
        if estimate and not self.enforce_eager:
            sizes = capture_sizes(self.max_num_seqs, self.max_num_batched_tokens)
            full = capture_sizes(self.max_num_seqs, self.max_num_batched_tokens, min(512, self.max_num_seqs))
            lines.append(
                Line(
                    "CUDA graphs", graph_bytes(d.model, sizes + full, d.pp), "fitted", f"{sizes} piecewise and {full} full graphs"
                )
            )
        return lines

    def _outside_torch(self, d: Deployment) -> float:
        """What the profile finds beside torch's own memory.

        0.6 subtracts all that the device has in use, the CUDA context and every buffer of NCCL, not what came in profiling: 1.79 GiB on one H100
        and 3.58 on two (vLLM pull request 10511). So much again for every doubling is *assumed*; on eight it leaves Llama 3.1 405B in fp8 24 %
        more blocks than its server had (dstack, 0.6.3: 56.77 GiB of weights, 5,730 blocks).
        """
        if (0, 6) <= self.version < (0, 7) and d.accelerator.vendor == "nvidia" and d.accelerator.link.switched:
            return 1.79 * GIB * (1.0 + log2(d.world))
        return 0.18 * GIB + communication_bytes(d)

    def kv(self, d: Deployment, room: float) -> Line:
        if self.kv_cache_memory_bytes is not None:
            return Line("KV cache", self.kv_cache_memory_bytes, "datasheet", "kv_cache_memory_bytes")
        return Line("KV cache", max(room, 0.0), "estimated", "what is left")


@dataclass(frozen=True)
class VllmCpuRule:
    """vLLM on a processor: ``VLLM_CPU_KVCACHE_SPACE`` GiB of KV cache are allocated at start, beside the weights.

    None: half of the memory (of one NUMA node; one is assumed), before 0.11 4 GiB. *Source*: vLLM v1/worker/cpu_worker.py,
    platforms/cpu.py get_device_total_memory; the border between the two defaults is inferred from the dates of the code.
    """

    VLLM_CPU_KVCACHE_SPACE: float | None = None
    max_num_batched_tokens: int = 2048
    block_size: int = 128
    version: tuple[int, int] = (0, 33)
    name: str = "vllm (cpu)"

    def limit(self, d: Deployment) -> Line:
        return Line(
            "limit", d.accelerator.memory_bytes, "datasheet", f"{d.accelerator.memory_gib:.2f} GiB of {d.accelerator.title}"
        )

    def parts(self, d: Deployment) -> list[Line]:
        peak = activation_bytes(d.model, self.max_num_batched_tokens, d.tp, d.ep, d.dp)
        return [
            weights_line(d),
            Line("activations", peak, "estimated", f"{self.max_num_batched_tokens} tokens; {_ACTIVATIONS}"),
            Line("runtime", 0.8 * GIB, "estimated", "torch and the server; about 0.8 GB in a log of 0.30 on a CPU"),
        ]

    def kv(self, d: Deployment, room: float) -> Line:
        if self.VLLM_CPU_KVCACHE_SPACE is not None:
            space = self.VLLM_CPU_KVCACHE_SPACE * GIB
            return Line("KV cache", space, "datasheet", f"VLLM_CPU_KVCACHE_SPACE {self.VLLM_CPU_KVCACHE_SPACE:g} GiB")
        if self.version < (0, 11):
            return Line("KV cache", 4 * GIB, "datasheet", "VLLM_CPU_KVCACHE_SPACE not set: 4 GiB")
        return Line(
            "KV cache", 0.5 * d.accelerator.memory_bytes, "datasheet", "VLLM_CPU_KVCACHE_SPACE not set: half of the memory"
        )


@dataclass(frozen=True)
class SglangRule:
    """SGLang: what was free before loading, times ``mem_fraction_static``, less weights; activations and graphs use the rest.

    ``mem_fraction_static=None`` takes SGLang's own default for the card.
    ``keeps``: the pools (`sglang_pools`). *Source*: SGLang 0.5.23 arg_groups/memory_hook.py, kv_cache_configurator.py:_profile_available_bytes.
    """

    mem_fraction_static: float | None = None
    chunked_prefill_size: int = 8192
    cuda_graph_max_bs: int = 256
    block_size: int = 1  # page_size
    disable_cuda_graph: bool = False
    max_total_tokens: int | None = None
    keeps: Keeps = "mean"
    swa_full_tokens_ratio: float = 0.8
    mamba_full_memory_ratio: float = 0.9
    max_mamba_cache_size: int | None = None
    name: str = "sglang"

    def divide(self, d: Deployment, room: float, tokens: int | None = None) -> Division | None:
        """See `sglang_pools.divide`."""
        slots, ratio = self.max_mamba_cache_size, self.mamba_full_memory_ratio
        known = tokens if tokens is None or self.max_total_tokens is None else min(tokens, self.max_total_tokens)
        found = divide(d, self.keeps, self.block_size, self.swa_full_tokens_ratio, ratio, slots, room, known)
        if known is None and self.max_total_tokens is not None and found is not None and found.pools:
            return found if found.pools[0].size <= self.max_total_tokens else self._capped(d, found)
        return found

    def _capped(self, d: Deployment, found: Division) -> Division:
        """With no more tokens of full layers than ``max_total_tokens``; slots for states stay as they are."""
        tokens = (self.max_total_tokens or 0) // self.block_size * self.block_size
        pools = divide(d, self.keeps, self.block_size, self.swa_full_tokens_ratio, 1.0, 1, 0.0, tokens)
        first = pools.pools[:1] if pools is not None else ()
        rest = found.pools[1:] if self.keeps == "states" or pools is None else pools.pools[1:]
        return found._replace(pools=(*first, *rest))

    def fraction(self, d: Deployment) -> float:
        """``mem_fraction_static``, given or by SGLang's rule."""
        if self.mem_fraction_static is not None:
            _fraction("deployment.engine.mem_fraction_static", self.mem_fraction_static)
            return self.mem_fraction_static
        total = d.accelerator.memory_bytes / 2**20
        reserved = 512 + 1.5 * max(self.chunked_prefill_size, 2048) + d.tp * d.pp / 8 * 1024
        if not self.disable_cuda_graph:
            reserved += 2 * self.cuda_graph_max_bs
        if total > 60 * 1024:
            reserved = max(reserved, 10240)
        return max(round((total - reserved) / total, 3), 0.01)

    def limit(self, d: Deployment) -> Line:
        fraction = self.fraction(d)
        kept = 0.75 + (1.2 if d.world > 1 and d.accelerator.link.switched else 0.0)  # GiB; from logs of one and of four H100
        free = d.accelerator.memory_bytes - kept * GIB - (0.0 if d.accelerator.link.switched else communication_bytes(d))
        return Line(
            "limit", free * fraction, "estimated", f"mem_fraction_static {fraction:g} of {free / GIB:.2f} GiB free before loading"
        )

    def parts(self, d: Deployment) -> list[Line]:
        return [weights_line(d)]

    def kv(self, d: Deployment, room: float) -> Line:
        if self.max_total_tokens is not None:
            divided = self.divide(d, room)
            each = block_bytes(d, 1) if divided is None else divided.per_block / self.block_size
            cap = (self.max_total_tokens + (0.5 if self.keeps == "window" else 0.0)) * each + (
                room if self.keeps == "states" else 0.0
            )
            if cap <= room:
                return Line("KV cache", cap, "datasheet", f"max_total_tokens {self.max_total_tokens}")
        return Line(
            "KV cache", max(room, 0.0), "estimated", "what is left; activations and CUDA graphs use the remaining fraction"
        )


@dataclass(frozen=True)
class TgiRule:
    """Text Generation Inference: 0.9 × ``cuda_memory_fraction`` of the total, less all that is in use after the warm-up prefill.

    The router never uses block 0. *Source*: TGI 3.3 server/text_generation_server/models/flash_causal_lm.py warmup.
    """

    cuda_memory_fraction: float = 1.0
    max_batch_prefill_tokens: int = 4096
    block_size: int = 1
    cuda_graphs: int = 7
    name: str = "tgi"

    def divide(self, d: Deployment, room: float, tokens: int | None = None) -> Division:
        """All layers keep every token: ``window_size`` of the model server is never set (v2: it limits the blocks of a request)."""
        return Division(self.block_size * d.model.kv_bytes_per_token(d.tp, d.pp))

    def limit(self, d: Deployment) -> Line:
        _fraction("deployment.engine.cuda_memory_fraction", self.cuda_memory_fraction)
        size = 0.9 * self.cuda_memory_fraction * d.accelerator.memory_bytes
        return Line(
            "limit",
            size,
            "datasheet",
            f"0.9 × cuda_memory_fraction {self.cuda_memory_fraction:g} of {d.accelerator.memory_gib:.2f} GiB",
        )

    def parts(self, d: Deployment) -> list[Line]:
        peak = peak_bytes(d, self.max_batch_prefill_tokens, 1)
        return [
            weights_line(d),
            Line("activations", peak, "estimated", f"warm-up prefill of {self.max_batch_prefill_tokens} tokens; {_ACTIVATIONS}"),
            Line("runtime", 0.6 * GIB + communication_bytes(d), "estimated", "CUDA context and collectives"),
        ]

    def kv(self, d: Deployment, room: float) -> Line:
        return Line("KV cache", max(room, 0.0), "estimated", "what is left after the warm-up")


@dataclass(frozen=True)
class MindieRule:
    """MindIE: ``npuMemSize`` GB, or (-1) ``NPU_MEMORY_FRACTION`` of the total less weights and run-time use.

    *Source*: MindIE 2.x configuration reference, ``npuMemSize`` and ``NPU_MEMORY_FRACTION`` (default 0.8).
    """

    npuMemSize: float = -1
    npu_memory_fraction: float = 0.8
    maxPrefillTokens: int = 8192
    block_size: int = 128
    name: str = "mindie"

    def limit(self, d: Deployment) -> Line:
        _fraction("deployment.engine.npu_memory_fraction", self.npu_memory_fraction)
        if self.npuMemSize > 0:
            return Line("limit", d.accelerator.memory_bytes, "datasheet", "whole memory; npuMemSize is given")
        size = self.npu_memory_fraction * d.accelerator.memory_bytes
        return Line(
            "limit", size, "datasheet", f"NPU_MEMORY_FRACTION {self.npu_memory_fraction:g} of {d.accelerator.memory_gib:.2f} GiB"
        )

    def parts(self, d: Deployment) -> list[Line]:
        peak = activation_bytes(d.model, self.maxPrefillTokens, d.tp, d.ep, d.dp)
        return [
            weights_line(d),
            Line("activations", peak, "estimated", f"{self.maxPrefillTokens} tokens; {_ACTIVATIONS}"),
            Line("runtime", 1.0 * GIB + communication_bytes(d), "estimated", "ATB workspace and HCCL buffers; no log found"),
        ]

    def kv(self, d: Deployment, room: float) -> Line:
        if self.npuMemSize > 0:
            return Line("KV cache", self.npuMemSize * GIB, "datasheet", f"npuMemSize {self.npuMemSize:g} GB")
        return Line("KV cache", max(room, 0.0), "estimated", "what is left")


@dataclass(frozen=True)
class LlamaCppRule:
    """llama.cpp and Ollama: cells for ``n_ctx`` tokens are allocated at start, whatever remains stays free.

    ``n_ctx`` is the total over ``n_parallel`` slots, each with a part of its own unless ``kv_unified``; ``placement`` says what is not on the
    cards. *Source*: llama.cpp src/llama-context.cpp (compute buffer: logits of a micro-batch in fp32 and the widest layer), common/fit.cpp
    (1 GiB margin), `sim.cost.placement`.
    """

    n_ctx: int = 4096
    n_ubatch: int = 512
    n_parallel: int = 1
    kv_unified: bool | None = False
    placement: Placement | None = None
    block_size: int = 1
    name: str = "llama.cpp"

    @property
    def kv_tokens(self) -> int:
        """Tokens that the cache is allocated for."""
        return self.n_ctx

    def sizes(self, model: ModelSpec) -> Sizes:
        """Bytes of the model's parts."""
        return Sizes.of(model, self.n_ctx, 1 if self.kv_unified else self.n_parallel, self.n_parallel, self.n_ubatch)

    def limit(self, d: Deployment) -> Line:
        return Line(
            "limit", d.accelerator.memory_bytes, "datasheet", f"{d.accelerator.memory_gib:.2f} GiB of {d.accelerator.title}"
        )

    def parts(self, d: Deployment) -> list[Line]:
        compute = self.n_ubatch * 4.0 * max(d.model.vocab, 3 * d.model.intermediate + 4 * d.model.hidden)
        sizes = self.sizes(d.model)
        weights = sizes.on_card(self.placement)[0] / d.tp + (sizes.input if d.accelerator.is_cpu else 0.0)
        on = d.model.layers - (self.placement.cpu_layers if self.placement else 0)
        where = f"{on} of {d.model.layers} layers, input embedding on the CPU; {d.model.format.source}"
        return [
            weights_line(d)._replace(bytes=weights, source=where),
            Line("activations", compute, "estimated", f"compute buffer of {self.n_ubatch} tokens (n_ubatch)"),
            Line("runtime", 0.3 * GIB, "estimated", "CUDA or Metal context"),
        ]

    def kv(self, d: Deployment, room: float) -> Line:
        size = self.sizes(d.model).on_card(self.placement)[1] / d.tp
        return Line("KV cache", size, "datasheet", f"n_ctx {self.n_ctx}")
