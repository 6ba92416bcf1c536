"""What a run costs: its pools against the prices, the power of its accelerators and the grid that a scenario names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sim.config.economics import Economics
from sim.cost.energy import energy
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import Plan
from sim.hardware import load_accelerator
from sim.hardware.grids import Pue, find_grid, find_pue
from sim.hardware.prices import Bill, Offer, bill, offers, public_prices, read_prices
from sim.metrics.money import Economics as Costs
from sim.metrics.money import Expense, Power, economics_section
from sim.metrics.record import RunRecord
from sim.metrics.summary import Summary

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json

V = TypeVar("V")
_HOURS_A_YEAR = 8760.0
_OWNED = "owned"


def check(scenario: Scenario, plans: Sequence[Plan]) -> None:
    """Find whatever is wrong with the section before anything runs. Raises `ConfigError`."""
    e: Economics | None = scenario.economics
    if e is None:
        return
    if scenario.scaling is not None and len(plans) > 1:
        why = "is not modelled for several pools that scale: each would need its own mean"
        raise NotModelledError("economics", scenario.scaling.name, why, "no scaling, or one deployment")
    expense_of(e, replica_widths(plans), None)
    if isinstance(e.grid, str):
        find_grid(e.grid)


def section(summary: Summary, scenario: Scenario, plans: Sequence[Plan], record: RunRecord) -> Costs | None:
    """``economics`` of a summary; None without that section in the scenario. Raises `ConfigError` for prices that are missing."""
    e: Economics | None = scenario.economics
    if e is None:
        return None
    widths = replica_widths(plans)
    if record.scaling is not None:  # a fleet that grows: what existed on average, and no whole servers
        alive = np.asarray(record.alive_s, np.float64)
        horizon = float(record.totals.get("last_s", 0.0))
        mean = float(alive.sum()) / horizon / plans[0].rank_count if horizon > 0 else 1.0  # rows are by rank
    else:
        mean = None
    pue = _pue(e, widths)
    power = power_of(e, plans, record, pue.value)
    expense = expense_of(e, widths, power, mean)
    grid = None if not isinstance(e.grid, str) else find_grid(e.grid)
    g = carbon_intensity(e)
    notes: dict[str, str | None] = {"grid": None, "pue_source": f"{pue.who} ({pue.source})" if pue.source else pue.who}
    if g is not None:
        notes["grid"] = f"{g:g} gCO2e/kWh, given" if grid is None else f"{grid.name} {grid.year}, {g:g} gCO2e/kWh: {grid.source}"
    return economics_section(summary, expense, power, output_to_input=e.output_to_input, g_per_kwh=g, notes=notes)


def carbon_intensity(e: Economics) -> float | None:
    """gCO2e per kWh; None where no grid is named. Raises `ConfigError`."""
    if e.grid is None:
        return None
    return float(e.grid) if isinstance(e.grid, int | float) else find_grid(e.grid).g_per_kwh


def replica_widths(plans: Sequence[Plan]) -> dict[str, list[int]]:
    """Accelerators of each replica, by accelerator name; models that share one accelerator count once."""
    out: dict[str, list[int]] = {}
    for p in plans[:1] if plans[0].several else plans:
        out.setdefault(p.accelerator.name, []).extend([p.layout.tp * p.layout.pp * p.layout.dp] * p.replicas)
    return out


def expense_of(
    e: Economics, widths: Mapping[str, Sequence[int]], power: Power | None, mean_replicas: float | None = None
) -> Expense:
    """The bill of an hour for replicas of these ``widths`` by accelerator name.

    ``mean_replicas``: of an autoscaled pool (all ``widths`` equal); its accelerators are then paid for one by one, as long as they exist.
    ``power`` None: without electricity. Raises `ConfigError`.
    """
    lines: list[dict[str, Json]] = []
    total = paid = used = nodes = 0.0
    owned = 0.0
    for name, each in widths.items():
        found = _bill(e, name, each)
        amount, cards, servers, using = found.price_hour, float(found.accelerators), float(found.nodes), float(found.used)
        if mean_replicas is not None:
            cards = using = mean_replicas * each[0]
            amount = found.offer.price_hour * _rates(e)[found.offer.currency] / found.offer.count * cards
            servers = cards / found.offer.count
        o = found.offer
        what = f"{servers:,.4g} × {o.title} ({o.count} × {name}), {amount / servers:,.2f} {e.currency} per hour each"
        lines.append(
            {
                "what": what,
                "amount_hour": amount,
                "source": o.source,
                "date": o.date,
                "confidence": o.confidence,
                "accelerator": name,
            }
        )
        total, paid, used, nodes = total + amount, paid + cards, used + using, nodes + servers
        owned += using if o.kind == _OWNED else 0.0
    electricity = 0.0
    if owned and e.electricity is not None and power is not None:
        electricity = power.watts / 1000.0 * e.electricity * owned / used
        lines.append(
            {
                "what": f"electricity at {e.electricity:g} {e.currency}/kWh",
                "amount_hour": electricity,
                "source": "given",
                "date": "",
            }
        )
    return Expense(e.currency, total + electricity, electricity, used, paid, nodes, tuple(lines))


def of_one(what: str) -> str:
    """A line of a bill without how many: ``4 × aws p5…, 6.88 USD per hour each`` → ``aws p5…, 6.88 USD per hour each``."""
    return what.partition(" × ")[2] if what.endswith(" each") else what


def _bill(e: Economics, name: str, widths: Sequence[int]) -> Bill:
    own = _own(e, name)
    if own is not None:
        return bill(widths, [own], {own.currency: 1.0})
    if e.prices is None and e.provider is None:
        hint = f"give economics.accelerator_hour={{{name}: …}}, economics.purchase, economics.prices, or economics.provider"
        raise ConfigError("economics", name, "no price of this accelerator is given, and no provider to look it up", hint=hint)
    listed = read_prices(e.prices) if e.prices is not None else public_prices()
    rates = _rates(e)
    found = offers(listed, name, provider=e.provider, region=e.region, kind=e.kind, currencies=list(rates))
    return bill(widths, found, rates)


def _rates(e: Economics) -> dict[str, float]:
    """Units of the scenario's currency for one unit of each."""
    return {e.currency: 1.0} | {name: 1.0 / rate for name, rate in e.exchange.items()}


def _canonical(given: Mapping[str, V], field: str, deployed: str) -> dict[str, V]:
    """Prices by the names of profiles: ``h100`` is ``h100-sxm``; an accelerator of one's own is known by its own name."""
    return {k if k == deployed else load_accelerator(k, field).name: v for k, v in given.items()}


def _own(e: Economics, name: str) -> Offer | None:
    count = e.node or 1
    hours = _canonical(e.accelerator_hour, "economics.accelerator_hour", name)
    purchases = _canonical(e.purchase, "economics.purchase", name)
    if name in hours:
        price, source, kind = hours[name], "given: economics.accelerator_hour", ""
    elif name in purchases:
        p = purchases[name]
        price = p.price * (1.0 / p.years + p.upkeep) / _HOURS_A_YEAR
        source = f"given: {p.price:,.0f} {e.currency} over {p.years:g} years, {p.upkeep:.0%} upkeep a year"
        kind = _OWNED
    else:
        return None
    return Offer("", "", "", name, count, price * count, e.currency, kind, "", source, "given")


def _pue(e: Economics, names: Iterable[str]) -> Pue:
    if e.pue is not None:
        return Pue(e.pue, "given", "")
    owned = any((own := _own(e, name)) is not None and own.kind == _OWNED for name in names)
    return find_pue(e.provider, owned)


def power_of(e: Economics, plans: Sequence[Plan], record: RunRecord, pue: float) -> Power:
    """Mean power over the run: accelerators by what they did, servers by accelerator, the data centre by its PUE."""
    horizon = float(record.totals.get("last_s", 0.0))
    parts = np.asarray(record.parts, np.float64)
    alive = np.full(len(parts), horizon) if record.alive_s is None else np.asarray(record.alive_s, np.float64)
    joules = idle = seconds = 0.0
    at = 0
    for p in plans[:1] if plans[0].several else plans:
        cards = p.layout.tp * p.layout.pp * p.layout.dp / p.rank_count
        for row in range(at, min(at + p.replicas * p.rank_count, len(parts))):
            spent = parts[row] if not plans[0].several else parts.sum(axis=0)
            found = energy(p.accelerator, spent, float(alive[row]), 1)
            joules, idle, seconds = (
                joules + cards * found.joules,
                idle + cards * found.idle_joules,
                seconds + cards * float(alive[row]),
            )
        at += p.replicas * p.rank_count
    over = horizon if horizon > 0 else 1.0
    return Power(joules / over, idle / over, e.host_watts * seconds / over, pue)
