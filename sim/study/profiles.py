"""What the package knows: accelerators, models and engines with the source and the grade of every figure; and a check of all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sim.cost.machines import choose
from sim.cost.profile import engine_lines, engine_profiles, load_engine_profile
from sim.errors import ServesimError, UnknownNameError
from sim.hardware import (
    Accelerator,
    Figure,
    Instance,
    Link,
    accelerator_names,
    find_link,
    instance_names,
    link_names,
    load_accelerator,
    load_instance,
)
from sim.model import load_model
from sim.model.load import model_names, model_profile
from sim.units import show_bytes, show_number

KINDS: Final = ("hardware", "model", "engine")
GRADES: Final = ("measured", "fitted", "datasheet", "estimated")


@dataclass(frozen=True)
class Entry:
    """One profile: ``title`` for people, ``grades`` how many figures have which grade, ``note`` what to know."""

    kind: str
    name: str
    title: str
    grades: dict[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Fact:
    """One figure of a profile. Units are in ``value`` or those of the figure's documentation (seconds, bytes)."""

    name: str
    value: str
    grade: str
    source: str


def profiles() -> list[Entry]:
    """All built-in profiles: hardware, then models, then engine lines."""
    out = []
    for name in accelerator_names():
        a = load_accelerator(name)
        note = _kernels(a)[0]
        out.append(Entry("hardware", name, a.title, _count(f.evidence for f in a.figures.values()), note))
    for name in model_names():
        m = load_model(name)
        out.append(Entry("model", name, f"{m.param_count() / 1e9:.1f} B parameters", {}, "; ".join(m.warnings)))
    for name in engine_profiles():
        for line in engine_lines(name):
            p = load_engine_profile(name, line)
            out.append(
                Entry(
                    "engine", f"{name} {line}", p.title, _count(f.evidence for f in p.figures.values()), f"kernels: {p.kernels}"
                )
            )
    return out


def show(name: str) -> tuple[Entry, list[Fact]]:
    """One profile in full: an accelerator, a model, or an engine (``vllm``, ``vllm 0.15``). Raises `UnknownNameError`."""
    engine, _, version = name.strip().partition(" ")
    if engine in engine_profiles():
        p = load_engine_profile(engine, version.strip() or None)
        facts = [
            Fact(k, f"{f.value:g}" if isinstance(f.value, float) else str(f.value), f.evidence, f.source)
            for k, f in p.figures.items()
        ]
        return Entry("engine", f"{engine} {p.line}", p.title, _count(f.grade for f in facts), f"kernels: {p.kernels}"), facts
    try:
        a = load_accelerator(name)
    except UnknownNameError:
        return _model(name)
    facts = [Fact(k, _with_unit(k, f.value), f.evidence, f.source) for k, f in a.figures.items()]
    note = ": ".join(part for part in _kernels(a) if part)
    return Entry("hardware", a.name, a.title, _count(f.grade for f in facts), note), facts


def _kernels(a: Accelerator) -> tuple[str, str]:
    """Whose kernels an accelerator takes where it has none of its own, and why."""
    chosen = choose(a, "vllm")
    return (f"kernels of {chosen.system}", chosen.reason) if chosen.reason else ("", "")


def _model(name: str) -> tuple[Entry, list[Fact]]:
    try:
        profile = model_profile(name)
    except UnknownNameError:
        raise UnknownNameError("profile", name, [*accelerator_names(), *model_names(), *engine_profiles()]) from None
    m = load_model(profile.name)
    facts = [Fact(k, str(v), "datasheet", profile.source) for k, v in profile.config.items() if not isinstance(v, dict | list)]
    return Entry("model", profile.name, f"{m.param_count() / 1e9:.1f} B parameters", {}, "; ".join(m.warnings)), facts


def _count(grades: Iterable[str]) -> dict[str, int]:
    found: Counter[str] = Counter(grades)
    return {g: found[g] for g in GRADES if found[g]}


def check() -> Iterator[tuple[str, str]]:
    """(profile, problem) of everything that cannot be read or lacks a source; nothing when all is well."""
    for name in accelerator_names():
        yield from _problems(f"hardware {name}", partial(_of_accelerator, name))
    for name in link_names():
        yield from _problems(f"link {name}", partial(_of_link, name))
    for name in instance_names():
        yield from _problems(f"server {name}", partial(_of_instance, name))
    for name in accelerator_names():
        yield from _problems(f"kernels for {name}", partial(_of_kernels, name))
    for name in model_names():
        yield from _problems(f"model {name}", partial(_readable, name))
    for name in engine_profiles():
        for line in engine_lines(name):
            yield from _problems(f"engine {name} {line}", partial(_of_line, name, line))


Figures = Iterable[tuple[str, Figure]]


def _of_accelerator(name: str) -> Figures:
    return load_accelerator(name).figures.items()


def _of_link(name: str) -> Figures:
    return _sourced(find_link(name))


def _of_instance(name: str) -> Figures:
    return _sourced(load_instance(name))


def _of_kernels(name: str) -> Figures:
    choose(load_accelerator(name), "vllm")
    return ()


def _of_line(name: str, line: str) -> Figures:
    return load_engine_profile(name, line).figures.items()


def _readable(name: str) -> Figures:
    load_model(name).param_count()
    return ()


def _sourced(entry: Link | Instance) -> Figures:
    return [("figures", Figure(entry.name, entry.source, entry.evidence))]


def _problems(profile: str, figures: Callable[[], Figures]) -> Iterator[tuple[str, str]]:
    try:
        listed = list(figures())
    except ServesimError as error:
        yield profile, str(error)
        return
    for key, figure in listed:
        if figure.evidence not in GRADES:
            yield profile, f"{key}: grade {figure.evidence!r} is none of {', '.join(GRADES)}"
        if not str(figure.source).strip():
            yield profile, f"{key}: has no source"


def _with_unit(name: str, value: object) -> str:
    """A figure of an accelerator as a person would write it: ``362.05 TFLOP/s``, ``864 GB/s``, ``44.40 GiB``."""
    if not isinstance(value, float):
        return str(value)
    if name.startswith("peak_flops"):
        return f"{show_number(value / 1e12, 5)} TFLOP/s"
    if name.endswith("bandwidth"):
        return f"{show_number(value / 1e9, 5)} GB/s"
    return show_bytes(value) if name.endswith("_bytes") else f"{value:g}"
