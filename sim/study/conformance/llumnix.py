"""Replays ``policies.json``: load metrics, dispatch choices and migration pairings computed by Llumnix v0."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from sim.document import loads
from sim.errors import DataError
from sim.policy.llumnix import v0_dispatch as dispatch
from sim.policy.llumnix import v0_load as load
from sim.policy.llumnix import v0_migration as migration
from sim.policy.llumnix.v0_load import DISPATCH_METRIC, METRICS, InstanceInfo, by_load
from sim.study.conformance.base import Case, Count

if TYPE_CHECKING:
    from sim.document import Json

_TYPES = ("neutral", "prefill", "decode")


def check(path: Path) -> Iterator[Case]:
    """One case per kind of row. *Raises* `DataError` for a file that is not such a recording."""
    cases: dict[str, Count] = {}
    for row in _rows(path):
        count = cases.setdefault(row["kind"], Count())
        try:
            ours = _EVALUATE[row["kind"]](row["input"])
        except (KeyError, TypeError, AttributeError) as e:
            raise DataError(str(path), f"row {count.steps} of kind {row['kind']!r}: {e!r}") from e
        recorded = row["expected"]
        differs = [k for k in recorded if not _same(recorded[k], ours.get(k))]
        count.add(not differs, {k: recorded[k] for k in differs}, {k: ours.get(k) for k in differs})
    for kind, count in cases.items():
        yield count.case(f"{path.name.split('.')[0]} {kind}")


class Row(TypedDict):
    """A rule with its input, and what it answers."""

    kind: str
    input: Input
    expected: dict[str, Json]


class Input(TypedDict, total=False):
    """Of rules of several instances; that of one is an `InstanceInfo`."""

    instances: list[dict[str, Any]]
    instance_num_requests: dict[str, int]
    migrate_out_threshold: float


def _rows(path: Path) -> list[Row]:
    try:
        raw = path.read_bytes()
        data = loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(str(path), f"not readable as JSON: {e}") from e
    rows = data.get("rows") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(str(path), "has no rows", "expected {rows: [{kind, input, expected}, …]}")
    for n, row in enumerate(rows):
        if not isinstance(row, dict) or not {"kind", "input", "expected"} <= row.keys():
            raise DataError(str(path), f"row {n} has no kind, input, expected")
        if row["kind"] not in _EVALUATE or not isinstance(row["input"], dict) or not isinstance(row["expected"], dict):
            raise DataError(str(path), f"row {n} is of unknown kind {row['kind']!r}", f"known: {', '.join(_EVALUATE)}")
    return rows


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12)
    return bool(a == b)


def _finite(x: float) -> float | None:
    return None if math.isinf(x) else float(x)


def _instance_load(x: Any) -> dict[str, Json]:
    i = InstanceInfo(**x)
    out: dict[str, Json] = {
        "remaining_steps": _finite(load.remaining_steps(i)),
        "remaining_steps_is_inf": math.isinf(load.remaining_steps(i)),
        "kv_blocks_ratio": float(load.kv_blocks_ratio(i)),
        "adaptive_decode_load": load.adaptive_decode(i),
        "after_migrate_in": _finite(load.after_migrate_in(i)),
        "after_migrate_out": _finite(load.after_migrate_out(i)),
    }
    return out | {f"{name}_busy": m.busy(i) for name, m in METRICS.items()}


def _instances(x: Input) -> list[InstanceInfo]:
    return [InstanceInfo(**i) for i in x["instances"]]


def _by_load(instances: list[InstanceInfo], kind: str) -> dict[str, Json]:
    metric = METRICS[DISPATCH_METRIC[kind]]
    left, fallback = dispatch.available(instances, metric)
    return {
        "after_filter": sorted(i.instance_id for i in left),
        "fallback_all_busy": fallback,
        "chosen": dispatch.load(instances, metric),
    }


def _dispatch(x: Input) -> dict[str, Json]:
    instances, sent = _instances(x), x["instance_num_requests"]
    return {f"load_{kind}": _by_load(instances, kind) for kind in _TYPES} | {
        "queue": dispatch.queue(instances),
        "balanced": dispatch.balanced(instances, sent),
        "flood": dispatch.flood(instances, sent),
    }


def _defrag(x: Input) -> dict[str, Json]:
    instances, threshold = _instances(x), x["migrate_out_threshold"]
    return {
        "src": [i.instance_id for i in migration.sources(instances, threshold)],
        "dst": [i.instance_id for i in migration.destinations(instances, threshold)],
        "pairs": [list(pair) for pair in migration.defrag(instances, threshold)],
    }


def _ties(x: Input) -> dict[str, Json]:
    instances = _instances(x)
    metric = METRICS["remaining_steps"]
    return {"sorted_ids": [i.instance_id for i in by_load(instances, metric)], "chosen": dispatch.load(instances, metric)}


_EVALUATE: dict[str, Callable[[Input], dict[str, Json]]] = {
    "instance_load": _instance_load,
    "dispatch": _dispatch,
    "migration_defrag": _defrag,
    "tie_order_remaining_steps": _ties,
}
