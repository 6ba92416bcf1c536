"""Compile ahead: a few requests through an engine leave everything a run needs in the cache on disk."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sim import kept_code, registry
from sim.config import load
from sim.errors import ConfigError
from sim.fleet.build import plan
from sim.study.single import simulate

_PLACES = ("h100-sxm", "ascend-910b4")
_SMALL = (
    "traffic.synthetic.requests=20",
    "traffic.synthetic.lengths={kind: fixed, prompt_tokens: 200, output_tokens: 20}",
    "deployment.replicas=2",
    "router=least_outstanding",
    "slo={}",
    "expect={}",
)


@dataclass(frozen=True)
class Warmed:
    """What it took: seconds of wall time, and how many specialisations were compiled; 0: all were in the cache."""

    name: str
    seconds: float
    compiled: int


def engines() -> list[str]:
    """Every engine once, by its own name."""
    return sorted({registry.lookup("engine", name).name for name in registry.names("engine")})


def warm(name: str) -> Warmed:
    """Compile for an engine (a name, or a file of one's own). Raises `ConfigError` and its kin for one that cannot be run."""
    registry.lookup("engine", name, "engine")
    for place in _PLACES:
        found = load("quickstart", [f"deployment.engine={name}", f"deployment.accelerator={place}", *_SMALL])
        try:
            plan(found)
            break
        except ConfigError as error:
            if place == _PLACES[-1] or "accelerator" not in error.field:
                raise
    began, compiled = time.monotonic(), []
    with listening(lambda function, _: compiled.append(function)):
        simulate(found)
    return Warmed(name, time.monotonic() - began, len(compiled))


def warm_all(names: Sequence[str], jobs: int = 1) -> Iterator[Warmed]:
    """`warm` for several engines, as they are done; with ``jobs`` side by side."""
    if jobs == 1 or len(names) < 2:
        yield from map(warm, names)
        return
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(warm)(name) for name in names)


@contextmanager
def listening(tell: Callable[[str, str], object]) -> Iterator[None]:
    """Within, ``tell(function, signature)`` is called before anything is compiled."""
    kept_code.listeners.append(tell)
    try:
        yield
    finally:
        kept_code.listeners.remove(tell)


def engine_of(signature: str) -> str:
    """The engine that a specialisation belongs to; an empty string for what all share."""
    found = re.search(r"\bsim\.engine\.schedulers\.(\w+)|\bown_[0-9a-f]{12}_(\w+)\.|\bsim\.engine\.(plain)_state", signature)
    return next((g for g in found.groups() if g), "") if found else ""
