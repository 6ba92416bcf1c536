"""Whose kernels were measured, and for whom they may stand in (`profiles/fitted/machines/*.yaml`).

A *system* is the first part of the name of a fitted profile (``h100-sxm`` of ``h100-sxm.vllm``). An accelerator takes the kernels of the
system that was measured on it; else those of its proxy, or its proxy's proxy; else those of the system whose rule fits it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from sim.cost.stack import STACK_ORDER, load_stack
from sim.errors import DataError
from sim.hardware.accelerator import Accelerator, Kind, MemoryType
from sim.hardware.load import load_accelerator
from sim.profile_files import Record, checked, read_mapping
from sim.resources import path
from sim.units import Bytes


class StandIn(Record):
    """For whom the kernels of a system stand in: everything that is given must fit. Rules are asked by ``order``."""

    order: int = Field(ge=0, description="lower ones are asked first")
    reason: str = Field(min_length=1, description="why they may")
    vendor: str | None = Field(None, description="of the accelerator")
    kinds: tuple[Kind, ...] = Field((), description="gpu, npu, cpu")
    generations: tuple[str, ...] = Field((), description="such as sm_90")
    memory_type: MemoryType | None = Field(None, description="hbm, gddr, lpddr, ddr")
    frameworks: tuple[str, ...] = Field((), description="whose kernels are wanted: vllm, sglang, vllm-ascend, llama.cpp")
    stack: str | None = Field(None, description="only this one of the system's profiles")

    def fits(self, a: Accelerator, framework: str) -> bool:
        """Whether the rule is for an accelerator under a framework."""
        return (
            (self.vendor is None or self.vendor == a.vendor.lower())
            and (not self.kinds or a.kind in self.kinds)
            and (not self.generations or a.generation in self.generations)
            and (self.memory_type is None or self.memory_type == a.memory_type)
            and (not self.frameworks or framework in self.frameworks)
        )


class Loan(Record):
    """Kernels that other accelerators run too, in place of those of a stand-in that does not."""

    operators: tuple[str, ...] = Field(min_length=1, description="such as moe.mxfp4")
    generations: tuple[str, ...] = Field(min_length=1, description="such as sm_80")
    framework: str = Field(description="of the profile that has them")
    reason: str = Field(min_length=1, description="why they are the same")


class PerCore(Record):
    """Most bytes per second that a core reads, on a vendor's accelerators with such memory."""

    vendor: str
    memory_type: MemoryType
    quantised: Bytes
    half: Bytes


class Ranges(Record):
    """Largest values that measurements cover."""

    rows: float = Field(2048.0, gt=0)
    context: float = Field(131072.0, gt=0)


class Machine(Record):
    """A system with fitted profiles."""

    accelerators: tuple[str, ...] = Field((), description="what was measured")
    link: str | None = Field(None, description="what its collectives were measured over; by default the link of the accelerator")
    generation: str = Field("", description="accelerators of the same generation may use the residual grids too")
    relative: bool = Field(
        False, description="parameters are relative to the accelerator's own datasheet figures, whichever it is"
    )
    fp16_unit: str = Field("bf16", description="number format of peak_tflops for fp16 weights, where an accelerator has it")
    lends: tuple[Loan, ...] = Field((), description="kernels that other generations run too")
    others: tuple[str, ...] = Field((), description="systems asked for kernels that this one lacks")
    ranges: Ranges = Field(Ranges(), description="what the measurements cover")
    per_core_bandwidth: PerCore | None = None
    stands_in_for: tuple[StandIn, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The system whose kernels an accelerator takes; ``reason`` why they stand in, "" for its own; ``stack`` the only one, or None for all."""

    system: str
    machine: Machine
    reason: str = ""
    stack: str | None = None


def machines() -> Mapping[str, Machine]:
    """Systems with fitted profiles, by name. Raises `DataError`."""
    files = sorted(path("profiles", "fitted", "machines").glob("*.yaml"))
    return _machines(tuple((f, (s := f.stat()).st_mtime_ns, s.st_size) for f in files))


@lru_cache(maxsize=2)
def _machines(files: tuple[tuple[Path, int, int], ...]) -> Mapping[str, Machine]:
    return {f.stem: checked(Machine, read_mapping(f, "what was measured"), str(f)) for f, _, _ in files}


def lent(a: Accelerator, own: str, chosen: bool = False) -> Mapping[str, str]:
    """Operators whose kernels an accelerator runs that were measured on another system than ``own``, and the fitted profile that has each.

    ``chosen``: by a setting or release of the engine, whatever the generation.
    """
    found: dict[str, str] = {}
    for system, m in machines().items():
        for loan in m.lends:
            if system != own and (chosen or a.generation in loan.generations):
                found = dict.fromkeys(loan.operators, f"{system}.{loan.framework}") | found
    return found


def machine_of(system: str) -> Machine:
    """What is known of a system; of a user's own, fitted to the accelerator of that name, only that."""
    return machines().get(system) or Machine(accelerators=(system,))


def measured_on(name: str) -> str:
    """The system that was measured on the accelerator of that name, or an empty string. A fitted profile of its own name is one too."""
    listed = next((system for system, m in machines().items() if name in m.accelerators), "")
    return listed or (name if any(load_stack(f"{name}.{f}") for f in STACK_ORDER) else "")


def choose(a: Accelerator, framework: str) -> Choice:
    """The kernels of an accelerator under a framework. Raises `DataError` when no rule fits."""
    known = machines()
    found = _rule(a, framework, relative=True)
    if found is not None:
        rule, system = found
        return Choice(system, known[system], "" if rule.frameworks else rule.reason, rule.stack)
    if own := measured_on(a.name):
        return Choice(own, machine_of(own))
    seen, here, reason = {a.name}, a, ""
    while here.proxy and here.proxy.name not in seen:
        reason = reason or here.proxy.reason
        if own := measured_on(here.proxy.name):
            return Choice(own, machine_of(own), here.proxy.reason)
        seen.add(here.proxy.name)
        here = load_accelerator(here.proxy.name, f"proxy of {here.name}")
    found = _rule(here, framework, relative=False)
    if found is None:
        raise DataError("profiles/fitted/machines", f"no rule says whose kernels stand in for {a.name}")
    rule, system = found
    return Choice(system, known[system], f"{reason}; {rule.reason}" if reason else rule.reason, rule.stack)


def alike(a: Accelerator) -> tuple[str, ...]:
    """The accelerator, its proxies and the one whose kernels stand in: whose figures in the profiles of engines hold where it has none."""
    names, here = [a.name], a
    while here.proxy and here.proxy.name not in names:
        names.append(here.proxy.name)
        here = load_accelerator(here.proxy.name, f"proxy of {here.name}")
    chosen = choose(a, STACK_ORDER[0])
    return tuple(dict.fromkeys([*names, *chosen.machine.accelerators[: 1 if chosen.reason else 0]]))


def _rule(a: Accelerator, framework: str, relative: bool) -> tuple[StandIn, str] | None:
    """The first rule that fits, and its system."""
    fitting = [(r, s) for s, m in machines().items() if m.relative == relative for r in m.stands_in_for if r.fits(a, framework)]
    return min(fitting, key=lambda found: found[0].order, default=None)
