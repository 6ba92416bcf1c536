"""One run on one terminal screen."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from sim.metrics import money
from sim.metrics.sections.kv_pools import KvPools
from sim.report import words
from sim.report.fitting import Fitting, kept, plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.metrics.result import Result
    from sim.metrics.summary import Summary
    from sim.study.statistics.worth import Worth

STYLE: Final = {"holds": ("✔", "bold green"), "misses": ("✘", "bold red"), "none": ("•", "bold")}
_BAR: Final = {
    "compute": ("compute", "blue"),
    "memory_bandwidth": ("memory", "cyan"),
    "communication": ("network", "magenta"),
    "host": ("host", "yellow"),
    "other": ("other", "bright_black"),
    "idle": ("idle", "white"),
}
_BAR_WIDTH: Final = 60
_MOST_CLASSES: Final = 12
_NARROW: Final = ("p999", "p90", "mean", "p95")
"""Columns of the latency table that go, one after the other, where the terminal is too narrow for all: a label never does, and no cell is cut."""


def screen(result: Result, sure: Worth | None = None) -> Group:
    """The whole screen: fits 80 × 24 when there is nothing to warn of. ``sure``: how much one run is worth."""
    s = result.summary
    state, sentence = words.verdict(s)
    mark, style = STYLE[state]
    lines: list[RenderableType] = [
        Text.assemble((s.name or "run", "bold"), (f"  {words.subtitle(s)}", "dim")),
        Text(f"{mark} {sentence}", style=style),
    ]
    when = words.spell(s)
    if when:
        lines.append(Text(when, style=style))
    lines += [
        LatencyTable(s, sure),
        *_class_table(s),
        _facts(s),
        _bar(s.bottleneck.shares),
        Text(s.bottleneck.sentence),
    ]
    lines += [Text(f"· {note}") for note in result.notes]
    lines += [Text(f"! {w}", style="yellow") for w in result.warnings]
    return Group(*lines)


def _class_table(s: Summary) -> list[Fitting]:
    """A row per class of clients where some have targets of their own, and they are not many."""
    rows = s.classes
    if len(rows) > _MOST_CLASSES or all(row.met is None for row in rows):
        return []
    heads = ("class", "requests", "SLO met", "TTFT p50", "TTFT p99", "TPOT p99", "E2E p99")
    table = Fitting(heads, spare=("TTFT p50", "E2E p99"))
    for row in rows:
        times = (words.seconds(x) for x in (row.ttft_p50_s, row.ttft_p99_s, row.tpot_p99_s, row.e2e_p99_s))
        style = {False: "red", True: "green", None: ""}[row.met]
        table.add(row.name, f"{row.requests:,}", words.met_cell(row.attainment), *times, style=style)
    return [table]


class LatencyTable:
    """The latency metrics, one row each, in as many columns as the terminal has room for."""

    def __init__(self, summary: Summary, sure: Worth | None = None) -> None:
        self.summary, self.sure = summary, sure

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table of this width."""
        yield latency_table(self.summary, options.max_width, self.sure)


def latency_table(s: Summary, width: int = 80, sure: Worth | None = None) -> Table:
    """The latency metrics, one row each; the SLO columns appear when there is one."""
    heads = {"label": "", **words.PERCENTILE_TITLES} | ({"slo": "SLO", "met": "met"} if s.slo.targets else {})
    rows = [row | {"label": f"{row['title']} {row['unit']}"} for row in words.latency_rows(s, sure)]
    shown = kept({key: max(len(head), *(len(row[key]) for row in rows)) for key, head in heads.items()}, _NARROW, width)
    table = plain_table()
    for key in shown:
        label = key == "label"
        table.add_column(heads[key], justify="left" if label else "right", no_wrap=True, min_width=10 if label else None)
    for row in rows:
        table.add_row(*(row[key] for key in shown))
    return table


def _facts(s: Summary) -> Table:
    u, r = s.utilisation, s.requests
    t = words.rates(s)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    load = words.load(s)
    if load:
        table.add_row("Load", load)
    rates = [
        f"{words.number(t.requests_per_s)} requests/s",
        f"{words.number(t.output_tokens_per_s)} output tokens/s",
        f"{words.number(t.total_tokens_per_s)} tokens/s",
    ]
    table.add_row("Throughput", ", ".join(rates))
    if t.goodput_requests_per_s is not None:
        tokens = words.number(t.goodput_output_tokens_per_s)
        table.add_row("Goodput", f"{words.number(t.goodput_requests_per_s)} requests/s, {tokens} output tokens/s")
    others = {"rejected": r.rejected, "failed": r.failed, "in flight": r.in_flight, "warmup": r.warmup}
    counts = [f"{r.finished:,} finished", *(f"{n:,} {what}" for what, n in others.items() if n)]
    table.add_row("Requests", ", ".join(counts))
    use = [] if load else [f"busy {words.percent(u.busy, 0)}"]
    if u.kv_mean is not None:
        use.append(f"KV {words.percent(u.kv_mean, 0)}, peak {words.percent(u.kv_peak, 0)}")
    if u.running_mean is not None:
        use.append(f"running {words.number(u.running_mean)}, waiting {words.number(u.waiting_mean)}")
    if use:
        table.add_row("Use", "; ".join(use))
    pools = words.extra(s, KvPools)
    if pools is not None:
        table.add_row("Pools", words.pools(pools))
    if s.scaling is not None:
        hours = words.number(s.scaling.accelerator_hours)
        table.add_row(
            "Replicas",
            f"{words.number(s.scaling.replicas_mean)} on average, {s.scaling.replicas_peak} at most; {hours} accelerator hours",
        )
    cached = f"; {words.percent(s.tokens.cached_share)} of prompt tokens cached" if s.tokens.cached else ""
    stages = s.bottleneck.request_time
    if "transfer" in stages:
        times = [f"{title} {words.percent(stages[k])}" for k, title in words.STAGES.items()]
        table.add_row("Time in", ", ".join(times))
    table.add_row("Work", f"{words.counted(s.steps, 'step')}, {words.counted(s.preemptions, 'preemption')}{cached}")
    if s.economics is not None:
        cost, energy, *_ = money.sentences(s.economics)
        table.add_row("Cost", cost)
        table.add_row("Energy", energy)
        table.add_row("Priced", "; ".join(_dated(line) for line in s.economics.lines))
    error = words.model_error(s)
    if error:
        table.add_row("Model error", error)
    rests = words.evidence_line(s)
    if rests:
        table.add_row("Rests on", rests)
    return table


def _dated(line: Mapping[str, object]) -> str:
    return f"{line['what']}, {line['date']}" if line.get("date") else str(line["what"])


def _bar(shares: Mapping[str, float]) -> Group:
    bar, legend = Text(), Text()
    for kind, share in shares.items():
        if share < 0.005:
            continue
        title, style = _BAR[kind]
        bar.append(("░" if kind == "idle" else "█") * max(1, round(share * _BAR_WIDTH)), style=style)
        legend.append("■ ", style=style)
        legend.append(f"{title} {share:.0%}  ")
    return Group(bar, legend)


def text(result: Result, width: int = 80, color: bool = False) -> str:
    """The screen as a string."""
    return as_text(screen(result), width, color)


def as_text(renderable: RenderableType, width: int = 80, color: bool = False) -> str:
    """What rich can print, as a string, lines without trailing spaces."""
    console = Console(file=io.StringIO(), width=width, force_terminal=color, no_color=not color, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def show(result: Result, console: Console | None = None, sure: Worth | None = None) -> None:
    """Print the screen."""
    (console or Console()).print(screen(result, sure))
