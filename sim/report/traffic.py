"""What traffic files are like: a terminal table, an HTML page with plots, and a synthetic section to paste."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from sim import output
from sim.metrics.store import write_json
from sim.report import page
from sim.report.figures import PALETTE, Figure, Spec, Trace, layout, line, rounded
from sim.units import show_number

if TYPE_CHECKING:
    from sim.workload.describe import Description

FORMAT: Final = "servesim-traffic/1"
_LENGTHS: Final = ("mean", "p1", "p10", "p50", "p90", "p99", "max")


def rows(d: Description) -> list[tuple[str, str]]:
    """(what, figure) of a description, in words."""
    x = d.data
    out = [("format", d.format), ("requests", f"{x['requests']:,}")]
    if "span_s" in x:
        out += [("time", f"{show_number(x['span_s'], 6)} s"), ("rate", f"{show_number(x['rate_per_s'], 4)}/s")]
        if x["peak_minute_per_s"] is not None:
            out.append(("peak minute", f"{show_number(x['peak_minute_per_s'], 4)}/s"))
        out.append(("peak second", f"{x['peak_second']:,} requests"))
        if x["cv"] is not None:
            out.append(
                (
                    "burstiness",
                    f"CV of gaps {show_number(x['cv'])}, variance/mean per second {show_number(x['dispersion_1s'])} (Poisson: 1, 1)",
                )
            )
    else:
        out.append(("time", "no arrival times" if "span_s" not in x else ""))
    if "sessions" in x:
        s = x["sessions"]
        out.append(("sessions", f"{s['count']:,}, {show_number(s['turns_mean'])} turns on average, {s['turns_max']:,} at most"))
    if "adapters" in x:
        out.append(("adapters", f"{x['adapters']:,}"))
    if "priorities" in x:
        out.append(("priorities", ", ".join(map(str, x["priorities"]))))
    if "sharing" in x:
        s = x["sharing"]
        part = "" if s["whole"] else " (of its beginning)"
        out.append(("best hit rate", f"{100 * s['best_hit_rate']:.1f} % of prompt tokens with an endless cache{part}"))
        out += [(f"  {size:,} tokens", f"{100 * rate:.1f} %") for size, rate in s["by_cache_tokens"][:-1]]
    return out


def section(d: Description) -> str:
    """The fitted ``traffic`` section as YAML."""
    text: str = yaml.safe_dump({"traffic": {"synthetic": d.synthetic}}, sort_keys=False, default_flow_style=None, width=130)
    return text


def _lacks(d: Description) -> list[str]:
    out = []
    if "sharing" in d.data:
        out.append("shared prefixes of the file are not in the synthetic section (traffic.synthetic.prefixes, sessions)")
    if "sessions" in d.data:
        out.append("sessions of the file are not in the synthetic section (traffic.synthetic.sessions)")
    return out


def screen(d: Description) -> Group:
    """Everything as rich renderables."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    for what, figure in rows(d):
        facts.add_row(Text(what, style="bold" if not what.startswith(" ") else ""), figure)
    lengths = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    lengths.add_column("tokens", no_wrap=True)
    for name in _LENGTHS:
        lengths.add_column(name, justify="right", no_wrap=True)
    for title, key in (("prompt", "prompt_tokens"), ("output", "output_tokens")):
        lengths.add_row(title, *(f"{d.data[key][n]:,.1f}" if n == "mean" else f"{d.data[key][n]:,}" for n in _LENGTHS))
    notes = [Text(f"! {n}", style="yellow") for n in (*d.notes[1:], *_lacks(d))]
    return Group(Text(d.name, style="bold"), facts, lengths, *notes)


def show(found: Sequence[Description], console: Console | None = None) -> None:
    """Print descriptions, each with its synthetic section."""
    console = console or Console()
    for d in found:
        console.print(screen(d))
        console.print("# a synthetic section that resembles it")
        console.out(section(d), highlight=False)


def save(found: Sequence[Description], folder: str | Path) -> Path:
    """``summary.json, report.html`` and a ``NAME.synthetic.yaml`` a file, all or nothing. Raises ConfigError, OSError."""

    def fill(to: Path) -> None:
        write_json({"format": FORMAT, "files": [d.as_dict() for d in found]}, to / "summary.json")
        (to / "report.html").write_text(html(found), encoding="utf-8")
        for d in found:
            (to / f"{Path(d.name).stem}.synthetic.yaml").write_text(section(d), encoding="utf-8")

    return output.write_folder(Path(folder), fill)


def html(found: Sequence[Description]) -> str:
    """The page."""
    figures: list[Figure] = []
    body: list[str] = [f"<h1>Traffic: {page.esc(', '.join(d.name for d in found))}</h1>"]
    for i, d in enumerate(found):
        mine = _figures(d, i)
        figures += mine
        body.append(f"<h2>{page.esc(d.name)}</h2>")
        body.append(page.table(["", ""], [[page.esc(a), page.esc(b)] for a, b in rows(d)], (0, 1)))
        body += [f"<p>{page.esc(n)}</p>" for n in (*d.notes[1:], *_lacks(d))]
        body.append(page.plots(mine))
        body.append(page.details("A synthetic section that resembles it", f"<pre>{page.esc(section(d))}</pre>"))
    return page.page("Traffic", body, figures)


def _figures(d: Description, i: int) -> list[Figure]:
    x, out = d.data, []
    if "rate_over_time" in x:
        n = len(x["rate_over_time"])
        at = [x["span_s"] * (k + 0.5) / n for k in range(n)]
        spec: Spec = {
            "data": [line(rounded(at), rounded(x["rate_over_time"]), "rate", PALETTE[0])],
            "layout": layout("time, s", "requests/s"),
        }
        out.append(Figure(f"rate{i}", "Rate over time", "Mean of each of some twenty equal parts.", spec, True))
    curves: list[Trace] = []
    for k, key in enumerate(("prompt_tokens", "output_tokens")):
        table = d.synthetic["lengths"]["quantiles"]
        shares = [100 * p for p in table["p"]]
        curves.append(line(rounded(table[key]), rounded(shares), key.replace("_", " "), PALETTE[k]))
    spec = {"data": curves, "layout": layout("tokens", "% at or below", xaxis={"type": "log"})}
    out.append(Figure(f"lengths{i}", "Lengths", "Distribution of prompts and outputs.", spec))
    if "sharing" in x:
        sizes, rates = zip(*x["sharing"]["by_cache_tokens"], strict=True)
        spec = {
            "data": [line(list(sizes), rounded([100 * r for r in rates]), "best possible", PALETTE[2])],
            "layout": layout("cache, tokens", "% of prompt tokens found", xaxis={"type": "log"}),
        }
        out.append(
            Figure(f"sharing{i}", "Best possible hit rate", "With the piece evicted that is needed again last (Belady).", spec)
        )
    return out
