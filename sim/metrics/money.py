"""Money, energy and carbon of a run: pure arithmetic on what the run did and what an hour, a kWh and a gram cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sim.metrics.section import Section
from sim.units import show_number

if TYPE_CHECKING:
    from sim.metrics.summary import Summary


@dataclass(frozen=True)
class Power:
    """Power of a run. Watts of the accelerators alone, on average; ``host_watts`` of everything else in the servers."""

    accelerator_watts: float
    idle_accelerator_watts: float
    host_watts: float
    pue: float

    @property
    def watts(self) -> float:
        """What the meter of the data centre sees."""
        return (self.accelerator_watts + self.host_watts) * self.pue


@dataclass(frozen=True)
class Expense:
    """What an hour of the deployment costs and why. ``price_hour`` includes electricity where that is paid apart (``electricity_hour``)."""

    currency: str
    price_hour: float
    electricity_hour: float
    accelerators: float
    accelerators_paid: float
    nodes: float
    lines: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    """``{what, amount_hour, source, date, confidence}``: where each amount comes from."""


@dataclass(frozen=True)
class PowerFigures(Section):
    """Mean watts of accelerators and hosts, ``watts`` at the meter of the data centre."""

    accelerator_watts: float
    idle_accelerator_watts: float
    host_watts: float
    pue: float
    watts: float


@dataclass(frozen=True)
class Economics(Section):
    """What the deployment costs and emits when it serves this traffic all the time; see `economics_section`. None where nothing was finished."""

    currency: str
    per_hour: float
    per_month: float
    per_1000_requests: float | None
    per_1000_good_requests: float | None
    per_million_input_tokens: float | None
    per_million_output_tokens: float | None
    per_million_tokens: float | None
    output_to_input: float
    electricity_per_hour: float
    accelerators: float
    accelerators_paid: float
    nodes: float
    idle_share: float
    kilowatts: float
    kwh_per_million_output_tokens: float | None
    kwh_per_1000_requests: float | None
    g_co2e_per_hour: float | None
    g_co2e_per_million_output_tokens: float | None
    power: PowerFigures
    lines: tuple[Mapping[str, Any], ...]
    grid: str | None
    pue_source: str


def economics_section(
    summary: Summary,
    expense: Expense,
    power: Power,
    *,
    output_to_input: float,
    g_per_kwh: float | None,
    notes: Mapping[str, Any],
) -> Economics:
    """``economics`` of a summary.

    Costs are those of a deployment that serves this traffic all the time: price of an hour over what is finished in an hour. An output
    token is priced as ``output_to_input`` input tokens; both prices together pay for the hour. ``idle_share``: share of the bill for
    accelerators that nobody uses and for time in which no step ran. None where nothing was finished.
    """
    through = summary.throughput
    requests = (through.requests_per_s or 0.0) * 3600.0
    prompts = (through.prompt_tokens_per_s or 0.0) * 3600.0
    outputs = (through.output_tokens_per_s or 0.0) * 3600.0
    weighed = prompts + output_to_input * outputs
    good = (summary.slo.goodput_requests_per_s or 0.0) * 3600.0
    kilowatts = power.watts / 1000.0

    def per(amount: float, count: float, scale: float) -> float | None:
        return amount / count * scale if count > 0 else None

    bill = expense.price_hour
    used = expense.accelerators / expense.accelerators_paid if expense.accelerators_paid else 0.0
    return Economics(
        currency=expense.currency,
        per_hour=bill,
        per_month=bill * 730.0,
        per_1000_requests=per(bill, requests, 1e3),
        per_1000_good_requests=per(bill, good, 1e3),
        per_million_input_tokens=per(bill, weighed, 1e6),
        per_million_output_tokens=per(bill * output_to_input, weighed, 1e6),
        per_million_tokens=per(bill, prompts + outputs, 1e6),
        output_to_input=output_to_input,
        electricity_per_hour=expense.electricity_hour,
        accelerators=expense.accelerators,
        accelerators_paid=expense.accelerators_paid,
        nodes=expense.nodes,
        idle_share=1.0 - used * (summary.utilisation.busy or 0.0),
        kilowatts=kilowatts,
        kwh_per_million_output_tokens=per(kilowatts, outputs, 1e6),
        kwh_per_1000_requests=per(kilowatts, requests, 1e3),
        g_co2e_per_hour=None if g_per_kwh is None else kilowatts * g_per_kwh,
        g_co2e_per_million_output_tokens=None if g_per_kwh is None else per(kilowatts * g_per_kwh, outputs, 1e6),
        power=PowerFigures(**asdict(power), watts=power.watts),
        lines=tuple(dict(line) for line in expense.lines),
        grid=notes["grid"],
        pue_source=notes["pue_source"],
    )


def sentences(s: Mapping[str, Any]) -> list[str]:
    """The section in words: the cost first, then what it rests on."""
    money = f"{s['per_hour']:,.2f} {s['currency']} per hour"
    if s["per_million_output_tokens"] is not None:
        money += (
            f": {show_number(s['per_million_input_tokens'])} per million input tokens"
            f" and {show_number(s['per_million_output_tokens'])} per million output tokens"
            f" ({s['output_to_input']:g} to 1), {show_number(s['per_1000_requests'])} per 1,000 requests"
        )
    out = [f"{money}; {paid(s)}"]
    energy = f"{s['kilowatts']:,.2f} kW at the meter (PUE {s['power']['pue']:.2f})"
    if s["kwh_per_million_output_tokens"] is not None:
        energy += f", {show_number(s['kwh_per_million_output_tokens'])} kWh per million output tokens"
    if s["g_co2e_per_million_output_tokens"] is not None:
        energy += f", {show_number(s['g_co2e_per_million_output_tokens'])} gCO2e ({s['grid'].partition(':')[0]})"
    out.append(energy)
    out += [f"{line['what']}: {line['source']}" + (f", {line['date']}" if line.get("date") else "") for line in s["lines"]]
    if s["g_co2e_per_million_output_tokens"] is not None:
        out.append(f"grid: {s['grid']}")
    return out


def paid(s: Mapping[str, Any]) -> str:
    """How many accelerators the bill is for, and how much of it buys nothing."""
    text = f"{show_number(s['accelerators_paid'], 4)} accelerator{'' if s['accelerators_paid'] == 1 else 's'} paid for"
    if s["accelerators_paid"] > s["accelerators"]:
        text += f", {show_number(s['accelerators'], 4)} of them used"
    return text + (f"; no step runs in {s['idle_share']:.0%} of what is paid" if s["idle_share"] >= 0.005 else "")
