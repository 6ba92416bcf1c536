"""What an hour of an accelerator costs: price lists as CSV, and whole servers for a fleet.

The public list (``profiles/prices/hourly.csv``) holds facts with source, date and confidence. The same card costs two to five times as much
at one provider as at another, so an answer in money follows the price source more than the simulation: whoever shows a cost shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, isfinite
from pathlib import Path

from sim.errors import ConfigError, DataError, UnknownNameError, did_you_mean, shown
from sim.profile_files import read_text
from sim.resources import path as resource
from sim.tables import lines, records

COLUMNS = (
    "provider",
    "region",
    "instance",
    "accelerator",
    "count",
    "price_hour",
    "currency",
    "kind",
    "date",
    "source",
    "confidence",
)
_NEEDED = ("accelerator", "count", "price_hour", "currency")


@dataclass(frozen=True)
class Offer:
    """One row of a price list: ``count`` accelerators for ``price_hour`` of ``currency``. ``source`` is spelled out."""

    provider: str
    region: str
    instance: str
    accelerator: str
    count: int
    price_hour: float
    currency: str
    kind: str
    date: str
    source: str
    confidence: str

    @property
    def title(self) -> str:
        """``aws p5.48xlarge, us-east-1, on-demand``."""
        where = ", ".join(x for x in (f"{self.provider} {self.instance}".strip(), self.region, self.kind) if x)
        return where or "own price"


@dataclass(frozen=True)
class Bill:
    """Servers bought whole: ``nodes`` of ``offer``, ``price_hour`` in all, ``accelerators`` paid for of which ``used`` serve."""

    offer: Offer
    nodes: int
    price_hour: float
    accelerators: int
    used: int


def read_prices(file: str | Path, field: str = "economics.prices") -> tuple[Offer, ...]:
    """A price list of one's own. Raises `ConfigError`, or `DataError` naming the row and the column."""
    path = Path(file)
    try:
        text = read_text(path, "prices")
    except DataError as exc:
        raise ConfigError(field, str(file), f"cannot be read ({exc.problem})") from exc
    return _parse(text, str(file), {})


def public_prices() -> tuple[Offer, ...]:
    """The list that comes with the package."""
    return _public()


@lru_cache(maxsize=1)
def _public() -> tuple[Offer, ...]:
    folder = resource("profiles", "prices")
    rows = lines("profiles/prices/sources.csv", folder.joinpath("sources.csv").read_text(encoding="utf-8"))
    names: dict[str, str] = {row[0]: row[1] for row in rows[1:]}
    return _parse(folder.joinpath("hourly.csv").read_text(encoding="utf-8"), "profiles/prices/hourly.csv", names)


def _parse(text: str, where: str, sources: dict[str, str]) -> tuple[Offer, ...]:
    names, rows = records(where, text)
    lacking = [c for c in _NEEDED if c not in names]
    if lacking:
        raise DataError(where, f"the column {lacking[0]!r} is missing", f"a price list has {', '.join(COLUMNS)}")
    unknown = [c for c in names if c not in COLUMNS]
    if unknown:
        raise DataError(
            where, f"unknown column {unknown[0]!r}", did_you_mean(str(unknown[0]), COLUMNS) or f"known: {', '.join(COLUMNS)}"
        )
    out = []
    for number, row in rows:
        price, count = _number(row, "price_hour", where, number), _number(row, "count", where, number)
        if price <= 0 or count < 1 or count != int(count):
            raise DataError(where, f"row {number}: price_hour must be above 0 and count a whole number of at least 1")
        text_of = {c: (row.get(c) or "").strip() for c in COLUMNS if c not in ("price_hour", "count")}
        text_of["source"] = sources.get(text_of["source"], text_of["source"] or where)
        text_of["kind"] = text_of["kind"] or "on-demand"
        out.append(Offer(count=int(count), price_hour=price, **text_of))
    if not out:
        raise DataError(where, "holds no prices")
    return tuple(out)


def _number(row: dict[str, str], column: str, where: str, number: int) -> float:
    try:
        value = float(row.get(column) or "")
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise DataError(where, f"row {number}, column {column}: must be a number (got {shown(row.get(column))})")
    return value


def offers(
    prices: Sequence[Offer], accelerator: str, *, provider: str | None, region: str | None, kind: str, currencies: Sequence[str]
) -> list[Offer]:
    """Rows for an accelerator in one of ``currencies``, cheapest accelerator hour first.

    *Raises* `ConfigError` that names what is missing (the accelerator, its provider, region or kind, an exchange rate) and what there is.
    """
    found = [o for o in prices if o.accelerator == accelerator]
    if not found:
        raise ConfigError(
            "economics",
            accelerator,
            "no price of this accelerator is known",
            hint=f"give your own: economics.accelerator_hour={{{accelerator}: …}} or economics.purchase",
        )
    for name, wanted in (("provider", provider), ("kind", kind), ("region", region)):
        if wanted is None:
            continue
        fitting = [o for o in found if getattr(o, name).lower() == wanted.lower()]
        if not fitting:
            known = sorted({getattr(o, name) for o in found if getattr(o, name)})
            if wanted not in {getattr(o, name) for o in prices}:
                raise UnknownNameError(f"economics.{name}", wanted, known)
            raise ConfigError(f"economics.{name}", wanted, f"no such price of {accelerator} is known", ", ".join(known))
        found = fitting
    paid = [o for o in found if o.currency in currencies]
    if not paid:
        other = found[0].currency
        raise ConfigError(f"economics.exchange.{other}", None, f"is needed: {found[0].title} is priced in {other}")
    return sorted(paid, key=lambda o: (o.price_hour / o.count, o.count, o.region, o.instance))


def nodes_needed(widths: Sequence[int], count: int) -> int:
    """Servers of ``count`` accelerators for replicas of these ``widths``: first fit, widest first; a wide replica takes whole servers."""
    free: dict[int, int] = {}
    nodes = 0
    for width in sorted(widths, reverse=True):
        if width >= count:
            nodes += ceil(width / count)
            rest = ceil(width / count) * count - width
            if rest:
                free[rest] = free.get(rest, 0) + 1
            continue
        room = min((r for r in free if r >= width), default=0)
        if room:
            free[room] -= 1
            if not free[room]:
                del free[room]
        else:
            nodes, room = nodes + 1, count
        if room - width:
            free[room - width] = free.get(room - width, 0) + 1
    return nodes


def bill(widths: Sequence[int], choices: Sequence[Offer], rate: dict[str, float]) -> Bill:
    """The cheapest of ``choices`` that holds replicas of these ``widths`` (accelerators each), servers bought whole.

    A replica is not cut over servers that are too small for it where larger ones exist: they have no fast link between them.
    ``rate``: units of the wanted currency per unit of each. One kind of server for all: mixing kinds is not tried.
    """
    widest = max(widths)
    holding = [o for o in choices if o.count >= widest]
    if not holding:  # a replica over several servers: the largest there are
        most = max(o.count for o in choices)
        holding = [o for o in choices if o.count == most]
    bills = []
    for o in holding:
        n = nodes_needed(widths, o.count)
        bills.append(Bill(o, n, n * o.price_hour * rate[o.currency], n * o.count, sum(widths)))
    return min(bills, key=lambda b: (b.price_hour, b.nodes))
