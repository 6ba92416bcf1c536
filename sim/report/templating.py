"""Reports from templates (`templates/`): jinja2, everything escaped, an unknown name is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from sim.report.figures import Figure

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

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


@dataclass(frozen=True)
class Cell:
    """``sort``: what the column is sorted by; ``mood``: best, yes, no, or fact (small, may wrap)."""

    text: str
    sort: float | None = None
    mood: str = ""


@dataclass(frozen=True)
class Table:
    """``text_columns`` are set left and may wrap."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text_columns: Sequence[int] = (0,)
    sortable: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a report, or what a reader may open."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    table: Table | None = None
    html: str = ""
    pre: str = ""


@dataclass(frozen=True)
class Page:
    """A report: the decision first (``sentence``, ``state`` holds | misses | "", ``notes``, ``cards``), then the evidence."""

    name: str
    kicker: str
    sentence: str
    state: str = ""
    notes: Sequence[str] = ()
    cards: Sequence[dict[str, str]] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()
    details: Sequence[Section] = field(default_factory=tuple)

    def html(self, template: str = "study.html") -> str:
        """The whole file."""
        figures = [f for s in (*self.sections, *self.details) for f in s.figures]
        sortable = any(s.table is not None and s.table.sortable for s in (*self.sections, *self.details))
        context = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return render(template, f"{self.name} · servesim", figures, sortable=sortable, **context)


def told(text: object) -> Markup:
    """Text that is safe inside HTML; what stands between backticks is set as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("sim.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["told"] = told
    return made


def render(template: str, title: str, figures: Sequence[Figure] = (), *, sortable: bool = False, **context: object) -> str:
    """A template of `templates/` that extends ``page.html``. plotly.js is inside only when there is something to plot."""
    from markupsafe import Markup

    from sim import __version__

    specs = json.dumps({f.name: f.spec for f in figures}, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    here = files("sim.report")
    text: str = (
        _environment()
        .get_template(template)
        .render(
            title=title,
            policy=Markup(_POLICY),
            css=Markup((here / "page.css").read_text(encoding="utf-8")),
            made_by=f"servesim {__version__}",
            figures=bool(figures),
            specs=Markup(specs.replace("<", "\\u003c")),
            plotly=Markup(_plotly_js() if figures else ""),
            draw=Markup(_DRAW),
            sortable=sortable,
            sort=Markup((here / "templates" / "sort.js").read_text(encoding="utf-8") if sortable else ""),
            **context,
        )
    )
    return text + "\n"


@cache
def _plotly_js() -> str:
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8").replace("</script", "<\\/script")
