"""A sweep: which settings hold the SLO, which is best, and every run in a table to sort and filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from sim.document import number
from sim.report import study, words
from sim.report.figures import BLUE, GREEN, Figure, Trace, layout, time_axis
from sim.report.fitting import plain_table
from sim.report.templating import Cell, Page, Section, Table
from sim.study.domains import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.document import Json
    from sim.study.questions.sweep import SweepAnswer

_ROWS: Final = 20
_BRIEF: Final = (
    "slo.attainment.joint",
    "latency.ttft_s.p99",
    "latency.tpot_s.p99",
    "throughput.output_tokens_per_s_per_accelerator",
)
Show = Callable[[float | None], str]
COLUMNS: Final[dict[str, tuple[str, Show]]] = {
    "slo.attainment.joint": ("SLO met", words.met_cell),
    "slo.goodput_requests_per_s": ("goodput/s", words.number),
    "latency.ttft_s.p50": ("TTFT p50", words.seconds),
    "latency.ttft_s.p99": ("TTFT p99", words.seconds),
    "latency.tpot_s.p99": ("TPOT p99", words.seconds),
    "latency.e2e_s.p99": ("E2E p99", words.seconds),
    "throughput.requests_per_s": ("requests/s with the drain", words.number),
    "throughput.output_tokens_per_s_per_accelerator": ("tokens/s/card", words.number),
    "utilisation.kv_peak": ("KV peak", lambda v: words.percent(v, 0)),
}


def _short(answer: SweepAnswer) -> dict[str, str]:
    """Settings under the shortest names that tell them apart."""
    ends = [p.rpartition(".")[2] for p in answer.paths]
    return {p: e if ends.count(e) == 1 else p for p, e in zip(answer.paths, ends, strict=True)}


def _columns(answer: SweepAnswer) -> dict[str, tuple[str, Show]]:
    return {k: v for k, v in COLUMNS.items() if any(row.get(k) is not None for row in answer.rows)}


def screen(answer: SweepAnswer) -> Group:
    """The sentence, the first rows, errors whole."""
    columns = {k: v for k, v in _columns(answer).items() if k in _BRIEF}
    table = plain_table()
    repeated = any(row["replication"] for row in answer.rows)
    for title in (*_short(answer).values(), *(["run"] if repeated else []), *(t.replace(" ", "\n") for t, _ in columns.values())):
        table.add_column(title, justify="right", no_wrap=True)
    for row in answer.rows[:_ROWS]:
        cells = [plain(row[p]) for p in answer.paths] + ([str(row["replication"])] if repeated else [])
        style = "green" if row.get("slo.met") else ""
        table.add_row(*cells, *(show(_figure(row, k)) for k, (_, show) in columns.items()), style=style)
    lines: list[RenderableType] = [Text(answer.sentence(), style="bold"), table]
    if len(answer.rows) > _ROWS:
        lines.append(Text(f"{len(answer.rows) - _ROWS:,} more rows in runs.parquet and the report", style="dim"))
    for error, count in _errors(answer).items():
        lines.append(Text(f"! {count} failed: {error}", style="yellow"))
    for figure, of in answer.indices.items():
        ranked = sorted(of.items(), key=lambda item: -item[1]["delta"])
        lines.append(
            Text(f"{figure}: " + ", ".join(f"{p.rpartition('.')[2]} {v['delta']:.2f} ± {v['delta_conf']:.2f}" for p, v in ranked))
        )
    return Group(*lines, *study.warnings(answer))


def _errors(answer: SweepAnswer) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in answer.rows:
        if row["error"]:
            error = str(row["error"])
            found[error] = found.get(error, 0) + 1
    return found


def _figure(row: Mapping[str, Json], name: str) -> float | None:
    value = row.get(name)
    return None if value is None else number(value)


def files(answer: SweepAnswer, folder: Path) -> None:
    """``summary.json`` and ``report.html``."""
    data = answer.as_dict()
    data.pop("rows")  # they are in runs.parquet
    study.write(folder, data, page(answer).html())


def page(answer: SweepAnswer) -> Page:
    """The report."""
    short, columns = _short(answer), _columns(answer)
    repeated, failed = any(row["replication"] for row in answer.rows), any(row["error"] for row in answer.rows)
    head = [*short.values(), *["run"] * repeated, *(title for title, _ in columns.values()), *["error"] * failed]
    left = (0, len(head) - 1) if failed else (0,)
    rows = []
    for row in answer.rows:
        cells = [study.cell(row[p]) for p in answer.paths]
        cells += [study.cell(row["replication"])] * repeated
        met = row.get("slo.met")
        for i, (k, (_, show)) in enumerate(columns.items()):
            mood = "" if i or met is None else "yes" if met else "no"
            cells.append(Cell(show(_figure(row, k)), _figure(row, k), mood))
        rows.append([*cells, *[Cell(str(row["error"] or ""))] * failed])
    sections = [Section("Every run", table=Table(head, rows, left, sortable=True))]
    figures = _figures(answer)
    if figures:
        sections.insert(0, Section("Where the settings lie", figures=figures))
    if answer.indices:
        sections.insert(0, Section("What matters", SENSITIVITY, table=_indices(answer)))
    return Page(
        f"Sweep of {answer.name}",
        f"{len(answer.rows):,} runs over {', '.join(answer.paths)}",
        answer.sentence(),
        study.STATE[answer.verdict],
        warnings=answer.warnings,
        sections=sections,
    )


SENSITIVITY: Final = (
    "delta (Borgonovo): how much the whole distribution of a figure moves with a setting, 0 not at all; S1: its share of the variance. "
    "± half of the 95 % interval."
)


def _indices(answer: SweepAnswer) -> Table:
    rows = [
        [figure, path, f"{v['delta']:.2f} ± {v['delta_conf']:.2f}", f"{v['S1']:.2f} ± {v['S1_conf']:.2f}"]
        for figure, of in answer.indices.items()
        for path, v in sorted(of.items(), key=lambda item: -item[1]["delta"])
    ]
    return Table(["figure", "setting", "delta", "S1"], rows, (0, 1))


def _figures(answer: SweepAnswer) -> list[Figure]:
    """Latency against tokens/s/card, one dot per run."""
    x, y = "throughput.output_tokens_per_s_per_accelerator", "latency.tpot_s.p99"
    out = []
    for key, title in ((y, "TPOT p99"), ("latency.ttft_s.p99", "TTFT p99")):
        dots: dict[bool, list[tuple[float, float, str]]] = {True: [], False: []}
        for row in answer.rows:
            across, up = _figure(row, x), _figure(row, key)
            if across is not None and up is not None:
                dots[row.get("slo.met") is not False].append((across, up, answer.settings(row)))
        if sum(map(len, dots.values())) < 2:
            continue
        data: list[Trace] = [
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [round(d[0], 4) for d in found],
                "y": [float(f"{d[1]:.5g}") for d in found],
                "text": [d[2] for d in found],
                "hovertemplate": "%{text}<br>%{x:,.0f} tokens/s/card, %{y:.3g} s<extra></extra>",
                "marker": {"size": 8, "color": color, "opacity": 0.75},
            }
            for name, color, found in (("holds the SLO", GREEN, dots[True]), ("does not", BLUE, dots[False]))
            if found
        ]
        caption = "Each dot is a run; lower right is better."
        heights = [d[1] for found in dots.values() for d in found if d[1] > 0]
        made = layout(
            "output tokens/s per accelerator", title, yaxis=time_axis(min(heights, default=1e-3), max(heights, default=1.0))
        )
        out.append(Figure(key.replace(".", "-"), f"{title} against throughput", caption, {"data": data, "layout": made}))
    return out
