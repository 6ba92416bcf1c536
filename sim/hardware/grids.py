"""Electricity: carbon per kWh by zone, and how much power a data centre adds. Yearly, location-based averages with source and year."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sim.errors import ConfigError, did_you_mean
from sim.resources import path as resource
from sim.tables import records

PUBLIC_CLOUD = "public cloud average"
OWN_ROOM = "on-premises average"


@dataclass(frozen=True)
class Grid:
    """``g_per_kwh``: gCO2e per kWh at the meter of the data centre."""

    zone: str
    name: str
    g_per_kwh: float
    year: str
    source: str


@dataclass(frozen=True)
class Pue:
    """Power of the whole data centre over power of its computers."""

    value: float
    who: str
    source: str


def find_grid(zone: str, field: str = "economics.grid") -> Grid:
    """A zone: ``FRA``, ``US-CA``, ``CN-GX``, ``gcp/europe-west4``; a cloud region without a figure of its own has that of its province or country.

    Raises `ConfigError`.
    """
    known = _grids()
    lower = {k.lower(): k for k in known}
    key = lower.get(zone.lower()) or _countries().get(zone.lower(), "")
    if key not in known:
        allowed = f"a zone such as FRA, US-CA, CN-GX or gcp/europe-west4 ({len(known)} in profiles/grids), or gCO2e per kWh"
        raise ConfigError(field, zone, "unknown zone", allowed, did_you_mean(zone, [*known, *_countries()]))
    return known[key]


def find_pue(provider: str | None, owned: bool) -> Pue:
    """The newest published average of a provider; the average of public clouds, or of rooms of one's own, where there is none."""
    rows = _rows("pue.csv")
    sources = _sources()
    wanted = (provider or "").lower().split("-")[0]
    mine = [r for r in rows if r["provider"] == wanted] or [
        r for r in rows if r["provider"] == (OWN_ROOM if owned else PUBLIC_CLOUD)
    ]
    newest = max(mine, key=lambda r: r["year"].removeprefix("FY"))
    return Pue(float(newest["pue"]), f"{newest['provider']}, {newest['scope']}, {newest['year']}", sources[newest["source"]])


def _rows(name: str) -> list[dict[str, str]]:
    text = resource("profiles", "grids", name).read_text(encoding="utf-8")
    return [row for _, row in records(f"profiles/grids/{name}", text)[1]]


@lru_cache(maxsize=1)
def _sources() -> dict[str, str]:
    return {r["id"]: r["source"] for r in _rows("sources.csv")}


@lru_cache(maxsize=1)
def _countries() -> dict[str, str]:
    return {f"{r['provider']}/{r['region']}".lower(): r["zone"] for r in _rows("regions.csv")}


@lru_cache(maxsize=1)
def _grids() -> dict[str, Grid]:
    sources = _sources()
    out: dict[str, Grid] = {}
    for r in sorted(_rows("intensity.csv"), key=lambda r: r["year"]):  # the newest of a zone stands last and stays
        out[r["zone"]] = Grid(r["zone"], r["name"] or r["zone"], float(r["g_co2e_per_kwh"]), r["year"], sources[r["source"]])
    return out
