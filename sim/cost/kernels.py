"""Kernel times of one accelerator under one kernel stack: fitted profiles, their nearest stand-in where nothing was measured.

A *stack* is the kernels one engine uses on one accelerator (``h100-sxm.vllm``). `Kernels` answers "how long does this operator take here"
with NumPy arrays, and records what the answer rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import yaml

from sim.cost import forms
from sim.cost.evidence import Grade, Operator
from sim.cost.forms import Machine, Times
from sim.cost.residual import Residual, ShapeGrid
from sim.errors import ServesimError
from sim.hardware.accelerator import Accelerator
from sim.hardware.links import Link
from sim.hardware.load import load_accelerator
from sim.resources import path

# Order in which other stacks of the same accelerator are asked for an operator that the own stack lacks.
_STACK_ORDER = ("vllm", "sglang", "vllm-ascend")
_NO_RESIDUAL: Any = 0.0


@dataclass(frozen=True)
class FittedOperator:
    """One entry of a fitted profile: parameters of the form, and the residual grid where there is one."""

    stack: str
    name: str
    q: tuple[float, ...]
    unit: str
    reference: Mapping[str, Any] = field(hash=False)
    error: Mapping[str, Any] = field(hash=False)
    residual: Residual | ShapeGrid | None = None

    @property
    def machine(self) -> Machine:
        """The accelerator it was measured on."""
        return Machine(self.reference["peak"][self.unit], self.reference["bandwidth"], self.reference["sm"])


@lru_cache(maxsize=32)
def load_stack(name: str) -> dict[str, FittedOperator]:
    """Operators of a fitted profile; empty if there is none of that name."""
    text = path("profiles", "fitted", f"{name}.yaml")
    if not text.is_file():
        return {}
    data = yaml.load(text.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    grids = path("profiles", "fitted", f"{name}.npz")
    arrays: dict[str, Any] = {}
    if grids.is_file():
        with np.load(grids) as file:
            arrays = {k: file[k] for k in file.files}
    out: dict[str, FittedOperator] = {}
    for key, entry in data["operators"].items():
        axes = tuple(arrays[f"{key}/axis{i}"].astype(float) for i in range(4) if f"{key}/axis{i}" in arrays)
        residual: Residual | ShapeGrid | None = None
        if f"{key}/keys" in arrays:
            residual = Residual(arrays[f"{key}/keys"].astype(float), axes, arrays[f"{key}/values"])
        elif axes:
            residual = ShapeGrid(axes, arrays[f"{key}/values"])
        q = tuple(entry["parameters"].values())
        out[key] = FittedOperator(name, key, q, entry.get("unit", "bf16"), data["reference"], entry.get("error", {}), residual)
    return out


# Accelerators with fitted profiles: name → first part of the stack's name.
MEASURED = {
    "h100-sxm": "h100-sxm",
    "h200-sxm": "h200-sxm",
    "a100-sxm-80g": "a100-sxm",
    "l40s": "l40s",
    "h20": "h20",
    "ascend-910b2": "ascend-910b",
}


def _stand_in(a: Accelerator) -> tuple[str, str]:
    """Whose kernels stand in for an accelerator without any: its proxy's, the proxy's proxy's …, else the nearest by kind."""
    seen, here = {a.name}, a
    while here.proxy and here.proxy.name not in seen:
        if here.proxy.name in MEASURED:
            return MEASURED[here.proxy.name], here.proxy.reason
        seen.add(here.proxy.name)
        try:
            here = load_accelerator(here.proxy.name)
        except ServesimError:
            break
    if a.vendor.lower().startswith("huawei"):
        return "ascend-910b", "the only Ascend with measured kernels"
    hbm = a.memory_bandwidth >= 1.2e12 and a.vendor.lower() == "nvidia" and a.compute_capability < "8.6"
    if hbm or a.vendor.lower() != "nvidia":
        return "a100-sxm", "nearest measured kernels"
    if a.compute_capability.startswith(("9", "10")):
        return "h100-sxm", "nearest NVIDIA generation with measured kernels"
    return "l40s", "nearest GPU with GDDR memory and measured kernels"


class Kernels:
    """Operator times on ``accelerator`` with the kernels of ``framework`` (``vllm``, ``sglang``, ``vllm-ascend``)."""

    def __init__(self, accelerator: Accelerator, framework: str) -> None:
        self.accelerator = accelerator
        if framework == "llama.cpp":
            self.base, self.proxy_reason = "any", ""
        elif accelerator.name in MEASURED:
            self.base, self.proxy_reason = MEASURED[accelerator.name], ""
        else:
            self.base, self.proxy_reason = _stand_in(accelerator)
        order = (framework, *(s for s in _STACK_ORDER if s != framework))
        self._stacks = [s for s in (load_stack(f"{self.base}.{f}") for f in order) if s]
        if self.base == "h20":  # only some of its kernels were measured
            self._stacks += [s for s in (load_stack(f"h100-sxm.{f}") for f in order) if s]
        self.used: dict[str, tuple[Grade, str]] = {}
        self.notes: list[str] = []
        if self.proxy_reason:
            self.notes.append(
                f"{accelerator.title}: no measured kernels; those of {self.base} scaled by datasheet figures ({self.proxy_reason})"
            )

    # ---- which entry, on which machine

    def find(self, *names: str) -> FittedOperator | None:
        """The first of ``names`` that any stack has, own stack first."""
        for name in names:
            for stack in self._stacks:
                if name in stack:
                    return stack[name]
        return None

    def _own(self, op: FittedOperator) -> bool:
        """Whether ``op`` was measured on this accelerator (or, for kernels fitted to many, on any)."""
        return op.stack.startswith(f"{self.base}.") and not self.proxy_reason

    def q(self, op: FittedOperator) -> tuple[float, ...]:
        """Parameters of ``op``; where it stands in without its residual grid, no bandwidth efficiency that only a large cache explains."""
        return op.q if self.same_machine(op) else (op.q[0], min(op.q[1], 0.9), *op.q[2:])

    def machine(self, op: FittedOperator) -> Machine:
        """Where ``op`` is to run: its own reference figures, or this accelerator's if it is a stand-in."""
        if self._own(op) and self.base != "any":
            return op.machine
        a = self.accelerator
        return Machine(a.peak(a.compute_dtype(op.unit)), a.memory_bandwidth, float(a.sm_count))

    def note(self, what: str, op: FittedOperator | None, exact: bool = True, why: str = "") -> None:
        """Record the grade of an operator."""
        if op is None:
            self.used[what] = ("estimated", why or "no measurement of any accelerator")
            return
        own = self._own(op)
        grade: Grade = "estimated" if not own else "measured" if exact and op.residual is not None else "fitted"
        reason = "" if own else f", scaled to {self.accelerator.name} by datasheet"
        self.used[what] = (grade, f"profiles/fitted/{op.stack}.yaml {op.name}{reason}{'; ' + why if why else ''}")

    def same_machine(self, op: FittedOperator) -> bool:
        """Whether residuals of ``op`` mean something here: same accelerator or the same generation of one vendor."""
        if self._own(op):
            return True
        here = self.accelerator.compute_capability
        return (
            bool(here) and here == {"h": "9.0", "a": "8.0", "l": "8.9"}.get(op.stack[0], "") and not op.stack.startswith("ascend")
        )

    # ---- operators

    def gemm(self, what: str, fmt: Gemm, m: Any, n: int, k: int) -> Times:
        """Seconds of ``[m, k] × [k, n]``."""
        op = self.find(*fmt.tables)
        if op is None:
            raise LookupError("no GEMM profile at all")
        hw = self.machine(op)
        exact = op.name == fmt.tables[0]
        unit = fmt.unit if self.accelerator.supports(fmt.unit) or exact else op.unit
        if unit != op.unit and self.accelerator.supports(unit):
            hw = hw._replace(peak=self.accelerator.peak(unit))
        weight = fmt.weight_bytes
        t = forms.gemm(self.q(op), hw, np.asarray(m, float), float(n), float(k), weight, fmt.act_bytes)
        if exact and isinstance(op.residual, ShapeGrid) and self.same_machine(op):
            scale = np.exp(op.residual.at(np.asarray(n, float), np.asarray(k, float), m))
            t = Times(t.total * scale, t.compute, t.memory)
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

    def prefill(self, rows: Any, length: Any, heads: int, kv_heads: int, dim: int, v_dim: int, kv: str) -> Any:
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

    def decode(self, rows: Any, context: Any, heads: int, kv_heads: int, dim: int, kv: str, element: float) -> Any:
        """Seconds of decode attention of ``rows`` sequences of mean ``context``."""
        near = _nearest_dim(dim)
        op = self.find(f"decode.{kv}.{near}", f"decode.bf16.{near}", "decode.bf16.128")
        if op is None:
            raise LookupError("no decode profile at all")
        t = forms.decode(self.q(op), self.machine(op), rows, context, heads, kv_heads, dim, element).total
        if isinstance(op.residual, Residual) and self.same_machine(op):
            # parallel work is rows × kv_heads: more KV heads than were measured are like more rows
            most = int(op.residual.keys[:, 1].max())
            share = max(kv_heads / most, 1.0)
            t = t * np.exp(op.residual.at((heads / share, kv_heads / share), np.asarray(rows) * share, context))
        self.note("decode attention", op, near == dim)
        return t

    def latent_prefill(self, rows: Any, length: Any, heads: int, kv: str) -> Any:
        """Seconds of prompt attention of multi-head latent attention."""
        op = self.find(f"latent_prefill.{kv}", "latent_prefill.bf16")
        if op is None:
            return self.prefill(rows, length, heads, heads, 192, 128, "bf16")
        t = forms.prefill(self.q(op), self.machine(op), rows, length, heads, heads, 192, 128).total
        if isinstance(op.residual, Residual) and self.same_machine(op):
            t = t * np.exp(op.residual.at((heads,), rows, length))
        self.note("prefill attention", op)
        return t

    def latent_decode(self, rows: Any, context: Any, heads: int, latent: int, rope: int, kv: str, element: float) -> Any:
        """Seconds of decode attention over the latent cache."""
        op = self.find(f"latent_decode.{kv}", "latent_decode.bf16")
        if op is None:  # no latent kernels of this vendor: ordinary decode of one KV head, all heads in its group
            return self.decode(rows, context, heads, 1, (latent + rope) // 2, kv, element)
        t = forms.latent_decode(self.q(op), self.machine(op), rows, context, heads, latent, rope, element).total
        if isinstance(op.residual, Residual) and self.same_machine(op):
            t = t * np.exp(op.residual.at((heads,), rows, context))
        self.note("decode attention", op)
        return t

    def moe(self, fmt: Gemm, tokens: Any, hidden: int, width: int, experts: int, top_k: int, ep: int, gated: bool) -> Times:
        """Seconds of the routed experts of one rank; ``tokens`` of the whole expert-parallel group."""
        names = [f"moe.{t.split('.', 1)[1]}" for t in fmt.tables]
        op = self.find(*names)
        if op is None:
            raise LookupError("no MoE profile at all")
        exact = op.name == names[0]
        hw = self.machine(op)
        if not exact and self.accelerator.supports(fmt.unit) and fmt.unit != op.unit:
            hw = hw._replace(peak=self.accelerator.peak(fmt.unit))
        element = fmt.weight_bytes
        t = forms.moe(
            self.q(op), hw, np.asarray(tokens, float), hidden, width, experts, top_k, ep, element, 3.0 if gated else 2.0
        )
        known = False
        if isinstance(op.residual, Residual) and exact and self.same_machine(op):
            key = (hidden, width, experts, top_k, ep)
            known = op.residual.known(key)
            t = Times(t.total * np.exp(op.residual.at(key, tokens)), t.compute, t.memory)
        self.note("experts", op, known, "" if known else "expert shape between measured shapes")
        if not exact:
            self.used["experts"] = ("estimated", self.used["experts"][1] + f"; {names[0]} was not measured")
        return t

    def all_reduce(self, size: Any, ranks: int, link: Link, network: Link | None, node: int) -> Any:
        """Seconds to add up ``size`` bytes over ``ranks`` accelerators, ``node`` of them in a node."""
        size = np.asarray(size, float)
        if ranks <= 1:
            return np.zeros_like(size)
        inside = min(ranks, node, link.domain)
        t = self._node_all_reduce(size, inside, link)
        nodes = -(-ranks // inside)
        if nodes > 1:
            wire = network or Link("rdma", 50e9, 20e-6)
            t = (
                t
                + 2.0 * wire.latency * np.ceil(np.log2(nodes))
                + 2.0 * (nodes - 1) / nodes * size / (0.72 * wire.bandwidth * inside)
            )
            self.used["all-reduce"] = ("estimated", "ring within the node, then between nodes at 72 % of the line rate")
        return t

    def _node_all_reduce(self, size: Any, ranks: int, link: Link) -> Any:
        if ranks <= 1:
            return np.zeros_like(size)
        op = self.find("all_reduce") if link.kind in ("nvswitch", "nvlink", "pcie") else None
        reference = None if op is None else float(op.reference["link"])
        own = self.accelerator.link
        if (
            op is not None
            and reference is not None
            and link is own
            and not self.proxy_reason
            and isinstance(op.residual, Residual)
        ):
            self.note("all-reduce", op, op.residual.known((ranks,)))
            known = min(max(ranks, 2), 8)
            return forms.all_reduce(op.q, size, known) * np.exp(op.residual.at((known,), np.maximum(size, 1.0)))
        if link.kind in ("nvswitch", "nvlink", "ub", "icn"):
            op = load_stack("h100-sxm.vllm").get("all_reduce")
            speed = link.group_bandwidth(ranks) / 450e9
            why = "two-regime form of H100 scaled by link bandwidth"
        elif link.kind == "pcie":
            op = load_stack("l40s.vllm").get("all_reduce")
            speed = link.bandwidth / 31.5e9
            why = "PCIe all-reduce of L40S scaled by link bandwidth"
        else:
            op = None
        if op is None:
            # no measurement: ring at 72 % of what the group can send, two latencies
            self.used["all-reduce"] = (
                "estimated",
                f"ring over {link.kind} at 72 % of its bandwidth; latency {link.latency * 1e6:.0f} µs",
            )
            return link.latency + 2.0 * (ranks - 1) / ranks * size / (0.72 * link.group_bandwidth(ranks))
        q = list(op.q)
        q[2], q[5] = q[2] * speed, q[5] * speed
        self.note("all-reduce", op, False, why)
        self.used["all-reduce"] = ("estimated", self.used["all-reduce"][1])
        t = forms.all_reduce(q, size, ranks)
        return (
            t * np.exp(op.residual.at((min(ranks, 8),), np.maximum(size, 1.0)))
            if link.kind == "pcie" and isinstance(op.residual, Residual)
            else t
        )

    def all_to_all(self, size: Any, ranks: int, link: Link, network: Link | None, node: int) -> Any:
        """Seconds in which every rank sends ``size`` bytes in all to its peers, evenly."""
        size = np.asarray(size, float)
        if ranks <= 1:
            return np.zeros_like(size)
        inside = min(ranks, node, link.domain)
        near = (inside - 1) / ranks * size / (0.72 * link.group_bandwidth(inside)) if inside > 1 else 0.0
        t = 10e-6 + near
        if ranks > inside:
            wire = network or Link("rdma", 50e9, 20e-6)
            t = wire.latency + np.maximum(near, (ranks - inside) / ranks * size / (0.85 * wire.bandwidth))
        self.used["all-to-all"] = (
            "estimated",
            "bytes over bandwidth: 72 % of the link inside a node, 85 % of the line rate between nodes",
        )
        return t

    def send(self, size: Any, link: Link) -> Any:
        """Seconds of one point-to-point message."""
        self.used["stage hand-over"] = (
            "fitted" if link.kind.startswith("nv") else "estimated",
            f"{link.kind}: latency and 80 % of bandwidth",
        )
        return link.latency + np.asarray(size, float) / (0.8 * link.bandwidth)

    def operators(self, parts: Mapping[str, tuple[str, float]]) -> tuple[Operator, ...]:
        """What was used, as evidence: ``parts`` gives (part, share of it) for each operator."""
        return tuple(Operator(name, part, *self.used[name], share) for name, (part, share) in parts.items() if name in self.used)


@dataclass(frozen=True)
class Gemm:
    """A GEMM format: fitted tables to look in (best first), matrix-unit dtype, bytes per weight and per activation."""

    name: str
    tables: tuple[str, ...]
    unit: str
    weight_bytes: float
    act_bytes: float


def _nearest_dim(dim: int) -> int:
    return 64 if dim < 96 else 128 if dim < 192 else 256
