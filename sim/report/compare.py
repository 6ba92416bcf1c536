"""Several runs side by side, the best of each row marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from sim.metrics.bottleneck import WORDS
from sim.metrics.store import write_csv, write_folder, write_json
from sim.report import page, words
from sim.report.figures import cdf_figure, latency_cdf
from sim.report.html import KIND_COLORS

if TYPE_CHECKING:
    from sim.metrics.result import Result

FORMAT: Final = "servesim-compare/1"
_SIDE_BY_SIDE: Final = 4
"""More runs than this become rows of the terminal table, with fewer numbers each."""


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    ``path``: where in the summary; ``best``: min, max or nothing; ``brief``: also in the narrow table.
    """

    title: str
    path: tuple[str, ...]
    show: Callable[[Any], str]
    best: str = ""
    brief: bool = False

    def value(self, summary: Mapping[str, Any]) -> Any:
        """The number in a summary; None where there is none."""
        found: Any = summary
        for key in self.path:
            found = found.get(key) if found is not None else None
        return found


def _count(value: Any) -> str:
    return f"{value:,}" if value is not None else words.DASH


def _share(value: Any) -> str:
    return words.percent(value, 2)


def _use(value: Any) -> str:
    return words.percent(value, 0)


ROWS: Final = (
    Row("SLO attainment", ("slo", "attainment", "joint"), _share, "max", brief=True),
    Row("Goodput, requests/s", ("slo", "goodput_requests_per_s"), words.number, "max", brief=True),
    Row("TTFT p50", ("latency", "ttft_s", "p50"), words.seconds, "min"),
    Row("TTFT p99", ("latency", "ttft_s", "p99"), words.seconds, "min", brief=True),
    Row("TPOT p50", ("latency", "tpot_s", "p50"), words.seconds, "min"),
    Row("TPOT p99", ("latency", "tpot_s", "p99"), words.seconds, "min", brief=True),
    Row("ITL p99", ("latency", "itl_s", "p99"), words.seconds, "min"),
    Row("E2E p50", ("latency", "e2e_s", "p50"), words.seconds, "min"),
    Row("E2E p99", ("latency", "e2e_s", "p99"), words.seconds, "min", brief=True),
    Row("Queue, mean", ("latency", "queue_s", "mean"), words.seconds, "min"),
    Row("Requests/s", ("throughput", "requests_per_s"), words.number, "max"),
    Row("Output tokens/s", ("throughput", "output_tokens_per_s"), words.number, "max", brief=True),
    Row("… per accelerator", ("throughput", "output_tokens_per_s_per_accelerator"), words.number, "max"),
    Row("Unserved", ("slo", "unserved"), _share, "min"),
    Row("Busy", ("utilisation", "busy"), _use),
    Row("KV use, peak", ("utilisation", "kv_peak"), _use),
    Row("Preemptions", ("preemptions",), _count, "min"),
    Row("Limited by", ("bottleneck", "limit"), lambda v: WORDS.get(v, "nothing")),
)


def best(row: Row, summaries: Sequence[Mapping[str, Any]]) -> set[int]:
    """Which runs are best in this row, as printed; empty when the row has no order or all are alike."""
    values = [row.value(s) for s in summaries]
    known = [v for v in values if v is not None]
    if not row.best or len(known) < 2:
        return set()
    top = row.show(max(known) if row.best == "max" else min(known))
    found = {i for i, v in enumerate(values) if v is not None and row.show(v) == top}
    return found if len(found) < len(values) else set()


def headline(results: Sequence[Result]) -> str:
    """Who holds the SLO, and who is best at what."""
    summaries = [r.summary for r in results]
    parts = []
    judged = [r for r in results if r.summary["slo"]["met"] is not None]
    if judged:
        held = [r.name for r in judged if r.summary["slo"]["met"]]
        whom = "None" if not held else "All" if len(held) == len(judged) else words.join(held)
        parts.append(
            f"{whom} {'holds' if len(held) == 1 and len(judged) > 1 else 'hold'} the SLO ({words.targets(judged[0].summary)})."
        )
    for row in (r for r in ROWS if r.title in ("TTFT p99", "TPOT p99", "… per accelerator")):
        winners = sorted(best(row, summaries))
        if winners:
            what = {"TTFT p99": "Lowest p99 TTFT", "TPOT p99": "lowest p99 TPOT"}.get(
                row.title, "most output tokens/s per accelerator"
            )
            value = row.show(row.value(summaries[winners[0]]))
            parts.append(f"{what}: {words.join(results[i].name for i in winners)} ({value});")
    text = " ".join(parts)
    return text[:-1] + "." if text.endswith(";") else text


def screen(results: Sequence[Result]) -> Group:
    """The comparison as one screen."""
    summaries = [r.summary for r in results]
    narrow = len(results) > _SIDE_BY_SIDE
    rows = [r for r in ROWS if any(r.value(s) is not None for s in summaries) and (r.brief or not narrow)]
    marks = {row.title: best(row, summaries) for row in rows}
    cells = [[_mark(row.show(row.value(s)), i in marks[row.title]) for row in rows] for i, s in enumerate(summaries)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if narrow:
        for title in ("", *(row.title for row in rows)):
            table.add_column(title, justify="right" if title else "left", overflow="fold")
        for result, line in zip(results, cells, strict=True):
            table.add_row(Text(result.name, style="bold"), *line)
    else:
        for title in ("", *(r.name for r in results)):
            table.add_column(title, justify="right" if title else "left", overflow="fold")
        for k, row in enumerate(rows):
            table.add_row(row.title, *(line[k] for line in cells))
    return Group(
        Text(headline(results), style="bold"),
        table,
        Text("★ best of the row" if not narrow else "★ best of the column", style="dim"),
    )


def _mark(text: str, is_best: bool) -> Text:
    return Text(f"★ {text}", style="green") if is_best else Text(text)


def show(results: Sequence[Result], console: Console | None = None) -> None:
    """Print the screen."""
    (console or Console()).print(screen(results))


def render(results: Sequence[Result]) -> str:
    """The comparison as one HTML file."""
    summaries = [r.summary for r in results]
    names = [page.esc(r.name) for r in results]
    rows = []
    for row in ROWS:
        values = [row.value(s) for s in summaries]
        if any(v is not None for v in values):
            marks = best(row, summaries)
            cells = [page.esc(row.show(v)) for v in values]
            rows.append([page.esc(row.title), *(f"★{c}" if i in marks else c for i, c in enumerate(cells))])
    figures = []
    for key in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        curves = [(r.name, *latency_cdf(r, key)) for r in results]
        aims = {s["slo"]["targets"].get(key) for s in summaries}
        if any(x for _, x, _ in curves):
            figures.append(cdf_figure(curves, key, aims.pop() if len(aims) == 1 else None))
    bars = "".join(page.bar(r.name, r.summary["bottleneck"]["shares"], WORDS, KIND_COLORS) for r in results)
    limits = page.table(
        ["", "what limits"],
        [[name, page.esc(s["bottleneck"]["sentence"])] for name, s in zip(names, summaries, strict=True)],
        (0, 1),
    )
    body = [
        f'<h1>{" · ".join(names)}</h1><p class="kicker">{len(results)} deployments side by side</p>',
        f'<div class="verdict"><p>{page.esc(headline(results))}</p></div>',
        page.table(["", *names], rows),
        "<h2>Latency</h2>",
        page.plots(figures),
        "<h2>Where the time went</h2>",
        f'<section class="panel">{bars}</section><br>{limits}',
        "<h2>Behind the numbers</h2>",
        page.definitions(),
        *(page.details(f"Scenario {r.name}", f"<pre>{page.esc(r.scenario)}</pre>") for r in results if r.scenario),
        *(page.records(f"Warnings of {r.name}", [{"warning": w} for w in r.warnings]) for r in results if r.warnings),
    ]
    return page.page(f"{' · '.join(r.name for r in results)} · servesim", body, figures)


def save(results: Sequence[Result], folder: str | Path) -> Path:
    """``summary.json, compare.csv, report.html`` in a folder, all or nothing. Raises ConfigError, OSError."""

    def fill(to: Path) -> None:
        write_json({"format": FORMAT, "results": {r.name: r.summary for r in results}}, to / "summary.json")
        columns: dict[str, Any] = {"name": np.array([r.name for r in results], dtype=object)}
        for row in ROWS:
            values = [row.value(r.summary) for r in results]
            text = isinstance(values[0], str)
            columns["/".join(row.path)] = (
                np.array(values, dtype=object) if text else np.array([np.nan if v is None else v for v in values])
            )
        write_csv(columns, to / "compare.csv")
        (to / "report.html").write_text(render(results), encoding="utf-8")

    return write_folder(Path(folder), fill)
