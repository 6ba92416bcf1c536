"""The HTML that all reports are made of: one file, everything inside, nothing fetched."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, Final

from sim.metrics.definitions import DEFINITIONS
from sim.report.figures import Figure

# The browser itself refuses every request to a network: a report cannot call home by accident.
_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_DRAW: Final = """
window.reportErrors = [];
window.addEventListener("error", e => window.reportErrors.push(e.message));
(async () => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const options = {responsive: true, displayModeBar: false};
  for (const [id, f] of Object.entries(figures)) {
    try { await Plotly.newPlot(id, f.data, f.layout, options); } catch (e) { window.reportErrors.push(id + ": " + e); }
  }
  document.body.dataset.plots = document.querySelectorAll(".plot .main-svg:first-child").length;
  document.body.dataset.errors = window.reportErrors.join(" | ");
})();
"""


def esc(value: object) -> str:
    """Text that is safe inside HTML."""
    return html.escape(str(value))


@cache
def _plotly_js() -> str:
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8").replace("</script", "<\\/script")


def page(title: str, body: Iterable[str], figures: Sequence[Figure]) -> str:
    """A whole HTML file. plotly.js is inside only when there is something to plot."""
    css = (files("sim.report") / "page.css").read_text(encoding="utf-8")
    try:
        made_by = f"servesim {version('servesim')}"
    except PackageNotFoundError:
        made_by = "servesim"
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{esc(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<link rel="icon" href="data:,">',
        f"<style>\n{css}</style>\n</head>\n<body>\n<main>",
        *body,
        f"<footer>Made by {made_by}. Drag to zoom, double-click to go back. Works offline, sends nothing.</footer>\n</main>",
    ]
    if figures:
        specs = json.dumps({f.name: f.spec for f in figures}, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        specs = specs.replace("<", "\\u003c")
        parts.append(f'<script type="application/json" id="figures">{specs}</script>')
        parts.append(f"<script>{_plotly_js()}</script>\n<script>{_DRAW}</script>")
    return "\n".join([*parts, "</body>\n</html>\n"])


def plots(figures: Sequence[Figure]) -> str:
    """A grid of panels; an odd last one takes the whole row."""
    narrow = [f for f in figures if not f.wide]
    odd = narrow[-1].name if len(narrow) % 2 else ""
    panels = [
        f'<section class="panel{" wide" if f.wide or f.name == odd else ""}"><h3>{esc(f.title)}</h3>'
        f'<p class="caption">{esc(f.caption)}</p><div class="plot" id="{f.name}"></div></section>'
        for f in figures
    ]
    return f'<div class="grid">{"".join(panels)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = ()) -> str:
    """A table; cells are HTML already. ``text_columns`` are set left and may wrap."""
    kind = [' class="text"' if i in text_columns else "" for i in range(len(head))]
    top = "".join(f"<th{k}>{h}</th>" for k, h in zip(kind, head, strict=True))
    body = "".join("<tr>" + "".join(_cell(c, k) for c, k in zip(row, kind, strict=True)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: str, kind: str) -> str:
    if cell.startswith("★"):  # marks the best of a row
        return f'<td class="best">{cell[1:]}</td>'
    return f"<td{kind}>{cell}</td>"


def card(label: str, value: str, note: str = "", mood: str = "") -> str:
    """One number that matters. ``value`` may be ``12.3 ms``: the unit is set small."""
    amount, _, unit = value.partition(" ")
    shown = f"{esc(amount)} <small>{esc(unit)}</small>" if unit else esc(amount)
    lines = {"label": esc(label), "value": shown, "note": esc(note)}
    return f'<div class="card {mood}">' + "".join(f'<div class="{k}">{v}</div>' for k, v in lines.items()) + "</div>"


def bar(title: str, shares: Mapping[str, float | None], titles: Mapping[str, str], colors: Mapping[str, str]) -> str:
    """Shares of a whole as one coloured bar with a legend."""
    found = {k: v for k, v in shares.items() if v is not None and v > 0.0005}
    strips = "".join(
        f'<i style="width:{100 * v:.2f}%;background:{colors[k]}" title="{esc(titles[k])} {v:.1%}"></i>' for k, v in found.items()
    )
    legend = "".join(
        f'<span><span class="dot" style="background:{colors[k]}"></span>{esc(titles[k])} <b>{100 * v:.1f}%</b></span>'
        for k, v in found.items()
    )
    return f'<div class="split"><h3>{esc(title)}</h3><div class="bar">{strips}</div><div class="legend">{legend}</div></div>'


def details(title: str, inner: str) -> str:
    """A closed section."""
    return f"<details><summary>{esc(title)}</summary>{inner}</details>"


def definitions() -> str:
    """THE table of metrics."""
    rows = [
        [esc(m.title), f"<code>{esc(m.key)}</code>", esc(m.unit), esc(m.formula), esc(m.note), esc(m.weight), esc(m.source)]
        for m in DEFINITIONS
    ]
    return details(
        "Definitions of every metric",
        table(["metric", "key", "unit", "formula", "note", "over", "source"], rows, (1, 2, 3, 4, 5, 6)),
    )


def records(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Any list of flat dicts as a table; columns in order of appearance."""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    cells = [[esc(f"{v:.6g}" if isinstance(v := row.get(k, ""), float) else v) for k in keys] for row in rows]
    return details(title, table([esc(k) for k in keys], cells, range(len(keys))))
