"""Every number that a setting can be, at its extremes, in a scenario where its class takes part."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from sim import registry
from sim.config.scenario import Scenario

TRAFFIC: dict[str, Any] = {
    "synthetic": {
        "arrival": {"process": "poisson", "rate": "20/s"},
        "lengths": {"kind": "uniform", "prompt_tokens": [1, 900], "output_tokens": [1, 40]},
        "requests": 40,
    }
}
ON: dict[str, tuple[str, str]] = {
    "mindie": ("ascend-910b2", "llama-3.1-8b"),
    "vllm-ascend": ("ascend-910b2", "qwen2.5-7b"),
    "ollama": ("rtx-4090", "llama-3.1-8b"),
    "llamacpp": ("rtx-4090", "llama-3.1-8b"),
}
"""Accelerator and model where they are not an H100 and Llama."""
NEEDED: dict[str, dict[str, Any]] = {
    "poisson": {"rate": "20/s"},
    "constant": {"rate": "20/s"},
    "gamma": {"rate": "20/s", "cv": 2},
    "weibull": {"rate": "20/s", "shape": 0.7},
    "burst": {"size": 5, "interval": "1s"},
    "spike": {"rate": "5/s", "before": "2s", "duration": "1s", "after": "2s", "factor": 3},
    "ramp": {"rate": "1/s", "to": "9/s", "duration": "4s"},
    "stages": {"stages": [{"rate": "5/s", "duration": "2s"}]},
    "mmpp": {"states": [{"rate": "5/s", "lasts": "1s"}, {"rate": "9/s", "lasts": "1s"}]},
    "diurnal": {"rate": "0.001/s"},
    "weekly": {"rate": "0.0002/s"},
    "fixed": {"prompt_tokens": 50, "output_tokens": 9},
    "uniform": {"prompt_tokens": [1, 50], "output_tokens": [1, 9]},
    "lognormal": {"prompt_tokens": {"mean": 100, "cv": 1}, "output_tokens": {"mean": 10, "cv": 1}},
    "eas": {"targets": {"qps": 5}},
    "hpa": {"targets": {"qps": 5}},
}
"""Settings without which a class cannot be used."""
WHOLE = (-1, 0, 1, 2, 2**31 - 1, 2**31, 2**32 + 1, 2**53 + 1, 2**62, 2**63)
REAL = (-0.0, 5e-324, 1e-300, 1e-30, 1e-9, 1e9, 1e15, 1e30, 1e300, 1.7e308, float("inf"), float("nan"))
KINDS = ("engine", "router", "scaler", "admission", "client", "fault", "arrival", "length")

Path = tuple[str, ...]


class Extreme(NamedTuple):
    """``value`` at ``path`` of the settings of class ``name`` of a ``kind``; of the scenario itself where both are empty."""

    kind: str
    name: str
    path: Path
    value: float


def extremes() -> list[Extreme]:
    """All of them, in order."""
    out = [e for path, schema in _numbers(Scenario) if path[0] not in ("pools", "expect") for e in _values("", "", path, schema)]
    seen = set()
    for kind in KINDS:
        for name in registry.names(kind):
            cls = registry.lookup(kind, name)
            params = getattr(cls, "Params", None)
            if params is not None and cls not in seen:
                seen.add(cls)
                out += [e for path, schema in _numbers(params) for e in _values(kind, cls.name, path, schema)]
    return out


def _values(kind: str, name: str, path: Path, schema: dict[str, Any]) -> Iterator[Extreme]:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum", schema.get("exclusiveMaximum"))
    whole = "integer" in str(schema["type"])
    near = [b + step for b in (low, high) if b is not None for step in ((-1, 0, 1) if whole else (0,))]
    for value in dict.fromkeys([*(WHOLE if whole else REAL), *near]):
        yield Extreme(kind, name, path, value)


def _numbers(model: type[BaseModel]) -> list[tuple[Path, dict[str, Any]]]:
    """(path, schema) of every number; ``[]2`` in a path: a list of two."""
    schema = model.model_json_schema()
    found: list[tuple[Path, dict[str, Any]]] = []

    def look(node: dict[str, Any], path: Path, depth: int) -> None:
        if depth > 5 or "enum" in node or "const" in node:
            return
        if "$ref" in node:
            look(schema["$defs"][node["$ref"].rpartition("/")[2]], path, depth + 1)
        for one in node.get("anyOf", ()):
            look(one, path, depth + 1)
        kinds = node.get("type") or ()
        if {"integer", "number"} & {*([kinds] if isinstance(kinds, str) else kinds)}:
            found.append((path, node))
        for key, inner in node.get("properties", {}).items():
            look(inner, (*path, key), depth + 1)
        if kinds == "array":
            items = node.get("prefixItems") or [node.get("items", {})]
            look(items[0], (*path, f"[]{max(len(items), node.get('minItems', 1))}"), depth + 1)

    look({"properties": schema["properties"]}, (), 0)
    return found


def _put(to: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    key, *rest = path
    if not rest:
        to[key] = value
    elif rest[0].startswith("[]"):
        to[key] = [_put({}, tuple(rest[1:]), value) if rest[1:] else value for _ in range(int(rest[0][2:]))]
    else:
        _put(to.setdefault(key, {}) if isinstance(to.get(key, {}), dict) else to.update({key: {}}) or to[key], tuple(rest), value)
    return to


def scenario(case: Extreme) -> dict[str, Any]:
    """The scenario of a case."""
    accelerator, model = ON.get(case.name, ("h100-sxm", "llama-3.1-8b"))
    out: dict[str, Any] = {"model": model, "traffic": copy.deepcopy(TRAFFIC)}
    out["deployment"] = {"accelerator": accelerator, "engine": "vllm", "replicas": 2 if case.kind in ("router", "fault") else 1}
    if not case.kind:
        if case.path[0] == "traffic" and case.path[1] in ("closed_loop", "adapters", "images"):
            out["traffic"][case.path[1]] = {"closed_loop": {"concurrency": 4}, "adapters": {"count": 2}, "images": {"tokens": 5}}[
                case.path[1]
            ]
        return _put(out, case.path, case.value)
    section = _put({**NEEDED.get(case.name, {})}, case.path, case.value)
    match case.kind:
        case "engine":
            out["deployment"]["engine"] = {"name": case.name} | section
        case "scaler":
            out |= {"router": "least_outstanding", "scaling": {"name": case.name, "max": 3} | section}
        case "fault":
            out["faults"] = [{"name": case.name} | ({} if "mtbf" in section else {"at": "0.2s"}) | section]
        case "arrival" | "length":
            key, word = {"arrival": ("arrival", "process"), "length": ("lengths", "kind")}[case.kind]
            out["traffic"]["synthetic"][key] = {word: case.name} | section
        case kind:
            out[{"client": "clients"}.get(kind, kind)] = {"name": case.name} | section
    return out
