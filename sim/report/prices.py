"""Public prices on the terminal."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from sim.errors import ConfigError, UnknownNameError
from sim.hardware import load_accelerator
from sim.hardware.prices import public_prices
from sim.report import words

_NARROW = 78
_MOST = 40  # lines
_WIDE = 120  # columns of a terminal that has room for names of instances and lists of regions
CAVEAT = "List prices of one card differ by two to five times between providers; give your own with economics.accelerator_hour."


def rows(accelerator: str | None, provider: str | None, kind: str | None) -> list[dict[str, str | float]]:
    """Rows of the public list for an accelerator, cheapest first; without one, an overview. Raises `ConfigError`."""
    listed = public_prices()
    for name, wanted in (("provider", provider), ("kind", kind)):
        known = {getattr(o, name) for o in listed}
        if wanted is not None and wanted not in known:
            raise UnknownNameError(f"--{name}", wanted, known)
    listed = tuple(o for o in listed if (provider is None or o.provider == provider) and (kind is None or o.kind == kind))
    if accelerator is None:
        by: dict[str, list[float]] = {}
        for o in listed:
            if o.currency == "USD":
                by.setdefault(o.accelerator, []).append(o.price_hour / o.count)
        return [
            {"accelerator": k, "prices": len(v), "lowest": min(v), "median": median(v), "highest": max(v), "currency": "USD"}
            for k, v in sorted(by.items())
        ]
    names = {o.accelerator for o in public_prices()}
    name = accelerator if accelerator in names else load_accelerator(accelerator, "accelerator").name
    mine = [o for o in listed if o.accelerator == name]
    if not mine:
        raise ConfigError(
            "accelerator",
            accelerator,
            "has no public price like that",
            ", ".join(sorted(names)),
            "give your own: economics.purchase",
        )
    mine.sort(key=lambda o: (o.currency, o.price_hour / o.count, o.provider, o.region))
    return [asdict(o) | {"accelerator_hour": o.price_hour / o.count} for o in mine]


def show(accelerator: str | None, found: list[dict[str, str | float]], console: Console | None = None) -> None:
    """A table, and the caveat."""
    out, notes = console or Console(), []
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if accelerator is None:
        for i, head in enumerate(("accelerator", "prices", "lowest", "median", "highest", "USD per hour of one")):
            table.add_column("" if i == 5 else head, justify="left" if i == 0 else "right")
        for r in found:
            table.add_row(
                str(r["accelerator"]), str(r["prices"]), *(f"{r[k]:.2f}" for k in ("lowest", "median", "highest")), "USD/h"
            )
    else:
        wide = out.width >= _WIDE
        said = {"date": "date", "trust": "confidence"} if out.width >= _NARROW else {}
        columns = {"provider": "provider", "kind": "kind", **said}
        table.add_column("per hour", justify="right", no_wrap=True)
        for head in columns:
            table.add_column(head, no_wrap=True)
        for head in ("instance", "region") if wide else ("rows",):
            table.add_column(head, justify="left" if wide else "right", overflow="fold")
        together: dict[tuple[str, ...], list[dict[str, str | float]]] = {}
        for r in found:
            told = (f"{r['accelerator_hour']:.2f} {r['currency']}", *(str(r[key] or words.DASH) for key in columns.values()))
            together.setdefault(told, []).append(r)
        for told, mine in islice(together.items(), _MOST):
            table.add_row(*told, *((_one_of(mine, "instance"), _one_of(mine, "region")) if wide else (str(len(mine)),)))
        if not wide:
            notes.append("Rows: instances and regions of the list at that price, which terminals of 120 columns and --json show.")
        if len(together) > _MOST:
            notes.append(f"{len(together) - _MOST} more; --json prints all {len(found)} rows with their sources.")
    out.print(table)
    for note in notes:
        out.print(note)
    out.print(CAVEAT, style="dim")


def _one_of(offers: list[dict[str, str | float]], key: str) -> str:
    """The first of their instances or regions, and how many more there are."""
    names = list(dict.fromkeys(str(o[key] or words.DASH) for o in offers))
    return names[0] + f" and {len(names) - 1} more" * (len(names) > 1)
