"""The HTML that all reports are made of: one file, everything inside, nothing fetched."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from sim.metrics.definitions import DEFINITIONS
from sim.report.figures import Figure
from sim.report.templating import render, told


def esc(value: object) -> str:
    """Text that is safe inside HTML."""
    return html.escape(str(value))


def page(title: str, body: Iterable[str], figures: Sequence[Figure]) -> str:
    """A whole HTML file of parts that are HTML already."""
    from markupsafe import Markup

    return render("page.html", title, figures, body=Markup("\n".join(body)))


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


def definition_table() -> str:
    """THE table of metrics."""
    rows = [
        [esc(m.title), f"<code>{esc(m.key)}</code>", esc(m.unit), esc(m.formula), told(m.note), esc(m.weight), esc(m.source)]
        for m in DEFINITIONS
    ]
    return table(["metric", "key", "unit", "formula", "note", "over", "source"], rows, (1, 2, 3, 4, 5, 6))


def definitions() -> str:
    """THE table of metrics, closed."""
    return details("Definitions of every metric", definition_table())


def records(title: str, rows: Sequence[Mapping[str, object]]) -> str:
    """A list of flat dicts as a table; columns in order of appearance."""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    cells = [[esc(f"{v:.6g}" if isinstance(v := row.get(k, ""), float) else v) for k in keys] for row in rows]
    return details(title, table([esc(k) for k in keys], cells, range(len(keys))))
