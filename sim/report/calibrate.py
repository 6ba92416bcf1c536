"""A calibration: what was fitted, and how far predictions are off before, after, and where the fit did not see the point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from sim.metrics.store import write_json
from sim.report import study
from sim.report.accuracy import errors, percent
from sim.report.fitting import plain_table
from sim.report.templating import Page, Section, Table
from sim.study.accuracy.errors import TARGETS, title
from sim.units import show_number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.study.calibrate import Calibration, Fit

BAND_WORDS: Final = (
    "Where 4 of 5 measurements lie, relative to the prediction: by the record of other deployments, and by your own points, each predicted by a "
    "fit that did not see it. The profile keeps the latter: runs with it print that band."
)
FOLDS: Final = (
    "The last column says what to expect of a point the fit has not seen: each is predicted by a fit to all others (linearised)."
)


def screen(done: Calibration) -> Group:
    """What was fitted, with errors before, after and cross-validated."""
    parts: list[RenderableType] = [Text(done.sentence(), style="bold"), *study.warnings(done)]
    for f in done.fits:
        parts += [Text(_name(f), style="bold"), Text(_figures(f.figures))]
        if f.unmoved:
            parts.append(Text(f"  left as they were, nothing measured depends on them: {', '.join(f.unmoved)}"))
        table = plain_table()
        for name in _head(f):
            table.add_column(name, justify="left" if name.startswith("median") else "right")
        for row in _rows(f):
            table.add_row(*row)
        parts.append(table)
        if f.bands:
            table = plain_table()
            for name in BANDS:
                table.add_column(name, justify="left" if name == BANDS[0] else "right")
            for row in band_rows(f):
                table.add_row(*row)
            parts.append(table)
    parts += [Text("all points, before", style="bold"), errors(done.before.rows(None, tuple(TARGETS)), False)]
    parts += [Text("all points, after", style="bold"), errors(done.after.rows(None, tuple(TARGETS)), False)]
    if done.wanted:
        parts.append(Text(f"Profile: {done.wanted}"))
    return Group(*parts)


def files(done: Calibration, folder: Path) -> None:
    """``summary.json``, ``report.html`` and ``profile.yaml``, of several engines one each, for ``deployment.profile``."""
    write_json(done.as_dict(), folder / "summary.json")
    (folder / "report.html").write_text(page(done).html(), encoding="utf-8")
    for engine, name in profiles(done).items():
        (folder / name).write_text(done.text(engine), encoding="utf-8")


def profiles(done: Calibration) -> Mapping[str, str]:
    """Engine → file of its profile."""
    one = len(done.engines) == 1
    return {engine: "profile.yaml" if one else f"profile-{Path(engine).stem}.yaml" for engine in done.engines}


def elsewhere(done: Calibration) -> None:
    """``--profile``."""
    if done.wanted is not None:
        done.save(done.wanted)


def page(done: Calibration) -> Page:
    """The report."""
    cards = [
        {
            "label": f"{title(m)}, {f.engine} {f.line} on {f.accelerator}",
            "value": percent(f.after[m]),
            "note": f"{percent(before)} before; {percent(f.held_out[m])} with one {f.folds} left out",
            "mood": "good" if f.after[m] <= before else "bad",
        }
        for f in done.fits
        for m, before in f.before.items()
    ]
    sections = [Section(_name(f), f"{_figures(f.figures)}. {FOLDS}", table=Table(_head(f), _rows(f), (0,))) for f in done.fits]
    sections += [
        Section(f"Band, {_name(f)}", BAND_WORDS, table=Table(list(BANDS), band_rows(f), (0,))) for f in done.fits if f.bands
    ]
    sections.append(Section("All points", ALL_WORDS, table=_both(done)))
    details = [Section(f"Profile: {name}", pre=done.text(engine)) for engine, name in profiles(done).items()]
    state = study.STATE[done.verdict]
    return Page("Calibration", "Figures of your own, fitted to what was measured", done.sentence(), state, cards=cards,
                warnings=done.warnings, sections=sections, details=details)  # fmt: skip


ALL_WORDS: Final = (
    "Of the absolute relative error: median and 90th percentile; bias: median with its sign. Each before → after the fit."
)


def _both(done: Calibration) -> Table:
    """Errors of all points before and after, a row for each metric."""
    after = {r.metric: r for r in done.after.rows()}
    rows = []
    for old in done.before.rows():
        if (new := after.get(old.metric)) is not None:
            pairs = ((percent(a), percent(b)) for a, b in ((old.median, new.median), (old.p90, new.p90)))
            bias = f"{percent(old.bias, True)} → {percent(new.bias, True)}"
            rows.append([title(old.metric), f"{new.points:,}", *(f"{a} → {b}" for a, b in pairs), bias])
    return Table(["metric", "points", "median |error|", "p90 |error|", "bias"], rows, (0,))


def _name(f: Fit) -> str:
    return f"{f.engine} {f.line} on {f.accelerator}: {f.points} points"


def _figures(figures: Mapping[str, float]) -> str:
    return "  " + (", ".join(f"{k} {show_number(v, 4)}" for k, v in figures.items()) or "nothing was fitted")


BANDS: Final = ("80 % of measured / predicted", "before: others' record", "after: own points", "held out inside", "points")


def band_rows(f: Fit) -> list[list[str]]:
    """The band of each metric before and after."""
    out = []
    for metric, b in f.bands.items():
        ends = [f"{x[0]:.2f} to {x[1]:.2f}" if x else "no record" for x in (b.before, b.after)]
        out.append([title(metric), *ends, "too few" if b.inside is None else f"{100 * b.inside:.0f} %", str(b.points)])
    return out


def _head(f: Fit) -> list[str]:
    return ["median |error|", "before", "after", f"one {f.folds} left out"]


def _rows(f: Fit) -> list[list[str]]:
    return [[title(m), percent(before), percent(f.after[m]), percent(f.held_out[m])] for m, before in f.before.items()]
