"""A server's own log of its steps: what was in each batch, and how long it took. It gives step times without a guess.

vLLM writes one line a step with ``--enable-logging-iteration-details`` (``v1/engine/core.py: log_iteration_details``)::

    INFO 11-29 18:10:29 [core.py:417] Iteration(404): 1 context requests, 62 context tokens, 0 generation requests, 0 generation tokens,
    iteration elapsed time: 87.86 ms, GPU KV cache usage: 2.6%

or the same as a table: ``time, prompt_requests, prompt_tokens, decode_requests, decode_tokens, elapsed_ms`` (``*.iterations.csv``, also gz).

The elapsed time is what the core waits for the model, without scheduling and processing of outputs. The clock times of the lines give
the rest: while requests run without a pause, the clock runs ahead of the sum of elapsed times by the same gap in every step.
Contexts are not logged: they are kept as an account of the tokens that went in and of the requests that left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cost import features as f
from sim.cost.build import build_tables
from sim.cost.extras import Extras
from sim.cost.plain import plain_step_time
from sim.errors import DataError, NotModelledError
from sim.fleet.build import Plan
from sim.tables import lines as table_lines
from sim.workload.textfile import read_all

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLUMNS: Final = ("prompt_requests", "prompt_tokens", "decode_requests", "decode_tokens", "elapsed_ms")
LARGEST: Final = 1 << 30
"""Bytes of a log, unpacked."""
_LINE = re.compile(
    r"Iteration\(\d+\): (\d+) context requests, (\d+) context tokens, (\d+) generation requests, (\d+) generation tokens,"
    r".*?iteration elapsed time: ([0-9.]+) ms(?P<dummy> \(dummy\))?"
)
_CLOCK = re.compile(r"\b(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?\b")
_RANK = re.compile(r"EngineCore_DP(\d+)")
_WAIT = 1e-4  # seconds: shorter "steps" are waits for a step that ran ahead
_SEGMENT = 8  # steps without a pause that say something about the gap between steps
_ROUNDING = 0.29  # seconds: spread of a clock time that is cut to whole seconds
_SURE = 1e-3  # seconds: how well the gap must be known


@dataclass(frozen=True)
class StepLog:
    """Columns of length n, in the order of the log. ``clock_s`` is the time of day (NaN: not logged), ``elapsed_s`` as logged.

    ``prompt_cached`` and ``decode_cached``: tokens in the cache before the step, of all prompts and of all decode rows, where they were logged.
    """

    clock_s: Floats
    prompt_requests: Ints
    prompt_tokens: Ints
    decode_requests: Ints
    decode_tokens: Ints
    elapsed_s: Floats
    prompt_cached: Floats | None = None
    decode_cached: Floats | None = None

    def __len__(self) -> int:
        return len(self.elapsed_s)

    @property
    def steps(self) -> NDArray[np.int64]:
        """i8[n, 4]: prompt requests, prompt tokens, decode requests, decode tokens."""
        return np.column_stack([self.prompt_requests, self.prompt_tokens, self.decode_requests, self.decode_tokens])

    def without_pause(self) -> list[slice]:
        """Stretches in which a request ran from each step into the next, so that the core never waited for work."""
        if not np.isfinite(self.clock_s).all():
            return []
        starts = [0, *(np.flatnonzero(self.decode_requests[1:] == 0) + 1).tolist(), len(self)]
        return [slice(a, b) for a, b in pairwise(starts) if b - a >= _SEGMENT]

    def contexts(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Mean context of the decode rows of every step, and whether the last prompt of the step goes on in the next one."""
        full = 0.98 * float((self.prompt_tokens + self.decode_tokens).max())
        out, cut = np.zeros(len(self)), np.zeros(len(self), bool)
        total = alive = 0.0
        carried = 0
        for i in range(len(self)):
            p, t, d, n = (int(x) for x in self.steps[i])
            here = d + carried
            if alive > here:  # some have left, with an average context each
                total *= here / alive
            out[i] = total / here if here else 0.0
            more = i + 1 < len(self) and self.prompt_requests[i + 1] > 0 and t + n >= full
            cut[i] = more and int(self.decode_requests[i + 1]) < d + p and p > 0
            alive, total, carried = d + p, total + t + n, int(cut[i])
        return out, cut


def read_step_log(path: Path) -> list[StepLog]:
    """The log of every engine in a file: one, or one a data-parallel rank. Raises `DataError`."""
    text = _text(path)
    logs = _table(path, text) if _is_table(text) else _lines(text)
    logs = [log for log in logs if len(log)]
    if not logs:
        raise DataError(
            str(path), "holds no logged step", "a server log of vLLM with --enable-logging-iteration-details, or a table of steps"
        )
    for log in logs:
        if not np.isfinite(log.elapsed_s).all() or (log.elapsed_s <= 0).any() or (log.steps < 0).any():
            raise DataError(str(path), "has a step with a negative or impossible count, or whose elapsed time is not above zero")
        if float(np.median(log.elapsed_s)) < _WAIT:
            raise DataError(
                str(path),
                "was written by a server that schedules asynchronously: its elapsed times are waits, not steps",
                "log with --no-async-scheduling",
            )
    return logs


def is_step_log(path: Path) -> bool:
    """Whether a file is one by its name."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    return name.endswith((".log", ".iterations.csv")) and path.is_file()


def _text(path: Path) -> str:
    return read_all(path, LARGEST).decode("utf-8-sig", errors="replace")


def _is_table(text: str) -> bool:
    return "prompt_requests" in text[:1000].split("\n", 1)[0]


def _table(path: Path, text: str) -> list[StepLog]:
    head, *rest = table_lines(path, text)
    rows = [dict(zip(head, row, strict=False)) for row in rest]
    missing = [c for c in COLUMNS if rows and c not in rows[0]]
    if missing:
        raise DataError(str(path), f"column {missing[0]!r} is missing", ", ".join(COLUMNS))
    entries = []
    for number, row in enumerate(rows, 2):
        try:
            entries.append((_clock(row.get("time") or ""), *(float(row[c]) for c in COLUMNS)))
        except KeyError as missing_cell:
            raise DataError(f"{path}:{number}", f"has no cell in column {missing_cell}") from None
        except (TypeError, ValueError):
            raise DataError(f"{path}:{number}", "has a cell that is no number") from None
    return [_log(entries)]


def _lines(text: str) -> list[StepLog]:
    ranks: dict[str, list[tuple[float, ...]]] = {}
    for line in text.splitlines():
        found = _LINE.search(line)
        if found is None or found["dummy"]:
            continue
        rank = _RANK.search(line[: found.start()])
        entry = (_clock(line[: found.start()]), *(float(found[i]) for i in range(1, 6)))
        ranks.setdefault(rank[1] if rank else "", []).append(entry)
    return [_log(entries) for entries in ranks.values()]


def _clock(text: str) -> float:
    found = _CLOCK.search(text)
    if found is None:
        return float("nan")
    return int(found[1]) * 3600.0 + int(found[2]) * 60.0 + int(found[3]) + float(f"0.{found[4] or 0}")


def _log(entries: list[tuple[float, ...]]) -> StepLog:
    columns = np.array(entries, float).reshape(-1, 6).T
    clock = columns[0]
    if len(clock) > 1:  # the day may end in the middle
        clock = clock + 86400.0 * np.concatenate([[0], np.cumsum(np.diff(clock) < -43200.0)])
    counts = columns[1:5]
    whole = (np.abs(counts) < 1 << 53) & (counts == np.floor(counts))
    prompts, prompt_tokens, decodes, decode_tokens = np.where(whole, counts, -1.0).astype(np.int64)
    return StepLog(clock, prompts, prompt_tokens, decodes, decode_tokens, columns[5] / 1e3)


@dataclass(frozen=True)
class Kinds:
    """Steps with the same contents taken together: ``features`` [k, N_FEATURES], ``count``, mean ``seconds`` and their ``spread`` (of the logarithm)."""

    features: Floats
    count: Ints
    seconds: Floats
    spread: float

    @property
    def prompt(self) -> NDArray[np.bool_]:
        """Whether a step computes prompt tokens."""
        return np.asarray(self.features[:, f.PREFILL_ROWS] > 0)


def gap(logs: Sequence[StepLog]) -> float:
    """Seconds between two steps that are in neither elapsed time: the slope by which the clock runs ahead of the sum of elapsed times.

    0 where the logs have no clock times, or too few to tell it from their rounding to whole seconds.
    """
    spread = shared = weight = 0.0
    for log in logs:
        for part in log.without_pause():
            elapsed = log.elapsed_s[part]
            ahead = log.clock_s[part] - np.cumsum(elapsed)
            index = np.arange(len(ahead), dtype=float)
            index -= index.mean()
            spread += float(index @ index)
            shared += float(index @ ahead)
            weight += float(index @ index) * min(float(elapsed.mean()), 1.0)  # one rounding a second, not one a step
    if not spread or _ROUNDING / np.sqrt(weight) > max(
        _SURE, 0.02 * float(np.mean(np.concatenate([log.elapsed_s for log in logs])))
    ):
        return 0.0
    return max(shared / spread, 0.0)


def kinds(logs: Sequence[StepLog]) -> Kinds:
    """The different batches of some logs, with their mean duration: elapsed time and the gap to the next step."""
    rows, seconds, keys = [], [], []
    between = gap(logs)
    for log in logs:
        context, cut = log.contexts()
        for i, (p, t, d, n) in enumerate(log.steps.tolist()):
            feat = np.zeros(f.N_FEATURES)
            feat[[f.TOKENS, f.DECODE_ROWS, f.DECODE_TOKENS, f.DECODE_CTX]] = (t + n, d, n, d * (context[i] + 1.0))
            feat[[f.PREFILL_ROWS, f.PREFILL_TOKENS, f.PREFILL_CTX, f.ROWS]] = (p, t, t, p + d)
            feat[[f.PREFILL_WORK, f.SAMPLED]] = (t * t / (2.0 * p) if p else 0.0, p + d - int(cut[i]))
            rows.append(feat)
            seconds.append(float(log.elapsed_s[i]) + between)
            keys.append((p, t, d, n))
    _, group = np.unique(np.array(keys), axis=0, return_inverse=True)
    group = group.ravel()
    count = np.bincount(group)
    features = np.zeros((len(count), f.N_FEATURES))
    np.add.at(features, group, np.array(rows))
    mean = np.bincount(group, seconds) / count
    scatter = np.log(np.array(seconds) / mean[group])
    several = count[group] > 1
    spread = float(np.sqrt(np.mean(scatter[several] ** 2))) if several.any() else 0.0
    return Kinds(features / count[:, None], count, mean, spread)


def step_seconds(plan: Plan, found: Kinds) -> Floats:
    """Predicted seconds of every kind of step on a planned replica. Raises `NotModelledError`."""
    if plan.ranks is not None and plan.ranks.together:
        raise NotModelledError(
            "deployment.dp", plan.layout.dp, "steps that data-parallel ranks take together cannot be told one by one", "1"
        )
    if plan.profile.overlap:
        raise NotModelledError(
            "engine.async_scheduling",
            True,
            "a server that schedules a step ahead logs waits, not steps",
            "async_scheduling: false",
        )
    extras = plan.scheduler.extras(plan.params, plan.site) or Extras()
    most = plan.scheduler.max_batch_tokens(plan.params, plan.site)
    largest = int(found.features[:, f.TOKENS].max())
    if largest > most:
        raise NotModelledError(
            "traffic",
            largest,
            f"tokens in a logged step, where the settings allow {most}",
            "the settings of the server that wrote the log",
        )
    tables, _ = build_tables(plan.model, plan.accelerator, plan.layout, plan.profile, most, extras)
    return np.array([plain_step_time(tables, feat)[0] for feat in found.features])


def summary(found: Kinds, seconds: Floats) -> dict[str, float]:
    """Mean duration of steps that decode only, and of those that compute prompts."""
    out = {}
    for name, mine in (("step_s.decode", ~found.prompt), ("step_s.prefill", found.prompt)):
        if mine.any():
            out[name] = float(np.average(seconds[mine], weights=found.count[mine]))
    return out
