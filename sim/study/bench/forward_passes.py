"""Forward passes that a server logged with what was in each batch, as Dynamo writes them (``fpm_metrics_phase.csv``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sim.errors import DataError
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document
from sim.study.bench._run import Run

if TYPE_CHECKING:
    from sim.document import Json
    from sim.study.accuracy.step_log import StepLog

COLUMNS: Final = (
    "counter_id", "ctx_tokens", "ctx_requests", "ctx_kv_tokens", "decode_requests", "decode_kv_tokens", "latency_ms"
)  # fmt: skip
_NAME = re.compile(
    r"(?P<accelerator>.+?)-(?P<engine>vllm|sglang)-(?P<version>\d[\w.]*?)-(?P<model>.+)-tp(?P<tp>\d+)_ep(?P<ep>\d+)"
)
_BEFORE, _AFTER = 2, 6
"""Passes around one with prompts among which its time may have been written."""
_SKIPPED = 12
"""Passes that may be missing within a run."""
_BIN = 1.25
"""Ratio of contexts in one group."""
_FEWEST = 5
"""Passes from which on a group of decode passes is compared."""
Floats = NDArray[np.float64]


@register("bench")
class ForwardPasses(Bench):
    """One forward pass a row: ``ctx_tokens, ctx_requests, ctx_kv_tokens, decode_requests, decode_kv_tokens, latency_ms``, in order of ``counter_id``.

    A server that schedules ahead writes the time of a pass to its neighbour, and some passes wait for what is compiled or loaded. So what is compared
    is the median of passes that decode as many rows at about the same context, and the sum of a run of passes with prompts among them.
    A file called ``ACCELERATOR-ENGINE-VERSION-MODEL-tpN_epM.csv`` says by its name what was deployed.
    """

    name = "forward-passes"
    title = "forward passes as CSV with ctx_tokens, decode_requests, decode_kv_tokens, latency_ms (Dynamo)"

    def fits(self, document: Document) -> bool:
        """A table with these columns."""
        return document.kind == "csv" and {"ctx_tokens", "decode_kv_tokens", "latency_ms"} <= {
            n.strip() for n in document.value[0]
        }

    def runs(self, document: Document) -> Iterator[Run]:
        """One of each group of passes."""
        table = _columns(document)
        table = {k: v[np.argsort(table["counter_id"], kind="stable")] for k, v in table.items()}
        name, said = _deployed(document)
        prompts = _prompt_runs(table)
        near = np.zeros(len(table["latency_ms"]), bool)
        for run in prompts:
            near[run] = True
            seconds = float(table["latency_ms"][run].mean()) / 1e3
            at = int(table["counter_id"][run.start])
            yield _run(f"{name}/prompts-{at}", table, run, {"step_s.prefill": seconds}, said)
        for rows, context, group in _decode_groups(table, ~near):
            seconds = float(np.median(table["latency_ms"][group])) / 1e3
            yield _run(f"{name}/decode-{rows}x{context}", table, group, {"step_s.decode": seconds}, said)


def _columns(document: Document) -> dict[str, Floats]:
    rows = document.table()
    missing = [c for c in COLUMNS if rows and c not in rows[0]]
    if missing:
        raise DataError(str(document.path), f"column {missing[0]!r} is missing", ", ".join(COLUMNS))
    try:
        table = {c: np.array([float(row[c]) for row in rows]) for c in COLUMNS}
    except ValueError:
        raise DataError(str(document.path), "has a cell that is no number") from None
    counts = np.array([table[c] for c in COLUMNS[:-1]])
    if not (np.isfinite(table["latency_ms"]).all() and (table["latency_ms"] > 0).all()):
        raise DataError(str(document.path), "has a pass whose latency_ms is not above zero")
    if not (
        np.isfinite(counts).all() and (counts >= 0).all() and (counts == np.floor(counts)).all() and counts.max(initial=0) < 2**53
    ):
        raise DataError(str(document.path), "has a count that is negative or no whole number")
    return table


def _prompt_runs(table: dict[str, Floats]) -> list[slice]:
    """Runs of passes around those with prompts, none of which is in two."""
    runs: list[slice] = []
    for i in np.flatnonzero(table["ctx_requests"] > 0).tolist():
        if runs and i < runs[-1].stop:
            continue
        run = slice(max(i - _BEFORE, runs[-1].stop if runs else 0), min(i + _AFTER, len(table["ctx_requests"])))
        if table["counter_id"][run.stop - 1] - table["counter_id"][run.start] <= _SKIPPED:
            runs.append(run)
    return runs


def _decode_groups(table: dict[str, Floats], kept: NDArray[np.bool_]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """(rows, mean context, passes) of passes that only decode."""
    rows = table["decode_requests"]
    mine = np.flatnonzero(kept & (rows > 0) & (table["ctx_requests"] == 0))
    context = table["decode_kv_tokens"][mine] / rows[mine]
    bins = np.floor(np.log(np.maximum(context, 1.0)) / np.log(_BIN)).astype(np.int64)
    keys = np.stack([rows[mine].astype(np.int64), bins])
    for n, b in np.unique(keys, axis=1).T.tolist():
        inside = (keys[0] == n) & (keys[1] == b)
        if inside.sum() >= _FEWEST:
            yield n, round(float(context[inside].mean())), mine[inside]


def _run(
    name: str, table: dict[str, Floats], group: slice | NDArray[np.int64], measured: dict[str, float], said: dict[str, Json]
) -> Run:
    return Run("forward passes", name, {}, {"kind": "passes"}, measured, said, inside=True, logs=(_log(table, group),))


def _log(table: dict[str, Floats], group: slice | NDArray[np.int64]) -> StepLog:
    from sim.study.accuracy.step_log import StepLog

    part = {k: v[group] for k, v in table.items()}
    prompts, tokens, decodes = (part[k].astype(np.int64) for k in ("ctx_requests", "ctx_tokens", "decode_requests"))
    seconds = part["latency_ms"] / 1e3
    unknown = np.full(len(seconds), np.nan)
    return StepLog(unknown, prompts, tokens, decodes, decodes, seconds, part["ctx_kv_tokens"], part["decode_kv_tokens"])


def _deployed(document: Document) -> tuple[str, dict[str, Json]]:
    """The name of the log, and what it says of the deployment."""
    name = document.path.name
    for ending in (".gz", ".zst", ".csv"):
        name = name.removesuffix(ending)
    found = _NAME.fullmatch(name)
    return name, {} if found is None else found.groupdict() | {"tp": int(found["tp"]), "ep": int(found["ep"])}
