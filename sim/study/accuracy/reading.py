"""Reading what people have: folders of operating points, benchmark results, per-request tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import ConfigError, DataError
from sim.study.accuracy.point import Point, read_folder
from sim.study.accuracy.traffic import read_requests

_STATISTICS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


def read_points(paths: Iterable[str | Path], scenario: Any = None) -> Iterator[Point]:
    """Points under ``paths``, in order of their names.

    A folder is searched for ``points.jsonl``; ``*.json`` is a result of ``vllm bench serve --save-detailed``, ``*.csv`` and ``*.csv.gz`` hold one
    request a row. The last two say nothing about the deployment: ``scenario`` (see `sim.load`) does. Raises `DataError`, `ConfigError`.
    """
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(f.parent for f in path.rglob("points.jsonl"))
            if not found:
                raise DataError(
                    str(path), "holds no points.jsonl", "give a folder of operating points, a benchmark JSON or a CSV"
                )
            for folder in found:
                yield from read_folder(folder)
        elif path.name == "points.jsonl":
            yield from read_folder(path.parent)
        elif path.suffix == ".json":
            yield _bench(path, _needed(scenario, path))
        elif path.name.endswith((".csv", ".csv.gz")):
            yield _table(path, _needed(scenario, path))
        else:
            raise DataError(str(path), "no such folder or file of a known kind", "points.jsonl, *.json (vllm bench serve), *.csv")


def _needed(scenario: Any, path: Path) -> Any:
    if scenario is None:
        raise ConfigError(
            "--scenario", None, f"{path.name} does not say what was deployed: name a scenario with model and deployment"
        )
    if scenario.deployment is None:
        raise ConfigError("--scenario", scenario.name, "needs one deployment, not several pools")
    return scenario


def _point(
    path: Path, scenario: Any, columns: Mapping[str, Any], traffic: Mapping[str, Any], measured: dict[str, float]
) -> Point:
    d = scenario.deployment
    return Point(
        id=path.name,
        model=scenario.model.name or str(scenario.model.config),
        engine=d.engine.name,
        version=d.engine.settings.get("version"),
        accelerator=d.accelerator,
        traffic=traffic,
        measured={k: v for k, v in measured.items() if np.isfinite(v)},
        weights=scenario.model.weights,
        kv_cache=scenario.model.kv_cache,
        settings=d.engine.settings,
        tp=d.tp,
        pp=d.pp,
        dp=d.dp,
        ep=d.ep,
        kv_blocks=d.kv_blocks,
        quality="good",
        folder=path.parent,
        columns=columns,
        scenario=scenario,
    )


def _statistics(name: str, values: Any) -> dict[str, float]:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return {}
    return {f"{name}.mean": float(values.mean())} | {
        f"{name}.{k}": float(np.percentile(values, q)) for k, q in _STATISTICS.items()
    }


def _table(path: Path, scenario: Any) -> Point:
    columns = read_requests(path)
    measured: dict[str, float] = {}
    ttft, e2e = columns.get("ttft_s"), columns.get("e2e_s")
    if ttft is not None:
        measured |= _statistics("ttft_s", ttft)
    if e2e is not None:
        measured |= _statistics("e2e_s", e2e)
        measured |= _rates(columns["arrival_s"], e2e, columns["output_tokens"])
    if ttft is not None and e2e is not None:
        more = columns["output_tokens"] > 1
        measured |= _statistics("tpot_s", (e2e - ttft)[more] / (columns["output_tokens"][more] - 1))
    if not measured:
        raise DataError(str(path), "has neither ttft_s nor e2e_s")
    return _point(path, scenario, columns, {"kind": "trace"}, measured)


def _rates(arrival: Any, e2e: Any, output: Any) -> dict[str, float]:
    done = np.isfinite(e2e)
    if not done.any():
        return {}
    span = float((arrival + e2e)[done].max() - arrival.min())
    return {"requests_per_s": float(done.sum()) / span, "output_tokens_per_s": float(output[done].sum()) / span}


def _bench(path: Path, scenario: Any) -> Point:
    """`vllm bench serve --save-detailed`: lists in seconds, one entry a request; failed requests have an error and no TTFT."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(str(path), f"is no readable JSON: {error}") from None
    lists = ("input_lens", "output_lens", "ttfts", "itls")
    if not isinstance(raw, dict) or any(not isinstance(raw.get(k), list) for k in lists):
        raise DataError(str(path), "is no result of `vllm bench serve --save-detailed`", f"needs the lists {', '.join(lists)}")
    if len({len(raw[k]) for k in lists}) != 1 or not raw["ttfts"]:
        raise DataError(str(path), "its lists differ in length, or are empty")
    prompt, output = np.array(raw["input_lens"], np.int64), np.array(raw["output_lens"], np.int64)
    ttft = np.array(raw["ttfts"], float)
    e2e = ttft + np.array([sum(gaps) for gaps in raw["itls"]])
    errors = raw.get("errors") or [""] * len(ttft)
    failed = np.array([bool(e) for e in errors]) | (output < 1)
    ttft[failed] = e2e[failed] = np.nan
    columns, traffic = _traffic(path, raw, prompt, output)
    more = output > 1
    measured = _statistics("ttft_s", ttft) | _statistics("e2e_s", e2e)
    measured |= _statistics("tpot_s", (e2e - ttft)[more] / (output[more] - 1))
    measured |= {
        k: float(raw[n])
        for k, n in (("requests_per_s", "request_throughput"), ("output_tokens_per_s", "output_throughput"))
        if raw.get(n)
    }
    return _point(path, scenario, columns, traffic, measured)


def _traffic(path: Path, raw: Mapping[str, Any], prompt: Any, output: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recorded start times where there are any; else all at once, with ``max_concurrency`` in flight."""
    columns = {"arrival_s": np.zeros(len(prompt)), "prompt_tokens": prompt, "output_tokens": np.maximum(output, 1)}
    rate, limit = raw.get("request_rate"), raw.get("max_concurrency")
    if limit and rate in (None, "inf", float("inf")):
        return columns, {"kind": "closed_loop", "concurrency": int(limit)}
    starts = raw.get("start_times")
    if starts:
        return columns | {"arrival_s": np.array(starts, float) - min(starts)}, {"kind": "trace"}
    if rate in ("inf", float("inf")):
        return columns, {"kind": "trace"}
    raise DataError(str(path), "has a request rate but no start_times", "save it with a release that records them")
