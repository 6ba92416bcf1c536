"""Replay of unit-test rows of Ollama: layer layout, cache slots, context shift, batch size, memory, placement, eviction.

A recording is one JSON object (gzip or not) of groups; each row of a group is one step.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.document import loads
from sim.errors import DataError
from sim.study.conformance.base import Case, Difference

if TYPE_CHECKING:
    from sim.engine.schedulers.ollama.placement import Gpu

Row = dict[str, Any]
Pair = tuple[object, object]
"""Recorded and ours."""


def check(path: Path) -> Iterator[Case]:
    """Replay one file of unit rows, a case per group. Raises `DataError` for a file that is none."""
    try:
        data = path.read_bytes()
        rows = loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        if not isinstance(rows, dict) or not rows.keys() & _GROUPS.keys():
            raise DataError(str(path), "holds no unit rows of Ollama", f"expected groups {', '.join(_GROUPS)}")
        for name in rows:
            if name not in _GROUPS:
                raise DataError(str(path), f"unknown group {name!r}", f"expected {', '.join(_GROUPS)}")
            yield _case(name, list(_GROUPS[name](rows[name])))
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(str(path), f"not unit rows of Ollama: {type(error).__name__} {error}") from error


def _case(name: str, pairs: list[Pair]) -> Case:
    for i, (recorded, ours) in enumerate(pairs):
        if recorded != ours:
            return Case(name, len(pairs), i, Difference(i, {"expected": recorded}, {"expected": ours}))
    return Case(name, len(pairs), len(pairs))


def _gpus(row: Row) -> list[Gpu]:
    from sim.engine.schedulers.ollama.placement import Gpu

    return [Gpu(g.get("id", ""), g["free"], g.get("library", ""), bool(g["integrated"])) for g in row["gpus"]]


def _fit_gpu(group: Row) -> Iterator[Pair]:
    from sim.engine.schedulers.ollama.layout import LoadRequiredFullError, create_layout

    for c in group["cases"]:
        gpus = [g.__class__(g.id, max(g.free - group["min_memory"], 0), g.library, g.integrated) for g in _gpus(c)]
        ours: object
        try:
            shards = create_layout(c["layers"], gpus, c["num_gpu"], c["require_full"], group["system"]["free"])
            ours = [[s.gpu, list(s.layers)] for s in shards]
        except LoadRequiredFullError:
            ours = "ErrLoadRequiredFull"
        yield c["expected_err"] or c["expected"], ours


def _find_cache_slot(group: Row) -> Iterator[Pair]:
    from sim.engine.schedulers.ollama.context import CacheSlot, best_slot, longest_slot

    for c in group["cases"]:
        slots = [CacheSlot(s["id"], s["inputs"], bool(s["in_use"]), s["last_used_rel_s"]) for s in c["slots"]]
        for name, rule in (("longest", longest_slot), ("best", best_slot)):
            found = rule(slots, c["prompt"])
            yield c[name], found and {"slot": found[0], "len": found[1]}


def _shift_discard(group: Row) -> Iterator[Pair]:
    from sim.engine.schedulers.ollama.context import shift_discard

    for c in group["cases"]:
        yield c["expected"], shift_discard(c["num_ctx"], c["num_keep"], c["n_inputs"])


def _automatic_batch(group: Row) -> Iterator[Pair]:
    from sim.engine.schedulers.ollama.placement import automatic_batch

    for c in group["cases"]:
        yield c["want"], automatic_batch(c["effective_ctx"], c["predicted"], c["available"], c["flash"], c["cuda_free"])


def _available_memory(group: Row) -> Iterator[Pair]:
    from sim.engine.schedulers.ollama.placement import available_memory

    for c in group["cases"]:
        yield [c["available"], c["gpu_free"], c["system_limited"]], list(available_memory(_gpus(c), c["system_free"]))


def _select_placement(group: Row) -> Iterator[Pair]:
    from sim.engine.schedulers.ollama.placement import select_placement

    for c in group["cases"]:
        gpus, main = select_placement(_gpus(c), c["predicted"], c["system_free"], c["main_gpu"], bool(c["spread"]))
        ours = [gpus[0].library, main, len(gpus), gpus[0].id if c["want_id"] else None]
        yield [c["want_library"], c["want_main_gpu"], c["want_n"], c["want_id"]], ours


def _find_runner_to_unload(group: Row) -> Iterator[Pair]:
    from sim.engine.schedulers.ollama.residency import Runner, find_runner_to_unload

    for c in group["cases"]:
        runners = [Runner(r["key"], references=r["ref"], session=r["session_ns"] / 1e9) for r in c["runners"]]
        found = find_runner_to_unload(runners)
        yield c["expected"], found and found.key


_GROUPS: dict[str, Callable[[Row], Iterator[Pair]]] = {
    "fit_gpu": _fit_gpu,
    "find_cache_slot": _find_cache_slot,
    "shift_discard": _shift_discard,
    "automatic_generation_batch": _automatic_batch,
    "available_memory": _available_memory,
    "select_placement": _select_placement,
    "find_runner_to_unload": _find_runner_to_unload,
}
