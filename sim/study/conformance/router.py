"""Replays decisions of real gateways: SGLang's router and smg, vllm_router, production-stack, Ray Serve's prefix tree, Dynamo, llm-d's scorers.

A decision that the real one draws among equals is judged by the set it may draw from; the recorded choice then goes on.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sim.document import loads
from sim.errors import DataError
from sim.places import files_below
from sim.policy.gateways import dynamo
from sim.policy.gateways import production_stack as stack
from sim.policy.gateways.cache_aware import CacheAware, Settings
from sim.policy.gateways.owner_tree import OwnerTree
from sim.policy.gateways.prompts import Letters
from sim.study.conformance import _router_rows as router_rows
from sim.study.conformance import _router_shapes as shapes
from sim.study.conformance import _scaler_rows, _vtc_rows
from sim.study.conformance.base import Case, Difference

_UNIT_ROWS = "unit_rows"
Rows = Iterator[tuple[object, object]]
"""Pairs of what was recorded and what ours may be: equal values, or a value and the set it must be in."""


def recordings(folder: Path) -> list[Path]:
    """The recordings of a folder that can be replayed; queues of tenants and autoscalers among them."""
    files = [p for p in files_below(folder) if p.name.endswith((".json", ".json.gz"))]
    return [p for p in files if p.name.startswith(_UNIT_ROWS) or _replay_of(p) is not None]


def check(path: Path) -> Iterator[Case]:
    """*Raises* `DataError` for a file that is not such a recording."""
    replay = _replay_of(path)
    unit_rows = path.name.startswith(_UNIT_ROWS)
    if replay is None and not unit_rows:
        raise DataError(str(path), "is no recording of a router", f"names begin with {', '.join((*_REPLAYS, _UNIT_ROWS))}")
    data = _read(path)
    try:
        if replay is None:
            yield from router_rows.check(data)
            return
        steps = matched = 0
        difference = None
        for recorded, ours in replay(data):
            if difference is None:
                if recorded in ours if isinstance(ours, set | frozenset) else _same(recorded, ours):
                    matched += 1
                else:
                    shown = sorted(ours) if isinstance(ours, set | frozenset) else ours
                    difference = Difference(steps, {"decision": recorded}, {"decision": shown})
            steps += 1
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as e:
        raise DataError(str(path), f"is not laid out as a recording of this kind: {e!r}") from e
    yield Case(path.name.split(".json")[0], steps, matched, difference)


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-12)
    return bool(a == b)


def _read(path: Path) -> Any:
    try:
        raw = path.read_bytes()
        return loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(str(path), f"not readable as JSON: {e}") from e


def _version_of(data: shapes.GatewayRecording) -> str:
    package = str(data["package"])
    if package.startswith("smg"):
        return "smg-1.13"
    return "vllm-router" if "vllm_router" in package else "0.3"


def _gateway(data: shapes.GatewayRecording) -> Rows:
    """sglang_router, smg, vllm_router: ``[text, requests in flight by worker, chosen]``."""
    order = data["registry_order"]
    if data["policy"] == "round_robin":
        for i, (_, _, chosen) in enumerate(data["rows"]):
            yield chosen, order[i % len(order)]
        return
    thresholds = data["cache_threshold"], data["balance_abs_threshold"], data["balance_rel_threshold"]
    core = CacheAware(Settings(_version_of(data), *thresholds), order)
    tokens = _version_of(data) != "vllm-router" or "token ids" in data.get("route", "")
    for text, lengths, chosen in data["rows"]:
        prompt = Letters(text if tokens else "")
        decision = core.decide(prompt, lengths)
        yield chosen, set(decision.allowed)
        core.chosen(chosen, prompt, decision)


def _round_robin(data: list[tuple[list[str], str]]) -> Rows:
    core = stack.RoundRobin()
    for urls, chosen in data:
        yield chosen, core.choose(urls)


def _session(data: list[tuple[list[str], str | None, str]]) -> Rows:
    core = stack.Session()
    for urls, session, chosen in data:
        yield chosen, core.choose(urls, session, {})


def _lowest_qps(data: list[tuple[float, dict[str, float], str]]) -> Rows:
    """``[t, {url: qps}, chosen, …]``: candidates http://e0:8000 … e3."""
    urls = [f"http://e{i}:8000" for i in range(4)]
    for row in data:
        yield row[2], stack.lowest_qps(urls, row[1])


def _prefix_aware(data: list[tuple[list[str], str, dict[str, float], int, list[str], str]]) -> Rows:
    trie, least = stack.HashTrie(), 0
    for urls, text, qps, length, matched, chosen in data:
        found, owners = trie.match(Letters(text), urls)
        yield (length, matched), (found, sorted(owners))
        if found < least:
            yield chosen, stack.lowest_qps(urls, qps)
        else:
            yield chosen, owners
        trie.insert(Letters(text), chosen)


def _prefix_aware_256(data: list[tuple[list[str], str, dict[str, float], int, list[str], str]]) -> Rows:
    trie = stack.HashTrie()
    for urls, text, qps, length, matched, chosen in data:
        found, owners = trie.match(Letters(text), urls)
        yield (length, matched), (found, sorted(owners))
        yield chosen, {stack.lowest_qps(urls, qps)} if found < 256 else owners
        trie.insert(Letters(text), chosen)


def _ray(data: Any) -> Rows:
    tree: OwnerTree[Letters] = OwnerTree()
    now = 0.0
    for op in data:
        if op[0] == "add":
            tree.add(op[1], op[2])
        elif op[0] == "route":
            _, text, available, length, owners, smallest, chosen, sizes = op
            now += 1.0
            matched, found = tree.match(Letters(text), available)
            rare = matched / len(text) < 0.1
            yield (length, sorted(owners), sorted(smallest)), (matched, found, tree.smallest())
            yield chosen, set(tree.smallest() if rare else found)
            tree.insert(Letters(text), chosen, now)
            yield sizes, dict(tree.sizes)
        elif op[0] == "evict":
            yield (op[3], op[4]), (tree.evict(op[1], op[2]), dict(tree.sizes))
        else:
            yield (op[2], op[3]), (tree.remove(op[1]), dict(tree.sizes))


def _dynamo(data: shapes.DynamoRecording) -> Rows:
    block, weights = int(data["block_size"]), dynamo.Weights()
    rows = data["rows"]
    for isl, overlap, potential, costs, chosen, *_ in rows:
        workers = dynamo.workers_of(potential, overlap, isl, block)
        ours = {name: dynamo.cost(w, isl, block, weights) for name, w in workers.items()}
        yield {k: float(v) for k, v in costs.items()}, {k: ours[k] for k in costs}
        names = list(ours)
        yield str(chosen), {names[i] for i in dynamo.best([ours[n] for n in names])}


_REPLAYS: dict[str, Callable[[Any], Rows]] = {
    "sglang_router": _gateway,
    "smg": _gateway,
    "vllm_router": _gateway,
    "prodstack_roundrobin": _round_robin,
    "prodstack_session": _session,
    "prodstack_lowest_qps": _lowest_qps,
    "prodstack_prefixaware_min256": _prefix_aware_256,
    "prodstack_prefixaware": _prefix_aware,
    "ray_prefix_tree": _ray,
    "dynamo_select": _dynamo,
    "vtc_artifact": _vtc_rows.replay,
    "ray_autoscaling": _scaler_rows.ray,
}


def _replay_of(path: Path) -> Callable[[Any], Rows] | None:
    return next((replay for name, replay in _REPLAYS.items() if path.name.startswith(name)), None)
