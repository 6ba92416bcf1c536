# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""What recordings of models with several KV groups have beside the others: their plan, blocks held per group, the size of the prefix map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from sim.document import Json
from sim.engine.schedulers.vllm.groups.state import JUNCTION
from sim.engine.schedulers.vllm.kv_plan import Group, GroupPlan
from sim.engine.schedulers.vllm.state import NEW, RESUMED
from sim.engine.state import EngineState
from sim.jit import kernel

_KINDS = {
    "FullAttentionSpec": "full",
    "SlidingWindowSpec": "sliding",
    "ChunkedLocalAttentionSpec": "chunked",
    "MambaSpec": "linear",
}


class PlannedGroup(TypedDict):
    """One KV group."""

    kind: str
    layers: int
    block_size: int
    page_bytes: int
    window: int | None
    eagle: bool


class Plan(TypedDict):
    """Groups as the real planning made them."""

    groups: list[PlannedGroup]
    hit_alignment: int
    hash_block_size: int


def plan_of(plan: Plan, kv: Mapping[str, int]) -> GroupPlan:
    """The groups; ``kv``: chunk and checkpoint sizes, where layers have them."""
    groups = tuple(
        Group(_KINDS[g["kind"]], g["layers"], g["block_size"], g["page_bytes"], g["window"] or 0, g["eagle"])
        for g in plan["groups"]
    )
    fine = plan["hit_alignment"] == plan["hash_block_size"]
    return GroupPlan(groups, plan["hash_block_size"], fine, kv.get("chunk") or 0, kv.get("ckpt") or 0)


@kernel
def _held(s):
    """Blocks in tables per group, keys known, ids and junctions (0: none) of those that run."""
    known = 0
    for first in s.kv.t_head:
        if not s.alike_some:
            known += first != 0
            continue
        e = first
        while e != 0:  # each group knows its blocks by a key of its own
            before = first
            while before != e and s.k_group[before] != s.k_group[e]:
                before = s.kv.d_next[before]
            known += before == e
            e = s.kv.d_next[e]
    ids = np.empty(s.n_run, np.int64)
    junctions = np.empty(s.n_run, np.int64)
    for i in range(s.n_run):
        ids[i] = s.r_id[s.run[i]]
        junctions[i] = s.r_x[s.run[i], JUNCTION]
    held = s.held_of.copy()
    for g in range(held.size):
        held[g] += s.held_alike[s.alike[g]]
    return held, known, ids, junctions, s.kv.caching


def fields(state: EngineState, log: list[tuple[int, str, int]], names: list[str]) -> dict[str, Json]:
    """The further fields of a row, after a decision."""
    held, known, ids, junctions, caching = _held(state)
    row: dict[str, Json] = {"held": [int(n) for n in held]}
    if caching:
        row["nhash"] = int(known)
    boundary = {names[int(i)]: int(j) for i, j in zip(ids, junctions, strict=True)}
    found: list[Json] = [
        [name, boundary[name]] for kind in (NEW, RESUMED) for k, name, _ in log if k == kind and boundary.get(name)
    ]
    if found:
        row["junction"] = found
    return row
