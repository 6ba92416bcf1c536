"""A run whose scenario has prices says what it costs, on the first screen and in its report."""

from collections.abc import Callable
from dataclasses import replace

from sim.metrics.money import Expense, Power, economics_section, paid
from sim.metrics.result import Result
from sim.metrics.summary import Throughput
from sim.report import html, terminal

LINE = {
    "what": "1 × aws p5.4xlarge (1 × h100-sxm), 6.88 USD per hour each",
    "amount_hour": 6.88,
    "source": "a <list>",
    "date": "2026-07-20",
}


def priced(result: Result, g_per_kwh: float | None = None, paid_for: float = 1.0) -> Result:
    expense = Expense("USD", 6.88, 0.0, 1.0, paid_for, 1.0, (LINE,))
    notes = {"grid": "France 2023, 40 gCO2e/kWh: a table", "pue_source": "given"}
    section = economics_section(
        result.summary, expense, Power(500.0, 10.0, 200.0, 1.1), output_to_input=3.5, g_per_kwh=g_per_kwh, notes=notes
    )
    return replace(result, summary=replace(result.summary, economics=section))


def test_the_first_screen_says_what_it_costs(wave: Result) -> None:
    screen = " ".join(terminal.text(priced(wave, 40.0), 100).split())

    assert "6.88 USD per hour" in screen
    assert "per million output tokens" in screen
    assert "0.77 kW at the meter" in screen
    assert "gCO2e (France 2023, 40 gCO2e/kWh)" in screen
    assert "1 × aws p5.4xlarge (1 × h100-sxm), 6.88 USD per hour each, 2026-07-20" in screen


def test_the_report_has_a_card_and_the_sources(wave: Result) -> None:
    page = html.render(priced(wave, 40.0))

    assert "6.88" in page
    assert "<h2>Money, energy, carbon</h2>" in page
    assert "a &lt;list&gt;, 2026-07-20" in page
    assert "40 gCO2e/kWh: a table" in page
    assert "PUE: given" in page


def test_without_prices_nothing_is_said(wave: Result) -> None:
    assert "USD" not in terminal.text(wave)
    assert "Money" not in html.render(wave)


def test_a_run_that_finished_nothing(make_result: Callable[..., Result]) -> None:
    result = make_result(200)
    through = Throughput(0.0, 0.0, 0.0, 0.0, 0.0)
    nothing = priced(replace(result, summary=replace(result.summary, throughput=through)))

    assert "6.88 USD per hour; 1 accelerator paid for" in " ".join(terminal.text(nothing, 100).split())


def test_cards_that_nobody_uses(wave: Result) -> None:
    section = priced(wave, paid_for=8.0).summary["economics"]

    assert paid(section).startswith("8 accelerators paid for, 1 of them used; no step runs in ")
