"""Flip every setting of an engine in a scenario where it should matter, and say what came of it.

Run as ``python -m tests.settings.walk ENGINE`` with ``NUMBA_DISABLE_JIT=1``: traffic is tiny, so plain Python beats compiling. Prints JSON,
setting → ``changed``, ``same``, ``inert`` (declared without effect, and without it) or ``no case``.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from sim import registry
from sim.config.scenario import Scenario
from sim.engine.effect import every_setting, without_effect
from sim.errors import ServesimError
from sim.study.single import Prepared

WHOLE = ("arrival", "lengths")  # replaced, never merged
COLUMNS = (
    "arrival_s",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "output_tokens",
    "cached_tokens",
    "preemptions",
    "status",
)


@dataclass(frozen=True)
class Case:
    """``value`` of a setting against ``was`` (None: left out), with the other ``engine`` settings and ``changes`` of the scenario."""

    value: Any
    was: Any = None
    engine: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


def merged(base: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of ``base`` with changes; None takes a key away."""
    if len(more) != 1:
        return merged(merged(base, *more[:-1]), more[-1]) if more else copy.deepcopy(base)
    out, changes = copy.deepcopy(base), more[0]
    for key, value in changes.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict) and key not in WHOLE:
            out[key] = merged(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def nested(name: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` of ``a.b``."""
    first, _, rest = name.partition(".")
    return {first: nested(rest, value)} if rest else {first: value}


def outcome(scenario: dict[str, Any], engine: dict[str, Any]) -> str:
    """What requests saw, in short; or why the scenario is refused."""
    for pool in scenario.get("pools") or [scenario["deployment"]]:
        pool["engine"] = merged(pool["engine"], engine)
    try:
        result = Prepared(Scenario.model_validate(scenario)).run()
    except ServesimError as error:
        return f"refused: {error}"
    digest = hashlib.sha256()
    for name in COLUMNS:
        digest.update(result.requests[name].to_numpy().tobytes())
    return digest.hexdigest()


def flipped(base: dict[str, Any], name: str, case: Case) -> tuple[str, str]:
    """The outcomes without and with the flip."""
    scenario = merged(base, case.changes)
    before = case.engine if case.was is None else merged(case.engine, nested(name, case.was))
    return outcome(copy.deepcopy(scenario), before), outcome(scenario, merged(case.engine, nested(name, case.value)))


def walk(engine: str, only: str = "") -> dict[str, str]:
    """The verdict on every setting."""
    table = importlib.import_module(f"tests.settings.{engine.replace('-', '_')}")
    params = registry.lookup("engine", engine, "engine").Params
    inert = without_effect(params)
    out = {}
    for name, _, _ in every_setting(params):
        if only and name != only:
            continue
        case = table.CASES.get(name)
        if case is None:
            out[name] = "no case"
            continue
        a, b = flipped(table.BASE, name, case)
        if only:
            print(a, b, sep="\n")
        if a.startswith("refused") and b.startswith("refused"):
            out[name] = f"{a} / {b}"
        elif name in inert:
            out[name] = "inert" if a == b else "changed though declared without effect"
        elif a == b:
            out[name] = "same"
        else:
            out[name] = "changed"
    return out


if __name__ == "__main__":
    print(json.dumps(walk(*sys.argv[1:])))
