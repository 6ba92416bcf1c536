"""Replay of recorded decisions of Text Generation Inference (v3 and v2): forwards, filters, token times, block lists.

A recording is a JSON-lines file, gzip or not: scenarios (``scenario, cfg, requests, trace, token_times_us``), operation sequences of the
prefix-cache allocator (``block_size, n_blocks, ops, results``), or a JSON list of default prefill budgets of the launcher.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.document import loads
from sim.errors import DataError
from sim.study.conformance.base import Case, Difference

if TYPE_CHECKING:
    from sim.engine.state import EngineState

Row = dict[str, Any]


def check(path: Path) -> Iterator[Case]:
    """Replay one recording file. Raises `DataError` for a file that is no such recording."""
    for n, row in enumerate(_rows(path), 1):
        try:
            if "trace" in row:
                yield _scenario(row)
            elif "ops" in row:
                yield _operations(row, f"{path.name.split('.')[0]}[{n - 1}]")
            elif "flop_per_token" in row:
                yield _budget(row)
            else:
                raise DataError(f"{path}:{n}", "neither a scenario nor an operation sequence nor a prefill budget")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"{path}:{n}", f"not a recording of TGI: {type(error).__name__} {error}") from error


def _rows(path: Path) -> Iterator[Row]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
        whole = loads(text) if text.lstrip().startswith("[") else None
        rows = whole if whole is not None else [loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(str(path), f"cannot be read: {error}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(str(path), "holds no recording")
    yield from rows


def pieces(prompt: str) -> list[tuple[int, int]]:
    """``"segment:length,…"`` as (content id, length); token i of a segment has position i."""
    parts = [tuple(int(x) for x in part.split(":")) for part in prompt.split(",")]
    return [(a, n) for a, n in parts if n > 0]


def _runs(blocks: list[tuple[int, int]]) -> list[list[int]]:
    out: list[list[int]] = []
    for start, count in blocks:
        if out and out[-1][0] + out[-1][1] == start:
            out[-1][1] += count
        else:
            out.append([start, count])
    return out


def _merged(runs: Sequence[tuple[int, int]]) -> list[list[int]]:
    return _runs([(int(a), int(n)) for a, n in runs])


# ---- scenarios


class Replay:
    """One server on integer microseconds, stepped event by event. ``rows()`` gives the trace as recorded, ``times`` the token times."""

    def __init__(self, cfg: Row, requests: list[Row], version: int) -> None:
        from sim.cost.features import DECODE_ROWS, PREFILL_TOKENS
        from sim.cost.step import new_linear_cost
        from sim.engine.kv.tgi_blocks import TgiBlocks
        from sim.engine.kv.tgi_runs import BlockLists
        from sim.engine.outline import addresses
        from sim.engine.schedulers.tgi.state import NONE, TgiSettings, TgiState, new_tgi_state
        from sim.engine.state import new_recorder
        from sim.jit import by_name

        v3, padded = version == 3, bool(cfg.get("requires_padding", 0))
        block = cfg.get("block_size", 1 if v3 else 16)
        a, bp, bd = (float(cfg.get(k, d)) for k, d in (("a", 1000), ("bp", 10), ("bd", 100)))
        cost = new_linear_cost(np.array([a, a]), np.array([DECODE_ROWS, PREFILL_TOKENS]), np.array([[bd, bd], [bp, bp]]))
        chunking = v3 and bool(cfg.get("chunking", 1)) and not padded
        caching = v3 and not padded and bool(cfg.get("prefix_caching", 1))
        n = len(requests)
        told = by_name(
            TgiSettings,
            v3=v3,
            padded=padded,
            chunking=chunking,
            caching=caching,
            phantom=bool(cfg.get("phantom_prefix", True)),
            track=v3,
            block=block,
            window=0 if caching else int(cfg.get("window") or 0),
            speculate=cfg.get("speculate", 0),
            prefill_budget=cfg.get("max_batch_prefill_tokens", 4096),
            token_budget=cfg.get("max_batch_total_tokens", 16000),
            max_waiting=cfg.get("max_waiting_tokens", 20),
            max_size=NONE if cfg.get("max_batch_size") is None else cfg["max_batch_size"],
            permits=n + 1,
            max_input=2**30,
            max_total=2**31 - 1,
            leg=2**30,
            rows=n + 1,
            ratio=cfg.get("waiting_served_ratio", 0.3),
        )
        self.recorder = new_recorder(1, 0, 1.0, max(n, 1), 8, 1.0, 1.0)
        self.s = new_tgi_state(
            0,
            self.recorder,
            cost,
            addresses(TgiState),
            addresses(TgiBlocks),
            told,
            np.ones(1, np.int64),
        )
        self.blocks = BlockLists(int(self.s.kv.total))
        self.v3, self.block, self.window = v3, block, told.window
        self.requests = requests
        self.times: list[list[int]] = [[] for _ in requests]
        _submit(self.s, requests)

    def rows(self) -> Iterator[Row]:
        """Run to the end, yielding forwards, filters and clears as they happen."""
        from sim.engine.loop import COMPLETED, PLANNED, STOPPED, turn
        from sim.engine.schedulers.tgi.state import STEP

        s = self.s
        while (what := turn(s, np.inf)) != STOPPED:
            self.blocks.follow(s.kv)
            if what == PLANNED and s.q_len == 1:
                now, op, batch, new = int(s.now), s.op, int(s.batch_id), int(s.new_id)
                slots = [int(x) for x in s.b_slot[s.first : s.n]]
                ids = [int(s.r_id[x]) for x in slots]
                rows = [[i, int(s.t_cache[x]), int(s.t_input[x])] for i, x in zip(ids, slots, strict=True)]
                news = self._news(slots) if op != STEP else [batch, new] if new >= 0 else None
                own = new if op != STEP and s.first > 0 else batch
                tokens, prefilling, dur = sum(r[2] for r in rows), bool(s.prefilling), int(s.q_end[s.q_head]) - now
            elif what == COMPLETED:
                pending = {int(x) for x in s.b_slot[s.first : s.n] if s.t_made[x] == 0}
                left = [int(x) for x in s.b_slot[s.first : s.n]]
                out = [x for x in slots if x not in pending]
                stop = [x for x in out if s.t_made[x] >= min(s.t_limit[x], s.r_output[x])]
                self._note(out)
                yield {
                    "t": now, "op": "decode" if op == STEP else "prefill", "batch_id": own, "new": news, "rows": rows, "tokens": tokens,
                    "prefill": prefilling, "dur": dur, "emit": [int(s.r_id[x]) for x in out], "stop": [int(s.r_id[x]) for x in stop],
                }  # fmt: skip
                if len(stop) == len(slots):
                    continue
                if not left:
                    yield {"t": int(s.now), "op": "clear", "batch_id": own}
                elif len(left) < len(slots):
                    keep = [int(s.r_id[x]) for x in left]
                    tokens, current = int(s.c_tokens), int(s.c_current)
                    yield {
                        "t": int(s.now),
                        "op": "filter",
                        "batch_id": own,
                        "keep": keep,
                        "max_tokens": tokens,
                        "current_tokens": current,
                    }

    def _note(self, out: list[int]) -> None:
        now = int(self.s.now)
        for x in out:
            i = int(self.s.r_id[x])
            drop = self.requests[i].get("drop")
            if drop is None or drop > now:
                self.times[i].append(now)

    def _news(self, slots: list[int]) -> Row:
        s = self.s
        new: Row = {"queue_batch_id": int(s.new_id), "max_tokens": int(s.nb_tokens)}
        rows = slots[len(slots) - int(s.added) :]
        if not self.v3:
            return new | {"requests": [int(s.r_id[x]) for x in rows]}
        requests = []
        for x in rows:
            chunk, n = int(s.t_chunk[x]), int(s.t_blocks[x])
            tokens = int(s.t_prompt[x] + s.t_limit[x] + s.speculate) - 1
            request: Row = {"id": int(s.r_id[x]), "cache_len": int(s.t_hit[x]), "chunk_len": None if chunk < 0 else chunk}
            request["n_blocks"] = n
            cycles = -(-tokens // self.window) if self.window else 1
            request["n_slots"] = 0 if s.padded else min(n * self.block * cycles, tokens) if self.block > 1 or self.window else n
            request["blocks"] = self.blocks.of(2 * x + 1)
            requests.append(request)
        return new | {"max_blocks": int(s.nb_blocks), "requests": requests}


def _submit(s: EngineState, requests: list[Row]) -> None:
    from sim.engine.loop import submit
    from sim.engine.schedulers.tgi.replay import set_client

    n = len(requests)
    parts = [pieces(r["p"]) for r in requests]
    spans = [p for part in parts for p in part]
    columns = (
        np.array([r["t"] for r in requests], np.float64),
        np.array([sum(m for _, m in p) for p in parts], np.int32),
        np.array([max(1, min(r["gen"], r["max_new"])) for r in requests], np.int32),
        np.array([r["max_new"] for r in requests], np.int32),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.arange(n, dtype=np.int64) + 2**40,
    )
    content = (
        np.cumsum([0, *(len(p) for p in parts)]).astype(np.int64),
        np.array([a for a, _ in spans], np.int64),
        np.zeros(len(spans), np.int64),
        np.array([m for _, m in spans], np.int64),
    )
    for i, r in enumerate(requests):
        submit(s, i, i + 1, 0, columns, content)
        set_client(s, float(r.get("drop", np.inf)) if r.get("drop") is not None else np.inf, 1 if r.get("logp") else 0)


def _version(row: Row) -> int:
    """What the row says; else v2 is known by its batches, which list bare request ids."""
    if "version" in row:
        return int(row["version"])
    news = (r["new"]["requests"] for r in row["trace"] if isinstance(r.get("new"), dict))
    return 2 if any(isinstance(x, int) for requests in news for x in requests) else 3


def _scenario(row: Row) -> Case:
    version = _version(row)
    trace: list[Row] = row["trace"]
    name = str(row["scenario"])
    replay = Replay(row["cfg"], row["requests"], version)
    i = -1
    for i, ours in enumerate(replay.rows()):
        if i >= len(trace):
            return Case(name, len(trace), len(trace), Difference(i, {}, ours))
        recorded, mine = _comparable(trace[i], ours)
        if recorded != mine:
            return Case(name, len(trace), i, Difference(i, recorded, mine))
    if i + 1 < len(trace):
        return Case(name, len(trace), i + 1, Difference(i + 1, trace[i + 1], {}))
    for r, (request, theirs, mine_times) in enumerate(zip(row["requests"], row["token_times_us"], replay.times, strict=True)):
        if request.get("drop") is None and theirs != mine_times:
            at = len(trace)
            return Case(
                name, at, at - 1, Difference(at, {"request": r, "token_times_us": theirs}, {"token_times_us": mine_times})
            )
    return Case(name, len(trace), len(trace))


def _comparable(recorded: Row, ours: Row) -> tuple[Row, Row]:
    """Block lists are compared run by run, and only where they were recorded; v3 recordings of padded models have none."""
    new = recorded.get("new")
    if not isinstance(new, dict) or not new["requests"] or not isinstance(new["requests"][0], dict):
        return recorded, ours
    theirs = [dict(r) for r in new["requests"]]
    mine = [dict(r) for r in (ours.get("new") or {}).get("requests", [])]
    for a in theirs:
        if "blocks" in a:
            a["blocks"] = _merged(a["blocks"])
    for a, b in zip(theirs, mine, strict=False):
        if "blocks" not in a:
            b.pop("blocks", None)
    ours_new = {**(ours["new"] or {}), "requests": mine} if isinstance(ours.get("new"), dict) else ours.get("new")
    return {**recorded, "new": {**new, "requests": theirs}}, {**ours, "new": ours_new}


# ---- the allocator alone


def _operations(row: Row, name: str) -> Case:
    from sim.engine.kv.tgi_blocks import TgiBlocks, new_tgi_blocks
    from sim.engine.kv.tgi_runs import BlockLists
    from sim.engine.outline import addresses
    from sim.engine.schedulers.tgi.replay import allocate_pieces, release_pieces

    block = int(row["block_size"])
    ops = row["ops"].split()
    kv = new_tgi_blocks(addresses(TgiBlocks), block, int(row["n_blocks"]), 0, True)
    lists = BlockLists(int(kv.total))
    taken: list[tuple[int, int, int, int, tuple[NDArray[np.int64], bool]]] = []
    for i, (op, recorded) in enumerate(zip(ops, row["results"], strict=True)):
        what, *arguments = op.split("/")
        if what == "a":
            keyed = arguments[1] != "-"
            part = np.array(pieces(arguments[1]) if keyed else [], np.int64).reshape(-1, 2)
            slot, tokens = len(taken), int(arguments[0])
            got = allocate_pieces(kv, slot, tokens, part, keyed)
            taken.append((slot, int(got), int(kv.a_node), int(kv.a_prefix), (part, keyed)))
            ours = None
            if got >= 0:
                lists.follow(kv)
                blocks = lists.of(2 * slot + 1)
                slots = _runs([(a * block, n * block) for a, n in blocks])
                n_slots = min(got * block, tokens) if block > 1 else got
                ours = {
                    "prefix_len": int(kv.a_prefix),
                    "n_slots": int(n_slots),
                    "blocks": blocks,
                    "slots": _cut(slots, int(n_slots)),
                }
            theirs = recorded
            if isinstance(recorded, dict):
                theirs = recorded | {k: _merged(recorded[k]) for k in ("blocks", "slots")}
            if theirs != ours:
                return Case(name, len(ops), i, Difference(i, {"result": theirs}, {"result": ours}))
        else:
            slot, n, node, prefix, (part, keyed) = taken[int(arguments[0])]
            release_pieces(kv, slot, n, node, prefix, part, keyed)
    return Case(name, len(ops), len(ops))


def _cut(runs: list[list[int]], n: int) -> list[list[int]]:
    out = []
    for start, count in runs:
        m = min(count, n)
        if m > 0:
            out.append([start, m])
        n -= m
    return out


# ---- launcher defaults


def _budget(row: Row) -> Case:
    from sim.engine.schedulers.tgi.prefill import check_row

    ours = check_row(row)
    recorded = {k: row.get(k) for k in ours}
    name = f"{row['model']} on {row['num_shard']}×{row['gpu']}"
    return Case(name, 1, int(recorded == ours), None if recorded == ours else Difference(0, recorded, ours))
