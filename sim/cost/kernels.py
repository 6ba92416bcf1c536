"""Kernel times of one accelerator under one kernel stack: fitted profiles, their nearest stand-in where nothing was measured.

A *stack* is the kernels one engine uses on one accelerator (``h100-sxm.vllm``). `Kernels` answers "how long does this operator take here"
with NumPy arrays, and records what the answer rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sim.cost import forms
from sim.cost.collectives import Collectives
from sim.cost.evidence import Operator
from sim.cost.formats import Gemm
from sim.cost.forms import TILE_M, Machine, Times
from sim.cost.machines import choose, lent, machine_of
from sim.cost.residual import Residual, ShapeGrid
from sim.cost.stack import STACK_ORDER, FittedOperator, load_stack
from sim.hardware.accelerator import Accelerator, Evidence
from sim.hardware.load import load_accelerator
from sim.model.spec import MoeShape

if TYPE_CHECKING:
    from sim.cost.residual import Floats, Numbers

# Kernels that unpack weights: bytes of packed weights that a core unpacks in a second (AWQ and GPTQ checkpoints under SGLang on H20), further
# µs of a start (Qwen 2.5 of 0.5 to 72 B in GPTQ with 8 and 4 bits, AWQ and 16 bits on A100, batch 1: 3 to 8), and compute relative to 16 bits
# (weight-only kernels of TensorRT-LLM 1.0 on A100, 1,024 and 4,096 rows: 1.10 to 1.16 times as long; 8-bit floats: bursts to Qwen3 14B on A100 under
# vLLM 0.11 take 1.26 times as long as in 16 bits, integers 1.13).
_UNPACKED_PER_CORE, _UNPACKING_START, _UNPACKING_COMPUTE, _UNPACKING_FP8 = 33e9, 6.0, 0.88, 0.72

# Generations whose matrix units multiply 64 rows at a time (wgmma, tcgen05): elsewhere kernels choose tiles of 16 rows and more.
# Kernels that do without (Marlin) reach 63 % of the peak on Hopper (arXiv 2402.13499): so prompts to Qwen3 8B in AWQ under SGLang on H20 (0.59 of what they
# reach in 16 bits), and its steps of one row, as compute is scarce there.
_OLD_INSTRUCTIONS = 0.63
_WARP_GROUPS, _SMALLEST_TILE = ("sm_90", "sm_100", "sm_103"), 16.0

# Share of their bandwidth that long reads reach on cards with GDDR whose own figure is not known: 16-bit products of 1 to 8 rows of Llama 3.1 8B reach
# 0.93 on RTX A6000 and 0.85 (output head 0.93) on RTX 3090 (LLMServingSim 5daddb21); served models 0.93 on RTX 4090 and 0.92 on A10G. Where error
# correction is kept in the same memory it is less: 0.81 on A40 (Vidur 7d475133), 0.83 on L40S.
_GDDR = 0.92

# Share of the peak that 16-bit products reach where tensor cores add up at half rate (GeForce with fp32 sums, A10G, L20), which neither power nor
# instructions hold back as much: 0.87 to 1.0 on RTX 3090 (Llama 3.1 8B, 1,024 and 2,048 rows, LLMServingSim 5daddb21), where RTX A6000 of full rate
# reaches 0.7; 0.75 to 0.8 in prompts of up to 14,000 tokens to Mistral 7B and Llama 3 8B on A10G (TGI); 1,024 tokens of Qwen3 4B take 29 ms longer than
# 128 on RTX 4090. Not so on Blackwell: 0.6 of RTX 5090's peak (vLLM issue 16515, 7,400 tokens/s of 8 B).
_HALF_RATE, _HELD_BACK, _OF_ONE_MAKE = 0.8, ("gemm.", "prefill."), ("sm_86", "sm_89")

# Least µs of a layer of experts with 4-bit floats, whose kernels (TensorRT-LLM's) were not timed: DeepSeek R1 in nvfp4 on four and eight B300 under
# SGLang 0.5.12, single requests (InferenceX pull request 3183).
_FP4_EXPERTS_START = 15.0

# Products of expanded keys and values relative to those of latent ones, which SGLang's kernel was measured with: 192 + 128 against 576 + 512
# elements a head. On H100 and H200 that makes 590 TFLOP/s of 173; TensorRT-LLM's expanded kernel was measured there at 540 to 600.
_EXPANDED = (192 + 128) / (576 + 512)

# Operands of up to so many times the L2 cache are read from there in part when a kernel is timed again and again: L40S (96 MiB) reads weights of 187 MB
# at 1.3 times its memory bandwidth, keys of 30 MB at 3.2 times. And the largest share of the bandwidth that reads of more than that reach (0.87 on L40S, 0.91
# on H100, 0.92 on A10G).
_CACHED, _STREAMED = 2.5, 0.92


def _measured_on(op: FittedOperator) -> Accelerator | None:
    """The card on which an operator was timed, where the profile of its system names one."""
    measured = machine_of(op.system).accelerators
    return load_accelerator(measured[0]) if measured else None


class Kernels(Collectives):
    """Operator times on ``accelerator`` with the kernels of ``framework`` (``vllm``, ``sglang``, ``vllm-ascend``).

    ``compute_scale``: how much longer matrix products take where they are bound by compute. ``marlin``: mxfp4 experts run Marlin on Hopper too.
    """

    def __init__(self, accelerator: Accelerator, framework: str, compute_scale: float = 1.0, marlin: bool = False) -> None:
        self.accelerator, self.compute_scale = accelerator, compute_scale
        self.marlin = marlin and accelerator.generation == "sm_90"
        self.choice = chosen = choose(accelerator, framework)
        self.base, self.proxy_reason = chosen.system, chosen.reason
        order = (chosen.stack,) if chosen.stack else (framework, *(s for s in STACK_ORDER if s != framework))
        self._stacks = [s for b in (self.base, *chosen.machine.others) for f in order if (s := load_stack(f"{b}.{f}"))]
        self._lent = {} if chosen.machine.relative else lent(accelerator, self.base, self.marlin)
        self.used: dict[str, tuple[Evidence, str]] = {}
        self.notes: list[str] = []
        if self.proxy_reason:
            scaled = "" if chosen.machine.relative else f"those of {self.base} scaled by datasheet figures ("
            self.notes.append(
                f"{accelerator.title}: no measured kernels; {scaled}{self.proxy_reason}{')' if scaled else f', in place of those of {framework}'}"
            )

    # ---- which entry, on which machine

    def find(self, *names: str) -> FittedOperator | None:
        """The first of ``names`` that any stack has, own stack first; what another system lends, before the kernels of a stand-in."""
        for name in names:
            lender = self._lent.get(name)
            if lender and (self.proxy_reason or self.marlin):
                return load_stack(lender)[name]
            for stack in self._stacks:
                if name in stack:
                    return stack[name]
            if lender:
                return load_stack(lender)[name]
        return None

    def _own(self, op: FittedOperator) -> bool:
        """Whether ``op`` was measured on this accelerator (or, for kernels fitted to many, on any)."""
        return op.system == self.base and not self.proxy_reason

    def q(self, op: FittedOperator) -> tuple[float, ...]:
        """Parameters of ``op``; where it stands in without its residual grid, no bandwidth efficiency that only a large cache explains.

        The least time of a kernel is instructions one after the other, so it goes with the clock.
        """
        if machine_of(op.system).relative or self.same_machine(op):
            return op.q
        return (op.q[0], min(op.q[1], 0.9), op.q[2] * self._slower(op), *op.q[3:])

    def _at_half_rate(self, op: FittedOperator) -> float:
        """How much more of its peak this accelerator reaches where its tensor cores are at most half as fast, a clock, as those that were measured.

        Those that were measured (L40S) wait for power and instructions; slower ones of the same make do not.
        """
        here, there, gemm = self.accelerator, _measured_on(op), load_stack(op.stack).get("gemm.bf16")
        if there is None or gemm is None or self._own(op):
            return 1.0
        if here.generation not in _OF_ONE_MAKE or there.generation not in _OF_ONE_MAKE or not (here.clock and there.clock):
            return 1.0
        rates = [a.peak("bf16") / (a.sm_count * a.clock) for a in (here, there)]
        return max(_HALF_RATE / gemm.q[0], 1.0) if rates[0] < 0.6 * rates[1] else 1.0

    def _slower(self, op: FittedOperator) -> float:
        """How much slower the clock is than where ``op`` was measured; 1.0 where it is not known of both."""
        here, there = self.accelerator, _measured_on(op)
        return there.clock / here.clock if there is not None and here.clock and there.clock else 1.0

    def machine(self, op: FittedOperator) -> Machine:
        """Where ``op`` is to run: its own reference figures, or this accelerator's if it is a stand-in."""
        if self._own(op) and not machine_of(op.system).relative:
            return op.machine
        a = self.accelerator
        peak = a.peak(a.compute_dtype(op.unit)) * (self._at_half_rate(op) if op.name.startswith(_HELD_BACK) else 1.0)
        return Machine(peak, a.memory_bandwidth * self._reads(op), float(a.sm_count))

    def _reads(self, op: FittedOperator) -> float:
        """How much more of its bandwidth this accelerator reaches than where ``op`` was measured, by what long reads reach on both.

        A kernel that reached more than long reads do (much of it from a cache) reaches no more than it did, or than long reads do here.
        """
        there = _measured_on(op)
        here = self.accelerator.memory_efficiency or (_GDDR if self.accelerator.memory_type == "gddr" else 0.0)
        if there is None or not (here and there.memory_efficiency):
            return 1.0
        return min(here / there.memory_efficiency, max(1.0, here / self.q(op)[1]))

    def _cores(self, op: FittedOperator) -> Machine:
        """As `machine`, for decode attention: what it computes beside the tensor units (unpacking, softmax) goes with multiprocessors and clock.

        So it is no slower than these are, however few FLOP/s the tensor units have (GeForce cards add up in 32 bits at half the rate).
        """
        hw, here, there = self.machine(op), self.accelerator, _measured_on(op)
        if self._own(op) or there is None or not here.clock:
            return hw
        cores = here.clock * here.sm_count / (there.clock * there.sm_count) if there.clock else 0.0
        return hw._replace(peak=max(hw.peak, op.machine.peak * cores))

    def note(self, what: str, op: FittedOperator | None, exact: bool = True, why: str = "") -> None:
        """Record the grade of an operator."""
        if op is None:
            self.used[what] = ("estimated", why or "no measurement of any accelerator")
            return
        own = self._own(op)
        grade: Evidence = "estimated" if not own else "measured" if exact and op.residual is not None else "fitted"
        reason = "" if own else f", scaled to {self.accelerator.name} by datasheet"
        self.used[what] = (grade, f"profiles/fitted/{op.stack}.yaml {op.name}{reason}{'; ' + why if why else ''}")

    def same_machine(self, op: FittedOperator) -> bool:
        """Whether residuals of ``op`` mean something here: same accelerator or the same generation of one vendor."""
        if self._own(op):
            return True
        here = self.accelerator.generation
        return bool(here) and here == machine_of(op.system).generation

    def _kin(self, op: FittedOperator) -> bool:
        """Whether ``op`` stands in from another generation that multiplies in the same way, so that shapes fit its tiles as they do here."""
        return (
            self.accelerator.generation in _WARP_GROUPS
            and machine_of(op.system).generation in _WARP_GROUPS
            and not self.same_machine(op)
        )

    def _beyond_lender(self, op: FittedOperator) -> float:
        """How much more of its peak this machine reaches than the one that lends ``op``: as dense products do in 16 bits (power limits)."""
        if op.system == self.base or op.stack != self._lent.get(op.name):
            return 1.0
        there = load_stack(op.stack).get("gemm.bf16")
        here = load_stack(op.stack.replace(op.system, self.base, 1)).get("gemm.bf16")
        return here.q[0] / there.q[0] if here is not None and there is not None else 1.0

    def _from_memory(self, op: FittedOperator, t: Numbers, size: Numbers) -> Floats:
        """``t``, but no less than ``size`` bytes of weights or of keys and values take to come from memory.

        Kernels were timed on the same operands again and again, so small ones came from the cache. In a model those of every other layer pass before
        a layer has its turn again.
        """
        if machine_of(op.system).relative:
            return np.asarray(t, float)
        a, there = self.accelerator, _measured_on(op)
        cache = max(a.l2_bytes, there.l2_bytes if there is not None else 0.0)
        least = np.asarray(size, float) / (a.memory_bandwidth * max(a.memory_efficiency, _STREAMED))
        streamed: Floats = np.where(np.asarray(size) <= _CACHED * cache, np.maximum(t, least), t)
        return streamed

    # ---- operators

    def gemm(self, what: str, fmt: Gemm, m: Numbers, n: int, k: int) -> Times:
        """Seconds of ``[m, k] × [k, n]``."""
        op = self.find(*fmt.tables)
        if op is None:
            raise LookupError("no GEMM profile at all")
        hw = self.machine(op)
        exact = op.name == fmt.tables[0]
        unit = fmt.unit if self.accelerator.supports(fmt.unit) or exact else op.unit
        if unit != op.unit and self.accelerator.supports(unit):
            hw = hw._replace(peak=self.accelerator.peak(unit))
        sums = self.choice.machine.fp16_unit
        if fmt.name == "fp16" and sums != op.unit and self.accelerator.supports(sums):
            hw = hw._replace(peak=self.accelerator.peak(sums))
        weight = fmt.weight_bytes
        q = self.q(op)
        per_core = self.choice.machine.per_core_bandwidth
        a = self.accelerator
        if per_core is not None and (per_core.vendor, per_core.memory_type) == (a.vendor, a.memory_type):
            most = self.accelerator.sm_count * (per_core.half if weight >= 2.0 else per_core.quantised) / q[1]
            hw = hw._replace(bandwidth=min(hw.bandwidth, most))
        if not exact and weight < fmt.act_bytes:
            compute = _UNPACKING_FP8 if fmt.tables[0] == "gemm.fp8_wo" else _UNPACKING_COMPUTE
            hw, q = _unpacking(q, hw, min(compute, _OLD_INSTRUCTIONS) if a.generation == "sm_90" else compute)
        elif len(q) == 6 and not self._own(op) and a.generation not in _WARP_GROUPS:
            q = (*q, _tile(op.machine, hw))
        if not exact and fmt.unit == "fp32":
            q = (*q[:6], 8.0)  # kernels without tensor cores have small tiles
        hw = hw._replace(peak=hw.peak / self.compute_scale)
        t = forms.gemm(q, hw, np.asarray(m, float), float(n), float(k), weight, fmt.act_bytes)
        if exact and isinstance(op.residual, ShapeGrid) and self.same_machine(op):
            scale = np.exp(op.residual.at(np.asarray(n, float), np.asarray(k, float), m))
            t = Times(t.total * scale, t.compute, t.memory)
        t = t._replace(total=self._from_memory(op, t.total, weight * n * k))
        self.note(
            what,
            op,
            exact,
            ""
            if exact
            else f"{fmt.tables[0]} was not measured; bytes and matrix-unit rate of {fmt.name} in the form of {op.name}",
        )
        if not exact:
            self.used[what] = ("estimated", self.used[what][1])
        return t

    def prefill(self, rows: Numbers, length: Numbers, heads: int, kv_heads: int, dim: int, v_dim: int, kv: str) -> Floats:
        """Seconds of causal attention over ``rows`` prompts of ``length``."""
        near = _nearest_dim(dim)
        op = self.find(f"prefill.{kv}.{near}", f"prefill.bf16.{near}", "prefill.bf16.128")
        if op is None:
            raise LookupError("no prefill profile at all")
        t = forms.prefill(self.q(op), self.machine(op), rows, length, heads, kv_heads, dim, v_dim).total
        if isinstance(op.residual, Residual) and self.same_machine(op):
            t = t * np.exp(op.residual.at((heads, kv_heads), rows, length))
        self.note("prefill attention", op, near == dim)
        return t

    def decode(self, rows: Numbers, context: Numbers, heads: int, kv_heads: int, dim: int, kv: str, element: float) -> Floats:
        """Seconds of decode attention of ``rows`` sequences of mean ``context``."""
        near = _nearest_dim(dim)
        op = self.find(f"decode.{kv}.{near}", f"decode.bf16.{near}", "decode.bf16.128")
        if op is None:
            raise LookupError("no decode profile at all")
        t = forms.decode(self.q(op), self._cores(op), rows, context, heads, kv_heads, dim, element).total
        if isinstance(op.residual, Residual) and self.same_machine(op):
            # parallel work is rows × kv_heads: more KV heads than were measured are like more rows
            most = int(op.residual.keys[:, 1].max())
            share = max(kv_heads / most, 1.0)
            t = t * np.exp(op.residual.at((heads / share, kv_heads / share), np.asarray(rows) * share, context))
        self.note("decode attention", op, near == dim)
        return self._from_memory(op, t, 2.0 * element * rows * context * kv_heads * dim)

    def latent_prefill(self, rows: Numbers, length: Numbers, heads: int, kv: str, chosen: bool = False) -> Floats:
        """Seconds of prompt attention of multi-head latent attention.

        Engines expand keys and values of a prompt to all heads (vLLM v1/attention/backends/mla/common.py; SGLang deepseek_v2.py, MHA and
        MHA_CHUNKED_KV), but where few of the tokens are ``chosen`` (sparse attention): there they stay latent.
        """
        op = self.find(f"latent_prefill.{kv}", "latent_prefill.bf16")
        if op is None:
            return self.prefill(rows, length, heads, heads, 192, 128, "bf16")
        t = forms.prefill(self.q(op), self.machine(op), rows, length, heads, heads, 192, 128).total
        if isinstance(op.residual, Residual) and self.same_machine(op):
            t = t * np.exp(op.residual.at((heads,), rows, length))
        if op.stack.endswith(".sglang") and not chosen:
            t = np.minimum(t, 1e-6 * op.q[2]) + np.maximum(t - 1e-6 * op.q[2], 0.0) * _EXPANDED
        self.note("prefill attention", op)
        return t

    def latent_decode(
        self, rows: Numbers, context: Numbers, heads: int, latent: int, rope: int, kv: str, element: float
    ) -> Floats:
        """Seconds of decode attention over the latent cache."""
        op = self.find(f"latent_decode.{kv}", "latent_decode.bf16")
        if op is not None and kv == "fp8" and not self.same_machine(op):  # Hopper's widens them to 16 bits first
            op = self.find("latent_decode.bf16")
        if op is None:  # no latent kernels of this vendor: ordinary decode of one KV head, all heads in its group
            return self.decode(rows, context, heads, 1, (latent + rope) // 2, kv, element)
        t = forms.latent_decode(self.q(op), self.machine(op), rows, context, heads, latent, rope, element).total
        if isinstance(op.residual, Residual) and self.same_machine(op):
            t = t * np.exp(op.residual.at((heads,), rows, context))
        self.note("decode attention", op)
        return self._from_memory(op, t, element * rows * context * (latent + rope))

    def moe(self, fmt: Gemm, tokens: Numbers, shape: MoeShape, ep: int, grouped: bool = False) -> Times:
        """Seconds of the routed experts of one rank.

        ``tokens`` of the whole expert-parallel group; ``grouped``: grouped GEMMs behind an all-to-all instead of fused kernels. The rank that
        all wait for is the one with most tokens: by measurement, or by chance where only even routing was measured.
        """
        names = [f"moe.{t.split('.', 1)[1]}" for t in fmt.tables]
        if grouped:
            names = [names[0].replace("moe.", "moe_ep."), *names]
        op = self.find(*names)
        if op is None:
            raise LookupError("no MoE profile at all")
        exact = op.name in (names[0], names[int(grouped)])
        hw = self.machine(op)
        if not exact and self.accelerator.supports(fmt.unit) and fmt.unit != op.unit:
            hw = hw._replace(peak=self.accelerator.peak(fmt.unit))
        slower = _OLD_INSTRUCTIONS if self.marlin and op.name == "moe.mxfp4" else self._beyond_lender(op)
        hw = hw._replace(peak=hw.peak * slower / self.compute_scale)
        gates = 3.0 if shape.gated else 2.0
        key = (shape.hidden, shape.intermediate, shape.experts, shape.top_k, ep)
        if shape.experts <= op.skewed_beyond:
            tokens = tokens * forms.busiest(tokens, shape.experts, shape.top_k, ep)
        q = self.q(op)
        if fmt.unit == "fp4" and not exact:
            q = (*q[:2], min(q[2], _FP4_EXPERTS_START), *q[3:])
        t = forms.moe(q, hw, np.asarray(tokens, float), *key, fmt.weight_bytes, gates, shape.shared)
        known = False
        if isinstance(op.residual, Residual) and exact and (self.same_machine(op) or self._kin(op)):
            known = op.residual.known(key) and self.same_machine(op)
            t = Times(t.total * np.exp(op.residual.at(key, tokens)), t.compute, t.memory)
        awake = forms.active_experts(np.asarray(tokens, float), shape.experts, shape.top_k)
        t = t._replace(total=t.total * forms.resemblance(awake, shape.experts))
        chosen = awake / ep + shape.shared
        size = fmt.weight_bytes * gates * chosen * shape.hidden * shape.intermediate
        t = t._replace(total=self._from_memory(op, t.total, size))
        self.note("experts", op, known, "" if known else "expert shape between measured shapes")
        if not exact:
            self.used["experts"] = ("estimated", self.used["experts"][1] + f"; {names[0]} was not measured")
        return t

    def moe_cutlass(self, tokens: Floats, shape: MoeShape, floor: float, copy: float) -> Times:
        """Seconds of 8-bit experts with block scales on one rank by FlashInfer's CUTLASS kernels.

        They sort, copy, quantise and add up in kernels of their own (``floor``; ``copy`` for each expert of a token), and read weights at full
        bandwidth between.
        """
        a = self.accelerator
        chosen = forms.active_experts(tokens, shape.experts, shape.top_k)
        weights = (3.0 if shape.gated else 2.0) * shape.hidden * shape.intermediate
        memory = floor + chosen * weights / a.memory_bandwidth
        compute = copy * tokens * shape.top_k
        return Times(memory + compute, compute, memory)

    def operators(self, parts: Mapping[str, tuple[str, float]]) -> tuple[Operator, ...]:
        """What was used, as evidence: ``parts`` gives (part, share of it) for each operator."""
        return tuple(Operator(name, part, *self.used[name], share) for name, (part, share) in parts.items() if name in self.used)


def _unpacking(q: tuple[float, ...], hw: Machine, compute: float) -> tuple[Machine, tuple[float, ...]]:
    """The form of 16-bit kernels that unpack smaller weights on the way (Marlin): tiles of 16 rows, a later start, a little less ``compute``.

    They read as fast as others unless a core has more bandwidth than it can unpack (H20).
    """
    hw = hw._replace(bandwidth=min(hw.bandwidth, hw.sm * _UNPACKED_PER_CORE / q[1]))
    return hw, (compute * q[0], q[1], q[2] + _UNPACKING_START, *q[3:6], 16.0)


def _tile(there: Machine, here: Machine) -> float:
    """Rows of a tile where kernels stand in.

    Fewer where there is less compute for a byte, so that reading weights for few rows stays as near to the bandwidth as where they were measured.
    """
    balance = here.peak / here.bandwidth * there.bandwidth / there.peak
    return min(max(TILE_M * balance, _SMALLEST_TILE), TILE_M)


def _nearest_dim(dim: int) -> int:
    return 64 if dim < 96 else 128 if dim < 192 else 256
