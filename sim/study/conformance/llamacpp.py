"""Replay of recorded batches and slot choices of a real llama-server.

A recording is a pair of files, ``NAME.json`` (command line, requests, what clients saw) and ``NAME.steps.jsonl`` (one row per batch), each
possibly gzipped. It was made in wall time, so the step at which a task starts is taken from it; which slot it gets and what every batch
holds is ours. Tasks that start before the same step may have been launched in any order (some had waited for a slot, or their posts overtook
one another), and the recording does not say in which: all are tried.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.document import loads
from sim.errors import DataError
from sim.places import files_below
from sim.study.conformance.base import Case, Difference

if TYPE_CHECKING:
    from sim.engine.schedulers.llamacpp import LlamaCppParams

Row = dict[str, Any]
_STEPS = ".steps.jsonl"
_OUTPUT = 1 << 20  # content ids of generated tokens begin here; prompt tokens are below
_RUNS = 1024  # replays of one recording at most


def recordings(folder: Path) -> list[Path]:
    """The recordings of a folder, by their file of steps."""
    return [p for p in files_below(folder) if p.name.endswith((_STEPS, _STEPS + ".gz"))]


def check(path: Path) -> Iterator[Case]:
    """Replay one recording, named by either of its files. Raises `DataError` for a file that is no such recording."""
    base = path.name.removesuffix(".gz").removesuffix(_STEPS).removesuffix(".json")
    try:
        run = loads(_read(path.parent, base + ".json"))
        steps = [loads(line) for line in _read(path.parent, base + _STEPS).splitlines() if line]
        yield _Recording(base, run, steps).case()
    except (KeyError, TypeError, ValueError, IndexError, StopIteration) as error:
        raise DataError(str(path), f"not a recording of llama-server: {type(error).__name__} {error}") from error


def _read(folder: Path, name: str) -> str:
    for path in (folder / name, folder / f"{name}.gz"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(str(path), f"cannot be read: {error}") from error
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    raise DataError(str(folder / name), "is missing; a recording has two files")


@lru_cache(maxsize=1 << 16)
def _token(seed: int) -> int:
    """The pseudo-random prompts of the recordings: one generator per token."""
    return Random(seed).randrange(300, 4000)


def _prompt(spec: list[list[int]]) -> list[int]:
    tokens = [1]
    for n, (seed, length) in enumerate(spec):
        tokens += [_token(seed * 7919 + i) for i in range(length if n else length - 1)]
    return tokens


class _Recording:
    """One run of the server and our replays of it."""

    def __init__(self, name: str, run: Row, steps: list[Row]) -> None:
        self.name, self.run, self.steps = name, run, steps
        self.requests: list[Row] = run["requests"]
        self.prompts = [_prompt(r["prompt_spec"]) for r in self.requests]
        self.slot, self.starts = self._tasks()
        self.refused = self._refused()
        self._launched: list[list[int]] = []  # of the step that differs, in our order

    def _tasks(self) -> tuple[dict[int, int], dict[int, list[int]]]:
        """Slot of each request, and which requests start before each step, in the order of their task ids."""
        first: dict[tuple[int, int], int] = {}
        for k, row in enumerate(self.steps):
            for slot, task in row["slots"]:
                first.setdefault((slot, task), k)
        served = [r for r in self.run["records"] if r.get("status") == 200 and r.get("timings")]
        slots: dict[int, int] = {}
        starts: dict[int, list[tuple[int, int]]] = {}
        for slot in sorted({s for s, _ in first}):
            tasks = sorted((k, task) for (s, task), k in first.items() if s == slot)
            mine = sorted(
                (r for r in served if r["id_slot"] == slot), key=lambda r: r["tok_us"][0] if r["tok_us"] else r["t_stop"]
            )
            for (k, task), record in zip(tasks, mine, strict=True):
                slots[record["i"]] = slot
                starts.setdefault(k, []).append((task, record["i"]))
        return slots, {k: [i for _, i in sorted(v)] for k, v in starts.items()}

    def _refused(self) -> dict[int, list[int]]:
        """Requests answered 400, by the step before which they came."""
        out: dict[int, list[int]] = {}
        for record in self.run["records"]:
            if record.get("status") == 400:
                k = sum(row["t1"] <= record["t_send"] for row in self.steps)
                out.setdefault(k, []).append(record["i"])
        return out

    def case(self) -> Case:
        """The best replay: that of the longest agreement. Depth first over the orders of launches, the last step with a choice first."""
        chosen = {k: _Orders(v) for k, v in sorted(self.starts.items()) if len(v) > 1}
        best: tuple[int, Difference | None] = (-1, None)
        for _ in range(_RUNS):
            matched, difference = self._compare(self._replay({k: orders.now for k, orders in chosen.items()}))
            best = max(best, (matched, difference), key=lambda b: b[0])
            if difference is None or not self._another(chosen, matched):
                break
        if best[1] is None and (wrong := self._refusals()) is not None:
            best = (len(self.steps), wrong)
        return Case(self.name, len(self.steps), best[0], best[1])

    def _another(self, chosen: dict[int, _Orders], matched: int) -> bool:
        """Take the next order at the last step up to the difference that has one, and the first order behind it. False: all were tried."""
        for k in sorted((k for k in chosen if k <= matched), reverse=True):
            if chosen[k].advance(self._wrong_launch() if k == matched else None):
                return True
            chosen[k].restart()
        return False

    def _wrong_launch(self) -> int | None:
        """Place in our order of the first launch that went to another slot than recorded: no order that begins so can be right."""
        return next((n for n, (i, slot) in enumerate(self._launched) if self.slot[i] != slot), None)

    def _compare(self, ours: list[Row]) -> tuple[int, Difference | None]:
        for k, row in enumerate(self.steps):
            mine = ours[k] if k < len(ours) else {"runs": [], "launched": []}
            theirs = {"runs": row["runs"], "launched": sorted([i, self.slot[i]] for i in self.starts.get(k, []))}
            order: list[list[int]] = [x for x in mine["launched"] if x[0] in self.slot]
            mine = {"runs": mine["runs"], "launched": sorted(order)}
            if theirs != mine:
                self._launched = order if theirs["launched"] != mine["launched"] else []
                return k, Difference(k, theirs, mine)
        if len(ours) > len(self.steps):
            return len(self.steps), Difference(len(self.steps), {}, ours[len(self.steps)])
        return len(self.steps), None

    def _refusals(self) -> Difference | None:
        theirs = sorted(i for v in self.refused.values() for i in v)
        return None if theirs == self._rejected else Difference(len(self.steps), {"refused": theirs}, {"refused": self._rejected})

    def _order(self, orders: dict[int, list[int]]) -> list[tuple[float, int]]:
        """(time, request): step k is decided at time k. A task that had waited for a slot comes at the step that launches it."""
        launches = [(float(k), 0, i) for k, v in self.starts.items() for i in orders.get(k, v)]
        refused = [(float(k), 1, i) for k, v in self.refused.items() for i in v]
        return [(t, i) for t, _, i in sorted(launches + refused, key=lambda x: x[:2])]

    def _replay(self, orders: dict[int, list[int]]) -> list[Row]:
        rows, self._rejected = batches(self.run, self.prompts, self._order(orders))
        return rows


class _Orders:
    """The orders in which ``tasks`` can have been launched: as numbered, the reverse (a wait for slots turns them round), then all others."""

    def __init__(self, tasks: list[int]) -> None:
        self._tasks = tasks
        self.restart()

    def restart(self) -> None:
        """Back to the first."""
        self._rank = list(range(len(self._tasks)))  # of the order now tried, by place
        self._reverse = False
        self._wrong: int | None = None

    @property
    def now(self) -> list[int]:
        """The order to try."""
        return [self._tasks[r] for r in (reversed(self._rank) if self._reverse else self._rank)]

    def advance(self, wrong: int | None) -> bool:
        """To the next order. ``wrong``: only those that differ within the first ``wrong + 1`` places. False: there is none."""
        rank, n = self._rank, len(self._rank)
        first = rank == list(range(n))
        if first and not self._reverse:
            self._wrong, self._reverse = wrong, n > 1
            return True
        if first:  # the reverse failed too: go on from the first order
            self._reverse, wrong = False, self._wrong
        if wrong is not None:
            rank[wrong + 1 :] = sorted(rank[wrong + 1 :], reverse=True)
        turn = next((i for i in range(n - 2, -1, -1) if rank[i] < rank[i + 1]), None)
        if turn is None:
            return False
        other = max(i for i in range(turn + 1, n) if rank[i] > rank[turn])
        rank[turn], rank[other] = rank[other], rank[turn]
        rank[turn + 1 :] = reversed(rank[turn + 1 :])
        return rank != list(range(n - 1, -1, -1))  # the last of all is the reverse, tried already


def batches(run: Row, prompts: list[list[int]], order: list[tuple[float, int]]) -> tuple[list[Row], list[int]]:
    """Our batches for a recorded ``run``: (``runs``, ``launched``) of every step, and the requests that were refused.

    ``order``: (arrival, request) in order of arrival. Every step takes 1.
    """
    from sim.cost.features import TOKENS
    from sim.cost.step import new_linear_cost
    from sim.engine.contract import Site
    from sim.engine.loop import STOPPED, submit, turn
    from sim.engine.schedulers.llamacpp.engine import server_state
    from sim.engine.schedulers.llamacpp.state import log_on, log_view, set_keep
    from sim.engine.state import new_recorder
    from sim.ledger import REJECTED

    rec = new_recorder(1, 0, 1.0, max(len(order), 1), 8, 1.0, 1.0)
    cost = new_linear_cost(np.ones(2), np.array([TOKENS]), np.zeros((2, 1)))
    params, keep = _params(run)
    s = server_state(params, Site(), 0, rec, cost, ctx=run["n_ctx_slot"])
    log_on(s)
    requests = [run["requests"][i] for _, i in order]
    set_keep(s, np.array([r.get("n_keep", keep) for r in requests], np.int64))
    n = np.array([r["n"] for r in requests], np.int32)
    zero = np.zeros(len(order), np.int32)
    tokens = [prompts[i] for _, i in order]
    lengths = np.array([len(p) for p in tokens], np.int32)
    columns = (np.array([t for t, _ in order], float), lengths, n, n, zero, zero, _OUTPUT + np.arange(len(order), dtype=np.int64))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.array([t for p in tokens for t in p], np.int64)  # a token is a content of its own: the prompts agree by chance too
    submit(s, 0, len(order), 0, columns, (offsets, ids, np.zeros_like(ids), np.ones_like(ids)))
    while turn(s, 1e18) != STOPPED:
        pass
    refused = sorted(order[int(rec.id[j])][1] for j in range(int(rec.n)) if rec.status[j] == REJECTED)
    return _rows(log_view(s), [i for _, i in order]), refused


def _params(run: Row) -> tuple[LlamaCppParams, int]:
    from sim.engine.schedulers.llamacpp import LlamaCppParams

    words = run["cmd"].split()

    def option(*names: str, default: int) -> int:
        return next((int(words[words.index(x) + 1]) for x in names if x in words), default)

    slots, unified = run["total_slots"], "-kvu" in words or "--kv-unified" in words or "-np" not in words
    ctx = run["n_ctx_slot"]
    params = LlamaCppParams(
        n_parallel=slots,
        n_ctx=option("-c", "--ctx-size", default=ctx) if unified else ctx * slots,
        n_batch=option("-b", "--batch-size", default=2048),
        kv_unified=unified,
        ctx_shift="--context-shift" in words,
        cache_ram_mib=option("-cram", "--cache-ram", default=8192),
    )
    return params, option("--keep", default=0)


def _rows(log: NDArray[np.int64], request: list[int]) -> list[Row]:
    from sim.engine.schedulers.llamacpp.state import EV_AT, EV_LAUNCH, EV_PROMPT

    rows: list[Row] = []
    launched: list[list[int]] = []
    at, step = 0, -1
    for kind, a, b in log.tolist():
        if kind == EV_LAUNCH:
            launched.append([request[a], b])
        elif kind == EV_AT:
            at = a
            if b != step:
                step = b
                rows.append({"runs": [], "launched": launched})
                launched = []
        else:
            rows[-1]["runs"].append([a, "p" if kind == EV_PROMPT else "g", at, b])
    return rows
