"""A plan: the decision first, its rivals, what breaks first and in which worse world, then every candidate and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from sim.metrics.model_error import whose
from sim.metrics.slo import attained
from sim.report import study, words
from sim.report.figures import BLUE, GREEN, Figure, Trace, layout, time_axis
from sim.report.fitting import plain_table
from sim.report.templating import Cell, Page, Section, Table
from sim.units import show_number, show_share

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.study.plan.answer import PlanAnswer, Tried
    from sim.study.plan.candidate import Candidate
    from sim.study.plan.finals import Final as Finalist

_WORSE: Final = {
    "lengths": "prompts and answers {0:.0%} longer",
    "burst": "load in waves of {1:g} times its mean",
    "rate": "{0:.0%} more requests",
    "step_time": "every step {0:.0%} slower than predicted",
}
_HEAD: Final = (
    "deployment", "cards", "cost", "SLO met", "TTFT p99", "model error", "TPOT p99", "model error", "tokens/s/card", "held",
)  # fmt: skip


def screen(answer: PlanAnswer) -> Group:
    """The decision, the finalists, the limits."""
    lines: list[RenderableType] = [Text(answer.sentence(), style="bold green" if answer.verdict else "bold red")]
    if answer.finals:
        table = plain_table()
        for i, title in enumerate(("deployment", answer.unit, "SLO met", "TTFT p99", "TPOT p99", "held")):
            table.add_column(title.replace(" ", "\n", 1), justify="left" if i == 0 else "right", overflow="fold")
        for f in answer.finals:
            cells = [c.text.partition(" (")[0].partition(" ± ")[0] for c in _final_cells(answer, f)]
            amount = f"{f.accelerators:,}" if answer.objective == "accelerators" else f"{f.cost:,.2f}"
            row = (
                cells[0],
                amount,
                f"≥ {show_share(f.attainment_low)}" if f.runs > 1 else cells[3],
                cells[4],
                cells[6],
                cells[9],
            )
            table.add_row(*row, style="bold" if f is answer.winner else "" if f.sure else "dim")
        lines.append(table)
        if (error := model_error(answer, answer.winner or answer.finals[0])) != "":
            lines.append(Text(f"Model error: {error}"))
    lines += [Text(line) for line in limits(answer)]
    counts = tally(answer)
    lines.append(Text(counts, style="dim"))
    for price in answer.prices:
        lines.append(
            Text(f"price: {price['what']} ({price['source']}{', ' + str(price['date']) if price['date'] else ''})", style="dim")
        )
    return Group(*lines, *study.warnings(answer, most=6))


def tally(answer: PlanAnswer) -> str:
    """How many candidates went which way."""
    c = answer.candidates
    refused, skipped = sum(bool(x.refused) and not x.probes for x in c), sum(x.skipped for x in c)
    missed = sum(bool(x.refused) and bool(x.probes) for x in c)
    parts = [f"{len(c):,} {'candidate' if len(c) == 1 else 'candidates'}: {sum(bool(x.probes) for x in c):,} simulated"]
    if missed:
        parts.append(f"{missed:,} of them {'holds' if missed == 1 else 'hold'} the SLO at no size")
    if refused:
        parts.append(f"{refused:,} impossible")
    if skipped:
        parts.append(f"{skipped:,} dearer at best than the finalists")
    return ", ".join(parts) + "."


def limits(answer: PlanAnswer) -> list[str]:
    """Head-room, what breaks first, and worse worlds, a line each."""
    if answer.limits is None:
        return []
    lim = answer.limits
    out = []
    if lim.rate is not None and math.isfinite(lim.offered):
        room = lim.rate / lim.offered - 1.0
        out.append(
            f"Head-room {room:.0%}: it holds up to {show_number(lim.rate, 4)} requests/s. Beyond: {lim.breaks or 'nothing gives within 64 times the load'}"
        )
    for w in lim.worse:
        what = _WORSE[w.what].format(w.factor - 1.0, w.factor) + (f" ({w.why})" if w.why else "")
        if w.holds:
            out.append(f"With {what} it still holds: {attained(show_share(w.attainment), answer.several, 'the SLO')}.")
        else:
            need = (
                f"{w.size_needed:,} instead of {answer.winner.size:,} would hold"
                if w.size_needed and answer.winner
                else "twice as many do not hold either"
            )
            out.append(
                f"With {what} it misses: {attained(f'only {show_share(w.attainment)}', answer.several, 'the SLO')}; {need}."
            )
    return out


_TITLES: Final = {"ttft_p99_s": "TTFT p99", "tpot_p99_s": "TPOT p99"}


def model_error(answer: PlanAnswer, f: Finalist) -> str:
    """Where 4 of 5 real deployments like a finalist would be; empty where none is on record."""
    from sim.study.plan.answer import size_of

    found = {k: v for k, v in answer.bands.get(size_of(f), {}).items() if k in _TITLES}
    if not found:
        return ""
    one = next(iter(found.values()))
    shown = ", ".join(f"{_TITLES[k]} {words.between(v)}" for k, v in found.items())
    return f"{shown} ({one.level:.0%} of {whose(one.deployments, one.words, ': {}')})"


def _final_cells(answer: PlanAnswer, f: Finalist) -> list[Cell]:
    from sim.study.plan.answer import size_of

    def figure(name: str, show: Callable[[float], str]) -> Cell:
        if name not in f.figures:
            return Cell(words.DASH)
        mean, low, high = f.figures[name]
        return Cell(show(mean) if low == high else f"{show(mean)} ± {show((high - low) / 2)}", mean)

    def within(name: str) -> Cell:
        found = answer.bands.get(size_of(f), {}).get(name)
        return Cell(words.DASH, mood="fact") if found is None else Cell(words.between(found), found.high, "fact")

    low = f" (≥ {show_share(f.attainment_low)})" if f.runs > 1 else ""
    return [
        Cell(size_of(f), mood="best" if f is answer.winner else ""),
        Cell(f"{f.accelerators:,}", f.accelerators),
        Cell(answer.amount(f).removesuffix(f" {answer.unit}"), f.cost),
        Cell(f"{show_share(f.attainment)}{low}", f.attainment, "yes" if f.sure else "no"),
        figure("ttft_p99_s", words.seconds),
        within("ttft_p99_s"),
        figure("tpot_p99_s", words.seconds),
        within("tpot_p99_s"),
        figure("per_accelerator", words.number),
        Cell(f"{f.held} of {f.runs}" if not f.error else f.error, f.held),
    ]


def files(answer: PlanAnswer, folder: Path) -> None:
    """``summary.json``, ``report.html``, and ``scenario-1.yaml`` …: each finalist ready to run, the best first."""
    study.write(folder, answer.as_dict(), page(answer).html())
    for i, text in enumerate(answer.scenarios.values(), start=1):
        (folder / f"scenario-{i}.yaml").write_text(text, encoding="utf-8")


def page(answer: PlanAnswer) -> Page:
    """The report."""
    w = answer.winner
    cards = []
    if w is not None:
        cards = [
            {"label": "deployment", "value": f"{w.size:,} × {w.candidate.label}"},
            {"label": answer.objective, "value": answer.amount(w), "note": _interval_note(answer, w)},
            *([] if answer.objective == "accelerators" else [{"label": "accelerators", "value": f"{w.accelerators:,}"}]),
            {
                "label": "effective attainment" if answer.several else "requests within the SLO",
                "value": show_share(w.attainment),
                "note": f"at least {show_share(w.attainment_low)} with {answer.confidence:.0%} confidence"
                if w.runs > 1
                else "one run",
            },
        ]
        if answer.limits is not None and answer.limits.rate is not None and math.isfinite(answer.limits.offered):
            cards.append(
                {
                    "label": "head-room",
                    "value": f"{answer.limits.rate / answer.limits.offered - 1.0:.0%}",
                    "note": f"holds up to {show_number(answer.limits.rate, 4)} requests/s",
                }
            )
    sections = []
    figures = [f for f in (_front(answer), _per_user(answer)) if f is not None]
    if answer.finals:
        rows = [_final_cells(answer, f) for f in answer.finals]
        keep = [i for i, name in enumerate(_HEAD) if name != "cost" or answer.objective != "accelerators"]
        head = [answer.unit if _HEAD[i] == "cost" else _HEAD[i] for i in keep]
        table = Table(head, [[row[i] for i in keep] for row in rows], (0,), sortable=True)
        sections.append(Section("The finalists", FINALS, table=table))
    if figures:
        sections.append(Section("Cost against latency", FRONT, figures=figures))
    sections.append(Section("Every candidate", tally(answer), table=_candidates(answer)))
    prices = [[str(p[k]) for k in ("what", "source", "date", "confidence")] for p in answer.prices]
    if prices:
        sections.append(
            Section("Where the prices come from", PRICES, table=Table(["price", "source", "date", "confidence"], prices, (0, 1)))
        )
    details = [Section(f"Scenario: {label}", pre=text) for label, text in answer.scenarios.items()]
    return Page(
        f"Plan for {answer.name}",
        answer.question,
        answer.sentence(),
        study.STATE[answer.verdict],
        notes=limits(answer),
        cards=cards,
        warnings=list(answer.warnings),
        sections=sections,
        details=details,
    )


FINALS: Final = (
    "Each with its replications, whole traffic under other random numbers every time: mean ± half of the interval. "
    "The SLO surely holds when the lower bound of its attainment is at least what is required. Model error: where 4 of 5 real deployments like "
    "this one would be, by the record of measured ones."
)
FRONT: Final = "Deployments of the short screening runs: green ones hold the SLO. The line joins those that no other beats in both cost and latency."
PRICES: Final = "List prices of one card differ by two to five times between providers: check these before anything else."


def _interval_note(answer: PlanAnswer, w: Finalist) -> str:
    return "" if w.cost_low == w.cost_high else f"{w.cost_low:,.2f} to {w.cost_high:,.2f} over the runs"


def _candidates(answer: PlanAnswer) -> Table:
    rows = []
    for c in answer.candidates:
        best = max(c.probes, key=lambda p: (p.met, -p.size), default=None)
        state, mood = _state(answer, c)
        rows.append(
            [
                Cell(c.label),
                Cell(state, mood=mood),
                Cell(words.DASH if c.size is None else f"{c.size:,}", c.size),
                Cell(f"{c.cost:,.2f}", c.cost) if math.isfinite(c.cost) else Cell(words.DASH),
                Cell(words.DASH if c.refused or not c.least_cost else f"{c.least_cost:,.2f}", c.least_cost),
                _time(None if best is None else best.ttft_p99_s),
                _time(None if best is None else best.tpot_p50_s),
                study.cell(None if best is None else best.per_accelerator),
            ]
        )
    head = [
        "candidate",
        "what became of it",
        "fewest replicas",
        answer.unit,
        "no less than",
        "TTFT p99",
        "TPOT p50",
        "tokens/s/card",
    ]
    return Table(head, rows, (0, 1), sortable=True)


def _time(value: float | None) -> Cell:
    return Cell(words.seconds(value), value)


def _state(answer: PlanAnswer, c: Candidate) -> tuple[str, str]:
    if answer.winner is not None and c.number == answer.winner.candidate.number:
        return "the best", "best"
    if c.refused:
        return c.refused + (f" ({c.note})" if c.note else ""), "no"
    if c.skipped:
        return "not simulated: dearer at best than the finalists", ""
    if any(f.candidate.number == c.number for f in answer.finals):
        return "finalist", "yes"
    return "holds in the screening" if c.size is not None else "not reached", "yes" if c.size is not None else ""


def _scatter(rows: Sequence[Tried], points: Sequence[tuple[float, float]], name: str, color: str, hover: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [float(f"{x:.5g}") for x, _ in points],
        "y": [float(f"{y:.5g}") for _, y in points],
        "text": [f"{r.size:,} × {r.label}" for r in rows],
        "hovertemplate": hover,
        "marker": {"size": 9, "color": color, "opacity": 0.75},
    }


def _both(rows: Sequence[Tried], points: Sequence[tuple[float, float]], hover: str) -> list[Trace]:
    """Those that hold the SLO, and those that do not."""
    out = []
    for met, name, color in ((True, "holds the SLO", GREEN), (False, "does not", BLUE)):
        mine = [i for i, r in enumerate(rows) if r.met is met]
        out.append(_scatter([rows[i] for i in mine], [points[i] for i in mine], name, color, hover))
    return out


def _front(answer: PlanAnswer) -> Figure | None:
    rows = [r for r in answer.tried() if r.ttft_p99_s is not None and math.isfinite(r.cost)]
    if len(rows) < 2:
        return None
    hover = "%{text}<br>%{x:,.2f}, TTFT p99 %{y:.3g} s<extra></extra>"
    data = _both(rows, [(r.cost, r.ttft_p99_s or 0.0) for r in rows], hover)
    front = [r for r in answer.front() if r.ttft_p99_s is not None]
    line: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": "best of both",
        "x": [p.cost for p in front],
        "y": [p.ttft_p99_s for p in front],
    }
    data.append(line | {"line": {"color": GREEN, "width": 1, "shape": "hv"}, "hoverinfo": "skip"})
    heights = [r.ttft_p99_s or 0.0 for r in rows]
    made = layout(answer.unit, "TTFT p99", yaxis=time_axis(min(heights), max(heights)))
    return Figure("front", "Cost against TTFT p99", "Lower left is better.", {"data": data, "layout": made})


def _per_user(answer: PlanAnswer) -> Figure | None:
    rows = [r for r in answer.tried() if r.per_user is not None]
    if len(rows) < 2:
        return None
    hover = "%{text}<br>%{x:,.0f} tokens/s/user, %{y:,.0f} tokens/s/card<extra></extra>"
    data = _both(rows, [(r.per_user or 0.0, r.per_accelerator) for r in rows], hover)
    made = layout("output tokens/s per user", "output tokens/s per accelerator")
    return Figure("per-user", "Throughput against speed", "Upper right is better.", {"data": data, "layout": made})
